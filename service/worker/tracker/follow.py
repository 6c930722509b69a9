"""One frame: its features, prompts and the objects' past -> each object's mask, and what to keep of it.

A pure function of these: it knows no session, no store and no transport.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_store.artifact import Memory
from service.worker.objects import ROWS, is_stable
from service.worker.resize import coverage
from service.worker.run import Arrays, Run
from service.worker.scenes import Seen
from service.worker.tracker.bank import Kept, Rounded, Track, half, past_of
from service.worker.tracker.levels import levels_of

# Labels of points: no more; and none.
_NO_MORE, _PADDING = -1, -10
# Logits of an object that is not in the picture.
_NOWHERE = -1024.0
# Logits of what a given mask shows, and what they say about the object.
_CERTAIN, _GIVEN_SCORE = 1024.0, 10.0
# A sample is the object where at least this much of it is.
_HALF = 0.5
# With more points than this a prompt is clear, and no proposals are asked for.
_AMBIGUOUS = 1

# Certainty (0..1) of the object being in the picture times predicted IoU, up to which a frame is poor.
_POOR = 0.01

# Bytes that an engine may take for how much the cells attend to what is remembered, and the heads that do.
_ATTENTION_BYTES, _HEADS = 1 << 30, 8

Logits = NDArray[np.float32]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Given:
    """A mask that a prompt says is the object."""

    # (S, S) of 0..1, S the manifest's `memory.mask_size`: what the object's pointer is made of.
    mask: NDArray[np.float32]
    # (4g, 4g): what stands in place of the graph's answer.
    logits: Logits

    @property
    def visible(self) -> bool:
        """Whether the mask shows anything."""
        return bool(self.mask.any())


@dataclass(frozen=True, slots=True)
class Prompted:
    """A prompt for one object on a frame: points, or a mask."""

    # (P, 2) in 0..1 and (P,): as `Objects.read` gives them, without padding.
    points: NDArray[np.float32]
    labels: NDArray[np.int32]
    # The object is exactly this; no points are looked at.
    given: Given | None = None
    # (4g, 4g): the object is roughly this.
    hint: Logits | None = None

    @property
    def clicks(self) -> int:
        """Points, and two for a box."""
        return int(np.count_nonzero(self.labels >= 0))


@dataclass(frozen=True, slots=True)
class Found:
    """One object on one frame."""

    track: Track
    # (4g, 4g) over the whole picture, stretched; above 0 is the object.
    logits: Logits
    # The IoU that is predicted for them, 0..1.
    iou: float
    # A logit of the object being in the picture.
    object_score: float

    @property
    def visible(self) -> bool:
        """Whether the object is in the picture."""
        return self.object_score > 0


@dataclass(frozen=True, slots=True)
class Chosen:
    """Of an object's masks the one that counts, as `Found` has it, and the pointer that goes with it."""

    logits: Logits
    iou: float
    object_score: float
    # (D,).
    pointer: NDArray[np.float32]

    @property
    def poor(self) -> bool:
        """Whether the frame hardly shows the object: memory selection passes it over."""
        certainty = max(0.0, math.tanh(self.object_score / 2))
        return certainty * self.iou <= _POOR


