"""A student with a video memory and the reference's weights, and one object tracked through the clip."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from model_store import registry
from model_store.networks.keys import sources
from model_store.networks.memory import Past
from model_store.networks.objects import NO_POINT, POSITIVE, InteractiveFeatures
from model_store.networks.sizes import sizes_of
from model_store.networks.student import Abilities, Student, blank, build, shapes
from model_store.registry import MemoryKind
from service.config import Limits
from service.worker.image import decode
from tests.released import weight_recipe

# The reference's one click, on frame 0.
_CLICK = (0.42, 0.55)
# Frames that are remembered beside that one.
_RECENT = 6


def remembering(reference: Path, variant: str, kind: MemoryKind) -> Student:
    """The variant with that memory; it finds no concepts."""
    recipe = weight_recipe(reference)
    sizes = sizes_of(registry.find(variant))
    abilities = Abilities(concepts=False, memory=kind)
    wanted = shapes(blank(sizes, abilities))
    weights: dict[str, Tensor] = {}
    for name, source in sources(wanted).items():
        first, *rest = wanted[name]
        if source.third is None:
            weights[name] = torch.from_numpy(recipe.fill(source.key, (first, *rest)))
        else:
            whole = torch.from_numpy(recipe.fill(source.key, (3 * first, *rest)))
            weights[name] = whole.chunk(3)[source.third].clone()
    return build(sizes, weights, abilities)


@torch.inference_mode()
def features(student: Student, reference: Path, frame: int) -> tuple[Tensor, ...]:
    """The interactive features of a frame of the clip: x4, x2, x1."""
    file = (reference / "video" / f"{frame:05d}.jpg").read_bytes()
    pixels = torch.from_numpy(decode(file, Limits(), student.sizes.image_size).pixels)
    module = InteractiveFeatures(student.interactive_neck, student.objects)
    found: tuple[Tensor, ...] = module(student.image(pixels[None]))
    return found


@dataclass(frozen=True)
class Answer:
    """What a frame gives."""

    conditioned: Tensor
    logits: Tensor
    object_score: Tensor
    pointer: Tensor
    # (1, T, M).
    memory: Tensor


@dataclass
class Track:
    """The reference's loop, as far as one object that was clicked on frame 0 needs it."""

    student: Student
    # Frames that make a pointer's age 1.
    span: int
    # Whether the best of the proposals is taken; else the one for a clear prompt, if it is stable.
    proposals: bool
    answers: list[Answer] = field(default_factory=list)

    def follow(self, frames: Iterator[tuple[Tensor, ...]]) -> Iterator[Answer]:
        """Frames' features -> their answers."""
        for x4, x2, x1 in frames:
            self.answers.append(self._next(x4, x2, x1))
            yield self.answers[-1]

    def _next(self, x4: Tensor, x2: Tensor, x1: Tensor) -> Answer:
        decoder, memory = self.student.objects, self.student.memory
        first = not self.answers
        conditioned = memory.condition(x1, self._past(), decoder.no_memory)
        # A click and the token that ends it; no click is two of those.
        labels = torch.tensor([[POSITIVE if first else NO_POINT, NO_POINT]], dtype=torch.int32)
        side = self.student.sizes.mask_size
        logits, iou, score, tokens = decoder.decode(
            conditioned,
            x2,
            x4,
            torch.zeros(1, dtype=torch.int32),
            torch.tensor([[_CLICK, (0.0, 0.0)]]),
            labels,
            torch.zeros(1, side, side),
            torch.zeros(1, dtype=torch.bool),
        )
        best = 1 + int(iou[0, 1:].argmax())
        mask = best if self.proposals or not _stable(logits[0, 0]) else 0
        pointer = memory.pointers(tokens)[:, mask if self.proposals else 0]
        kept = memory.encode(x1, logits[:, mask], torch.tensor([first]), score)
        return Answer(conditioned, logits[:, mask], score, pointer, kept)

    def _past(self) -> Past:
        now = len(self.answers)
        if not now:
            return self.student.memory.no_past(1)
        remembered = [0, *range(max(1, now - _RECENT), now)]
        ages = [now - frame if frame else 0 for frame in remembered]
        return Past(
            memory=torch.stack([self.answers[frame].memory for frame in remembered], dim=1),
            ages=torch.tensor([ages], dtype=torch.int32),
            memory_valid=torch.ones(1, len(remembered), dtype=torch.bool),
            pointers=torch.stack([answer.pointer for answer in self.answers], dim=1),
            pointer_ages=torch.arange(now, 0, -1)[None] / self.span,
            pointers_valid=torch.ones(1, now, dtype=torch.bool),
        )


def _stable(logits: Tensor) -> bool:
    """Whether the mask hardly changes with the threshold."""
    return bool((logits > 0.05).sum() >= 0.98 * (logits > -0.05).sum())


def golden(reference: Path, file: str) -> dict[str, np.ndarray[Any, Any]]:
    """All arrays of a golden."""
    with np.load(reference / "goldens" / f"{file}.npz") as archive:
        return {name: archive[name] for name in archive.files}


def largest(found: Tensor, expected: np.ndarray[Any, Any]) -> float:
    """The largest absolute difference of two arrays of as many elements."""
    return float((found.flatten() - torch.from_numpy(expected.ravel())).abs().max())
