"""Training the embedded student: `python -m model_store.demo.train --out FOLDER`.

Goes on where an interrupted run stopped. On processors, several processes of one thread each average their
gradients; on a CUDA device there is one.
"""

# mypy: allow-untyped-calls

import argparse
import json
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from rich.progress import Progress
from torch import Tensor
from torch.multiprocessing.spawn import spawn
from torch.utils.data import DataLoader

from model_store.demo import clicks, plan, tracking
from model_store.demo.drawings import FURTHER_STYLES, STYLES
from model_store.demo.feed import Feed
from model_store.demo.learner import Learner
from model_store.demo.optimiser import Optimiser
from model_store.demo.scenes import World
from model_store.demo.student import Words, sizes
from model_store.demo.vocabulary import Vocabulary

CHECKPOINT = "checkpoint.pt"
_LOG = "log.jsonl"
_SAVE_EVERY_S = 240.0
# A longer average lags behind what the falling rate still learns.
_EMA = 0.99
_CLIP = 1.0


@dataclass(frozen=True, slots=True)
class Place:
    """Where a process computes, among how many."""

    rank: int
    ranks: int
    device: torch.device

    def mean(self, value: Tensor) -> None:
        """Makes the value, in place, the mean of every process's."""
        if self.ranks > 1:
            dist.all_reduce(value)
            value /= self.ranks

    def same(self, values: Iterable[Tensor]) -> None:
        """Makes the values, in place, the first process's."""
        for value in values if self.ranks > 1 else ():
            dist.broadcast(value, 0)

    def average(self, learner: Learner) -> None:
        """Makes every process's gradients their mean. A gradient that one process has, all have."""
        if self.ranks == 1:
            return
        parameters = list(learner.parameters())
        had = torch.tensor([parameter.grad is not None for parameter in parameters], dtype=torch.uint8)
        dist.all_reduce(had, dist.ReduceOp.MAX)
        used = [parameter for parameter, flag in zip(parameters, had.tolist(), strict=True) if flag]
        for parameter in used:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        flat = torch.cat([parameter.grad.flatten() for parameter in used if parameter.grad is not None])
        self.mean(flat)
        parts = flat.split([parameter.numel() for parameter in used])
        for parameter, part in zip(used, parts, strict=True):
            parameter.grad = part.view_as(parameter)


