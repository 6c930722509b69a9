"""Which detections of a concept are objects that are followed already, and which are new.

The rules and their numbers are those of SAM3's video inference, minus what needs frames to come.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Masks = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Rules:
    """When two masks are of one object. IoUs of masks at the size of the logits."""

    # Detections count from this score on.
    detect_score: float = 0.5
    # A detection that overlaps a better one this much is the same.
    duplicate_iou: float = 0.1
    # A detection that overlaps no track this much is a new object, if its score is high enough.
    known_iou: float = 0.1
    new_score: float = 0.7
    # A track that no detection overlaps this much was not found on this frame.
    found_iou: float = 0.5
    # Of two tracks that overlap this much the one that was hidden more recently is not shown.
    same_iou: float = 0.7
    # Every so many frames (0: never) a track whose detection is this sure, and this alike, is taken from it.
    renew_every: int = 16
    renew_score: float = 0.8
    renew_iou: float = 0.8
    renew_object_score: float = 0.8
    # A track of which other objects leave less than this share is taken to be hidden.
    hidden_share: float = 0.3
    # A new object is on trial until it was found on so many frames; 0 and 1: it is not.
    confirm_frames: int = 0
    # What is kept of a new object is selected; see `bank.Track`.
    memory_selection: bool = True


@dataclass(frozen=True, slots=True)
class Association:
    """Detections and tracks by their rows."""

    # Detections that no track is of.
    new: tuple[int, ...]
    # Of each track the detection that is most like it, and their IoU; -1 and 0 where there is none.
    best: tuple[int, ...]
    best_iou: tuple[float, ...]
    # Whether a detection is enough like it.
    found: tuple[bool, ...]
    # Whether that detection found an older track, one before it, as well.
    shared: tuple[bool, ...]


def ious(one: Masks, other: Masks) -> NDArray[np.float64]:
    """(n, h, w), (m, h, w) -> (n, m); 0 where both are empty."""
    left, right = (
        masks.reshape(len(masks), masks.shape[1] * masks.shape[2]).astype(np.float32)
        for masks in (one, other)
    )
    shared = (left @ right.T).astype(np.float64)
    union = left.sum(1, dtype=np.float64)[:, None] + right.sum(1, dtype=np.float64) - shared
    found: NDArray[np.float64] = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return found


def distinct(scores: Sequence[float], masks: Masks, rules: Rules) -> list[int]:
    """Of detections those that are no duplicate of a better one, the best first."""
    order = sorted(range(len(scores)), key=lambda row: -scores[row])
    alike = ious(masks, masks)
    kept: list[int] = []
    for row in order:
        if all(alike[row, other] <= rules.duplicate_iou for other in kept):
            kept.append(row)
    return kept


def associate(tracks: Masks, scores: Sequence[float], detections: Masks, rules: Rules) -> Association:
    """Compare tracks (T, h, w) with detections (D, h, w) of one frame.

    Where nothing is followed yet, every detection is new, however sure.
    """
    alike = ious(detections, tracks)
    new = [
        row
        for row, score in enumerate(scores)
        if not len(tracks) or (score >= rules.new_score and alike[row].max() < rules.known_iou)
    ]
    if not len(detections):
        nothing = len(tracks)
        return Association((), (-1,) * nothing, (0.0,) * nothing, (False,) * nothing, (False,) * nothing)
    best = alike.argmax(0)
    overlap = alike[best, np.arange(len(tracks))]
    found = overlap >= rules.found_iou
    return Association(
        tuple(new),
        tuple(best.tolist()),
        tuple(overlap.tolist()),
        tuple(found.tolist()),
        tuple(bool(found[row]) and best[row] in best[:row][found[:row]] for row in range(len(best))),
    )


def hidden_copies(masks: Masks, hidden_since: Sequence[int], rules: Rules) -> set[int]:
    """Of tracks that overlap nearly wholly, the rows of those that are not shown.

    Args:
        hidden_since: the last frame that each was hidden on, -1 for never: the one hidden later is the copy.
    """
    alike = ious(masks, masks)
    copies: set[int] = set()
    for row in range(len(masks)):
        for other in range(row):
            if alike[row, other] > rules.same_iou:
                copies.add(row if hidden_since[row] >= hidden_since[other] else other)
    return copies


def shrunk(logits: NDArray[np.float32], rules: Rules) -> NDArray[np.bool_]:
    """(T, h, w) -> (T,): whether others leave too little of a track, each pixel being the clearest's."""
    if not len(logits):
        return np.zeros(0, np.bool_)
    masks = logits > 0
    owner = logits.argmax(0)
    own = masks & (owner == np.arange(len(logits))[:, None, None])
    area = masks.sum((1, 2))
    left: NDArray[np.bool_] = own.sum((1, 2)) < rules.hidden_share * area
    return left
