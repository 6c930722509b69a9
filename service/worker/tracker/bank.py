"""What is kept of an object's earlier frames, and what the graphs see of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_store.artifact import Memory
from service.worker.run import Arrays
from service.worker.tracker.trial import Trial

# Prompted frames that are kept: the latest. The reference looks at no more of them either.
PROMPTED = 4
# A pointer's age counts as a share of at most so many frames.
_LONGEST = 16

Array = NDArray[Any]
# What a store makes of numbers: what is kept is rounded at once, so that it is the same before and after.
Rounded = Callable[[NDArray[np.float32]], Array]


def half(values: NDArray[np.float32]) -> NDArray[np.float16]:
    """As stores keep them."""
    return values.astype(np.float16)


@dataclass(frozen=True, slots=True)
class Kept:
    """What is kept of one object in one frame."""

    frame: int
    # (T, M); None where the frame is too old to be looked at, and its pointer is not.
    memory: Array | None
    # (D,).
    pointer: Array
    # It hardly shows the object.
    poor: bool = False

    @property
    def nbytes(self) -> int:
        """Of its arrays."""
        return self.pointer.nbytes + (0 if self.memory is None else self.memory.nbytes)


@dataclass(frozen=True, slots=True)
class Track:
    """One object and its past."""

    id: int
    # The text that found it; empty for one that was prompted.
    label: str = ""
    # Frames with a prompt for it, and others, the oldest first.
    prompted: tuple[Kept, ...] = ()
    followed: tuple[Kept, ...] = ()
    # The last frame on which it was not seen, plus 1; 0: it always was.
    hidden: int = 0
    # Of an instance that is not answered yet.
    trial: Trial | None = None
    # Poor frames are passed over, but for the last.
    selects: bool = False

    @property
    def nbytes(self) -> int:
        """Of everything that is kept."""
        return sum(kept.nbytes for kept in (*self.prompted, *self.followed))

    def remember(self, kept: Kept, prompted: bool, memory: Memory) -> "Track":
        """The track with one more frame, and without what no later frame will look at."""
        if prompted:
            track = replace(self, prompted=(*self.prompted, kept)[-PROMPTED:])
        else:
            track = replace(self, followed=(*self.followed, kept))
        return track._at(kept.frame + 1, memory)

    def aged(self, frame: int) -> list[tuple[Kept, int]]:
        """What is kept of frames without a prompt, each with its age as seen from `frame`.

        The age is the distance in frames; where frames are passed over, that in frames that count: an object
        that was hidden for long is followed by what was last seen of it. As of SAM3's memory selection.
        """
        if not self.selects:
            return [(kept, frame - kept.frame) for kept in self.followed]
        shown = [kept for kept in self.followed if not kept.poor or kept.frame == frame - 1]
        return [(kept, len(shown) - index) for index, kept in enumerate(shown)]

    def _at(self, frame: int, memory: Memory) -> "Track":
        followed = (
            kept if age < memory.frames else replace(kept, memory=None)
            for kept, age in self.aged(frame)
            if age < memory.pointers
        )
        return replace(self, followed=tuple(followed))


def span_of(frames_total: int | None) -> int:
    """Frames that make a pointer's age 1, in a video of so many frames; None: nobody knows how many."""
    return max(1, min(frames_total or _LONGEST, _LONGEST) - 1)


def past_of(tracks: Sequence[Track], frame: int, span: int, memory: Memory) -> Arrays:
    """`memory_attention`'s inputs about the tracks' past, a row per track, padded to the longest.

    Args:
        frame: the frame that is looked at.
        span: see `span_of`.
    """
    rows = [_row(track, frame, span, memory) for track in tracks]
    frames, pointers = (max(1, *(len(row[index]) for row in rows)) for index in (0, 1))
    count = len(rows)
    past: Arrays = {
        "memory": np.zeros((count, frames, memory.tokens, memory.width), np.float32),
        "ages": np.zeros((count, frames), np.int32),
        "memory_valid": np.zeros((count, frames), np.bool_),
        "pointers": np.zeros((count, pointers, memory.pointer_width), np.float32),
        "pointer_ages": np.zeros((count, pointers), np.float32),
        "pointers_valid": np.zeros((count, pointers), np.bool_),
    }
    for index, (seen, pointed) in enumerate(rows):
        for place, (tokens, age) in enumerate(seen):
            past["memory"][index, place], past["ages"][index, place] = tokens, age
        for place, (pointer, share) in enumerate(pointed):
            past["pointers"][index, place], past["pointer_ages"][index, place] = pointer, share
        past["memory_valid"][index, : len(seen)] = True
        past["pointers_valid"][index, : len(pointed)] = True
    return past


def _row(
    track: Track, frame: int, span: int, memory: Memory
) -> tuple[list[tuple[Array, int]], list[tuple[Array, float]]]:
    """Memories with their ages, 0 for prompted frames, and pointers with theirs, as shares of the span."""
    seen = [(kept.memory, 0) for kept in track.prompted if kept.memory is not None]
    aged = track.aged(frame)
    seen += [(kept.memory, age) for kept, age in aged if kept.memory is not None]
    ages = [(kept, frame - kept.frame) for kept in track.prompted] + aged
    return seen, [(kept.pointer, age / span) for kept, age in ages]