class Training:
    """The learner, its average over time, and the optimiser, at a step."""

    def __init__(self, learner: Learner, place: Place, folder: Path, seed: int) -> None:
        self.learner = learner.to(place.device)
        self.place, self._folder, self._seed, self.step = place, folder, seed, 0
        self._optimiser = Optimiser(self.learner)
        self.average = {name: tensor.clone() for name, tensor in self.learner.state_dict().items()}

    def resume(self) -> None:
        """Take up the folder's checkpoint, if there is one."""
        path = self._folder / CHECKPOINT
        if not path.exists():
            return
        saved = torch.load(path, map_location=self.place.device, weights_only=True)
        if saved["seed"] != self._seed:
            raise SystemExit(f"{path} is of a training with --seed {saved['seed']}")
        self.learner.load_state_dict(saved["learner"])
        self._optimiser.load_state_dict(saved["optimiser"])
        self.average, self.step = saved["average"], saved["step"]

    def save(self) -> None:
        """Write the checkpoint, whole or not at all."""
        state = {
            "learner": self.learner.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "average": self.average,
            "step": self.step,
            "seed": self._seed,
        }
        partial = self._folder / f"{CHECKPOINT}.part"
        torch.save(state, partial)
        partial.replace(self._folder / CHECKPOINT)

    def learn(self, batch: dict[str, Any]) -> dict[str, float]:
        """One step. Returns the losses."""
        kind = batch.pop("kind")
        tensors = {name: torch.as_tensor(value, device=self.place.device) for name, value in batch.items()}
        self._prepare(kind, tensors)
        self.learner.zero_grad()
        with torch.autocast(self.place.device.type, torch.bfloat16):
            parts = self._losses(kind, tensors)
        torch.stack(list(parts.values())).sum().backward()
        self.place.average(self.learner)
        norm = torch.nn.utils.clip_grad_norm_(self.learner.parameters(), _CLIP)
        if torch.isfinite(norm):
            self._optimiser.step(plan.rate_at(self.step), plan.phase_at(self.step)[0].neck)
        self._remember()
        self.step += 1
        return {name: float(value.detach()) for name, value in parts.items()} | {"norm": float(norm)}

    def _prepare(self, kind: plan.Kind, batch: dict[str, Tensor]) -> None:
        """Sets what begins with what the learner has learned so far."""
        if kind != "crops" and not self.learner.settled:
            self._settle(batch["pixels"].flatten(0, -4))
        if kind == "clips" and not self.learner.remembers:
            self._begin_memory(batch)

    def _losses(self, kind: plan.Kind, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        extra = plan.extra_at(self.step)
        if kind == "crops":
            tokens = batch["tokens"]
            return {"crop": self.learner.crops(batch["pixels"], batch["masks"], batch["names"], tokens)}
        if kind == "clips":
            return {"track": tracking.step(self.learner, batch, extra)}
        embedding = self.learner.student.image(batch["pixels"])
        concept, masks = self.learner.concepts(embedding, batch, extra, plan.MASK_ROWS)
        objects = clicks.step(self.learner, self.learner.interactive(embedding), batch, plan.OBJECTS, extra)
        weight = plan.phase_at(self.step)[0].masks
        return {"concept": concept, "masks": weight * masks, "objects": weight * objects}

    def _settle(self, pixels: Tensor) -> None:
        with torch.no_grad():
            scales = self.learner.scales(pixels)
            for scale in scales.values():
                self.place.mean(scale)
            self.learner.settle(scales)
        self._forget(tuple(scales))

    def _begin_memory(self, batch: dict[str, Tensor]) -> None:
        self.learner.begin_memory(batch["pixels"].flatten(0, 1), batch["masks"].flatten(0, 1).float())
        self.place.same(self.learner.student.memory.state_dict().values())
        self._forget(("student.memory",))

    def _forget(self, parts: tuple[str, ...]) -> None:
        """The average begins anew for the parts of the learner that were set."""
        state = self.learner.state_dict()
        for name in self.average:
            if name.startswith(tuple(f"{part}." for part in parts)):
                self.average[name].copy_(state[name])

    def _remember(self) -> None:
        """The average over time; shorter at the start."""
        keep = min(_EMA, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for name, tensor in self.learner.state_dict().items():
                if tensor.is_floating_point():
                    self.average[name].lerp_(tensor, 1 - keep)
                else:
                    self.average[name].copy_(tensor)


def run(rank: int, arguments: argparse.Namespace) -> None:
    """One process's whole training, up to `--until`."""
    torch.manual_seed(arguments.seed)
    if not torch.cuda.is_available():
        torch.set_num_threads(1 if arguments.processes > 1 else max(1, os.cpu_count() or 1))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    place = Place(rank, arguments.processes, device)
    if place.ranks > 1:
        rendezvous = f"file://{(arguments.out / 'rendezvous').absolute()}"
        dist.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=place.ranks)
    words = Words(Vocabulary.load())
    training = Training(Learner(sizes()), place, arguments.out, arguments.seed)
    training.resume()
    torch.manual_seed(arguments.seed * 1000 + rank + training.step)
    world = World.load(arguments.drawings, (*STYLES, *FURTHER_STYLES))
    feed = Feed(world, words, arguments.seed, rank, place.ranks)
    until = min(arguments.until or plan.steps(), plan.steps())
    loader = DataLoader(
        feed, batch_size=None, sampler=range(training.step, until), num_workers=arguments.workers
    )
    _loop(training, loader, until, rank == 0, arguments.out / _LOG)


def _loop(training: Training, loader: DataLoader[Any], until: int, first: bool, log: Path) -> None:
    saved, parent = time.monotonic(), os.getppid()
    with Progress(disable=not first) as progress:
        bar = progress.add_task("train", total=until, completed=training.step)
        for batch in loader:
            kind = batch["kind"]
            losses = training.learn(batch)
            progress.advance(bar)
            if os.getppid() != parent:
                raise SystemExit("the command is gone")
            if not first:
                continue
            with log.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": training.step, "kind": kind, **losses}) + "\n")
            if time.monotonic() - saved > _SAVE_EVERY_S:
                training.save()
                saved = time.monotonic()
    if first:
        training.save()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the checkpoint and the log")
    parser.add_argument("--drawings", type=Path, required=True, help="folder of the rendered drawings")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=1 if torch.cuda.is_available() else os.cpu_count())
    parser.add_argument("--workers", type=int, default=12 if torch.cuda.is_available() else 0)
    parser.add_argument("--until", type=int, help="stop at this step; the next run goes on from there")
    return parser.parse_args()


def main() -> None:
    """The command."""
    arguments = _arguments()
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "rendezvous").unlink(missing_ok=True)
    if arguments.processes == 1:
        run(0, arguments)
    else:
        spawn(run, (arguments,), nprocs=arguments.processes)


if __name__ == "__main__":
    main()