class Follower:
    """The graphs of a video memory. Objects of a frame are one batch, as far as memory goes."""

    def __init__(
        self,
        memory: Memory,
        constants: Mapping[str, Sequence[float]],
        *,
        mask_size: int,
        image_size: int,
        rounded: Rounded = half,
    ) -> None:
        """All but `rounded` is what a manifest has under these names."""
        self._memory, self.side, self._image_size = memory, mask_size, image_size
        self.memory_side = memory.mask_size
        # SAM3's tracker takes the best proposal for an unclear prompt and while it follows. Stage 2's takes
        # the first mask if it is stable, and the first pointer always.
        self._proposes = memory.kind == "dense"
        self._no_pointer = np.array(constants["no_pointer"], np.float32)
        *kernel, bias = constants["mask_prompt"]
        self._kernel, self._bias = np.array(kernel, np.float32).reshape(4, 4), np.float32(bias)
        self._rounded = rounded

    def given(self, mask: NDArray[np.bool_], width: int, height: int) -> Given:
        """A mask (H, W) of any size over the whole picture, for a picture of so many pixels."""
        side = self.memory_side
        shown = mask if mask.shape == (height, width) else coverage(mask, width, height) > _HALF
        logits = _CERTAIN * (2 * coverage(shown, self.side, self.side) - 1)
        return Given(coverage(mask, side, side), logits)

    def look(
        self,
        run: Run,
        seen: Seen,
        frame: int,
        span: int,
        tracks: Sequence[Track],
        prompts: Mapping[int, Prompted],
    ) -> list[Chosen]:
        """Every track's object on this frame, in their order. Nothing is kept yet.

        Args:
            seen: the frame, with `interactive_features`.
            span: see `bank.span_of`.
            prompts: by the id of their track; tracks without any are followed, and need a past.
        """
        if not tracks:
            return []
        given = [prompts.get(track.id) for track in tracks]
        decoded = self._decode(run, seen, past_of(tracks, frame, span, self._memory), given)
        return [self._choose(decoded, row, prompt) for row, prompt in enumerate(given)]

    def keep(
        self,
        run: Run,
        seen: Seen,
        frame: int,
        tracks: Sequence[Track],
        chosen: Sequence[Chosen],
        prompted: Collection[int],
        settled: Collection[int] = (),
    ) -> list[Found]:
        """What `look` found, each with its track as the next frame needs it.

        Args:
            prompted: ids of the tracks that were shown on this frame.
            settled: ids of the tracks whose masks were compared with each other; see `levels_of`.
        """
        if not tracks:
            return []
        logits = np.stack([each.logits for each in chosen])
        scores = np.array([[each.object_score] for each in chosen], np.float32)
        shown, done = (np.array([track.id in ids for track in tracks]) for ids in (prompted, settled))
        memories = self._encode(run, seen, logits, scores, shown & ~done, done)
        found = []
        for track, each, memory, is_shown in zip(tracks, chosen, memories, shown, strict=True):
            kept = Kept(frame, self._rounded(memory), self._rounded(each.pointer), each.poor)
            after = track.remember(kept, bool(is_shown), self._memory)
            found.append(Found(after, each.logits, each.iou, each.object_score))
        return found

    def _decode(self, run: Run, seen: Seen, past: Arrays, given: Sequence[Prompted | None]) -> Arrays:
        features = seen.features
        cells = features["interactive_x1"]
        rows = run.rows("memory_attention", at_once(cells, past), past, interactive_x1=cells)["conditioned"]
        inputs = self._inputs(given)
        shown = np.array([prompt is not None and prompt.given is not None for prompt in given])
        if self._proposes and shown.any():
            # A given mask is looked at in the picture alone.
            rows = np.where(shown[:, None, None, None], cells, rows)
        finer = {name: features[name] for name in ("interactive_x2", "interactive_x4")}
        return run.rows("prompt_decoder", ROWS, {"conditioned": rows, **inputs}, **finer)

    def _inputs(self, given: Sequence[Prompted | None]) -> Arrays:
        """Points of the prompts, padded; where there are none, two that say so."""
        count = len(given)
        longest = max(2, *(0 if prompt is None else len(prompt.labels) for prompt in given))
        inputs: Arrays = {
            "points": np.zeros((count, longest, 2), np.float32),
            "point_labels": np.full((count, longest), _PADDING, np.int32),
            "mask": np.zeros((count, self.side, self.side), np.float32),
            "has_mask": np.zeros(count, np.bool_),
        }
        for row, prompt in enumerate(given):
            if prompt is None or prompt.given is not None:
                inputs["point_labels"][row, :2] = _NO_MORE
            else:
                inputs["points"][row, : len(prompt.labels)] = prompt.points
                inputs["point_labels"][row, : len(prompt.labels)] = prompt.labels
            mask = None if prompt is None else self._mask_of(prompt)
            if mask is not None:
                inputs["mask"][row], inputs["has_mask"][row] = mask, True
        return inputs

    def _mask_of(self, prompt: Prompted) -> Logits | None:
        return prompt.hint if prompt.given is None else self._mask_logits(prompt.given.mask)

    def _mask_logits(self, mask: NDArray[np.float32]) -> Logits:
        """The convolution with stride 4 that makes the decoder's mask of a given one."""
        blocks = mask.reshape(self.side, 4, self.side, 4)
        logits: Logits = np.einsum("hiwj,ij->hw", blocks, self._kernel) + self._bias
        return logits

    def _choose(self, decoded: Arrays, row: int, prompt: Prompted | None) -> Chosen:
        pointers = decoded["pointers"][row]
        if prompt is not None and (given := prompt.given) is not None:
            score = _GIVEN_SCORE if given.visible else -_GIVEN_SCORE
            return Chosen(given.logits, 1.0, score, pointers[0] if given.visible else self._no_pointer)
        logits, iou = decoded["mask_logits"][row], decoded["iou"][row]
        score = float(decoded["object_score"][row, 0])
        best = 1 + int(iou[1:].argmax())
        unclear = prompt is None or prompt.clicks <= _AMBIGUOUS
        proposed = self._proposes and unclear
        mask = best if proposed or not is_stable(logits[0]) else 0
        if score <= 0:
            nowhere = np.full_like(logits[0], _NOWHERE)
            return Chosen(nowhere, float(iou[mask]), score, self._no_pointer)
        return Chosen(logits[mask], float(iou[mask]), score, pointers[mask if proposed else 0])

    def _encode(
        self, run: Run, seen: Seen, logits: Logits, scores: Logits, exact: Flags, settled: Flags
    ) -> Logits:
        """(B, T, M): what is kept of this frame."""
        with run.stage("memory_masks"):
            levels = levels_of(logits, exact, settled, image_size=self._image_size, side=self.memory_side)
        inputs: Arrays = {"mask_levels": levels, "object_score": scores}
        cells = seen.features["interactive_x1"]
        memory: Logits = run.rows("memory_encoder", ROWS, inputs, interactive_x1=cells)["memory"]
        return memory


def at_once(cells: NDArray[Any], past: Arrays) -> int:
    """How many objects may attend to their past at once: of a dense memory at full size, one."""
    queries = int(np.prod(cells.shape[2:]))
    keys = int(np.prod(past["memory"].shape[1:3]))
    return max(1, _ATTENTION_BYTES // (4 * _HEADS * queries * keys))
