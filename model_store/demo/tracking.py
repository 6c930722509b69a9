"""Objects through a clip: each prompted on the first frame, then followed by what is kept of it."""

# mypy: allow-untyped-calls

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from model_store.demo import clicks
from model_store.demo.clicks import Prompts
from model_store.demo.learner import Batch, Interactive, Learner
from model_store.networks.memory import Past, VideoMemory
from model_store.networks.objects import NO_POINT

# Share of objects that are corrected by a click on one later frame.
_CORRECTED = 0.25
# A mask is the one for a clear prompt where it hardly changes with the threshold.
_STABLE, _AROUND = 0.98, 0.05
# Logits that an absent object's mask is remembered with.
_NOWHERE = -1024.0


@dataclass(frozen=True, slots=True)
class Kept:
    """What is kept of one frame, of R objects."""

    # (R, T, M) and (R, D), as `Past` has them.
    memory: Tensor
    pointer: Tensor
    # (R,) bool: a prompt was given on it.
    conditioning: Tensor


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame of N clips: its features and the truth about its R objects."""

    seen: Interactive
    # (R,) the clip that each is in.
    clip: Tensor
    # (R, s, s) float32 of 0 and 1.
    truth: Tensor


@dataclass(frozen=True, slots=True)
class Answer:
    """What the prompt decoder gave for R objects."""

    # (R, 4, 4g, 4g), (R, 4), (R, 1), (R, 4, D).
    logits: Tensor
    guess: Tensor
    score: Tensor
    tokens: Tensor

    @property
    def mask(self) -> Tensor:
        """(R, 4g, 4g): the first mask where it is stable, else the best of the others."""
        first = self.logits[:, 0]
        sure = (first > _AROUND).flatten(1).sum(1) >= _STABLE * (first > -_AROUND).flatten(1).sum(1)
        index = torch.where(sure, 0, clicks.best_proposal(self.guess))
        return self.logits[torch.arange(len(index), device=index.device), index]


def step(learner: Learner, batch: Batch, extra: float) -> Tensor:
    """The loss of following every object of N clips; the trunk learns nothing by it.

    Args:
        batch: `pixels` (N, T, S, S, 3) uint8, `masks` (N, T, K, s, s) uint8, `boxes` (N, K, 4) on the first
            frame.
        extra: see `losses.cross_entropy`.
    """
    frames = _frames(learner, batch)
    corrected_at = int(torch.randint(1, len(frames), ()))
    kept: list[Kept] = []
    total = batch["boxes"].new_zeros(())
    for index, frame in enumerate(frames):
        prompts = _asked(learner, frame, batch["boxes"].flatten(0, 1) if not index else None)
        conditioned = _condition(learner, frame, kept)
        answer, loss = _answer(learner, frame, conditioned, prompts, extra)
        prompted = torch.full_like(frame.clip, not index, dtype=torch.bool)
        if index == corrected_at:
            answer, prompted, more = _correct(learner, frame, conditioned, answer, extra)
            loss = loss + more
        total = total + loss
        kept.append(_keep(learner, frame, answer, prompted))
    return total / len(frames)


def _frames(learner: Learner, batch: Batch) -> list[Frame]:
    clips, length, things = batch["masks"].shape[:3]
    embedding = learner.seen(batch["pixels"].flatten(0, 1))
    seen = learner.interactive(embedding)
    clip = torch.arange(clips, device=embedding.device).repeat_interleave(things)
    x1, x2, x4 = (each.unflatten(0, (clips, length)) for each in (seen.x1, seen.x2, seen.x4))
    return [
        Frame(
            Interactive(x1[:, index], x2[:, index], x4[:, index]),
            clip,
            batch["masks"][:, index].flatten(0, 1).float(),
        )
        for index in range(length)
    ]


def _memory(learner: Learner) -> VideoMemory:
    memory: VideoMemory = learner.student.memory
    return memory


def _asked(learner: Learner, frame: Frame, boxes: Tensor | None) -> Prompts:
    """A prompt for each object where it has a box; else the mark that there is none, twice."""
    if boxes is None:
        rows, side = len(frame.clip), learner.sizes.mask_size
        return Prompts(
            frame.clip,
            torch.zeros((rows, 2, 2), device=frame.truth.device),
            torch.full((rows, 2), NO_POINT, dtype=torch.int32, device=frame.truth.device),
            frame.truth.new_zeros((rows, side, side)),
            torch.zeros(rows, dtype=torch.bool, device=frame.truth.device),
        )
    prompts = clicks.first(learner, frame.truth, frame.clip, boxes)
    # A mask that is given to be followed comes through the memory's own convolution.
    large = F.interpolate(frame.truth[:, None], (16 * learner.sizes.grid,) * 2, mode="nearest")[:, 0]
    labels = prompts.labels.clone()
    # Two marks that there is no point stand where no other prompt is given.
    labels[prompts.has_mask, :2] = NO_POINT
    return replace(prompts, labels=labels, mask=_memory(learner).logits_of(large).float())


def _condition(learner: Learner, frame: Frame, kept: list[Kept]) -> Tensor:
    """(R, D, g, g): the frame's features with each object's past."""
    memory, features = _memory(learner), frame.seen.x1[frame.clip]
    return memory.condition(features, _past(learner, features, kept), learner.student.objects.no_memory)


def _past(learner: Learner, features: Tensor, kept: list[Kept]) -> Past:
    rows, sizes = len(features), learner.sizes
    if not kept:
        return _memory(learner).no_past(rows)
    ages = torch.arange(len(kept), 0, -1, device=features.device).expand(rows, -1)
    conditioning = torch.stack([frame.conditioning for frame in kept], dim=1)
    recent, oldest = ages < sizes.memory.frames, sizes.memory.pointers - 1
    return Past(
        memory=torch.stack([frame.memory for frame in kept], dim=1),
        ages=torch.where(conditioning | ~recent, 0, ages),
        memory_valid=conditioning | recent,
        pointers=torch.stack([frame.pointer for frame in kept], dim=1),
        pointer_ages=ages.float() / oldest,
        pointers_valid=conditioning | (ages <= oldest),
    )


def _answer(
    learner: Learner, frame: Frame, conditioned: Tensor, prompts: Prompts, extra: float
) -> tuple[Answer, Tensor]:
    """The answer, and its loss."""
    answer = Answer(*clicks.decoded(learner, conditioned, frame.seen, prompts))
    return answer, clicks.answer_loss(answer.logits, answer.guess, answer.score, frame.truth, extra)


def _correct(
    learner: Learner, frame: Frame, conditioned: Tensor, answer: Answer, extra: float
) -> tuple[Answer, Tensor, Tensor]:
    """Some objects are answered anew after a click where they were wrong.

    Returns:
        The answers, which objects were clicked, and the loss of the second answer.
    """
    there = frame.truth.flatten(1).any(1)
    clicked = there & (torch.rand(len(there), device=there.device) < _CORRECTED)
    prompts = clicks.corrected(_asked(learner, frame, None), answer.mask.detach(), frame.truth, 0)
    again, loss = _answer(learner, frame, conditioned, prompts, extra)
    chosen = [
        torch.where(clicked.reshape(-1, *[1] * (new.dim() - 1)), new, old)
        for new, old in (
            (again.logits, answer.logits),
            (again.guess, answer.guess),
            (again.score, answer.score),
            (again.tokens, answer.tokens),
        )
    ]
    return Answer(*chosen), clicked, loss


def _keep(learner: Learner, frame: Frame, answer: Answer, prompted: Tensor) -> Kept:
    memory = _memory(learner)
    there = answer.score > 0
    logits = torch.where(there[..., None], answer.mask, _NOWHERE)
    pointer = torch.where(there, memory.pointers(answer.tokens)[:, 0], memory.no_pointer)
    features = frame.seen.x1[frame.clip]
    return Kept(memory.encode(features, logits, prompted, answer.score), pointer, prompted)
