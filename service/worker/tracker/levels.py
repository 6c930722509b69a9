"""Masks as `memory_encoder` takes them: how much of each sample is the object, as levels."""

import numpy as np
from numpy.typing import NDArray

from service.worker.resize import grow

Logits = NDArray[np.float32]

# Levels of a share of 0 and of 1.
_SPREAD, _LOWEST = 20.0, -10.0
# Logits of a mask where another is clearer.
_COVERED = -10.0
# Logits below minus this are a chance of nothing, and would only overflow.
_STEEP = 80.0


def levels_of(
    logits: Logits, exact: NDArray[np.bool_], settled: NDArray[np.bool_], *, image_size: int, side: int
) -> Logits:
    """(B, h, w) -> (B, side, side) float32.

    Args:
        exact: (B,): masks that answer prompts. Samples of the picture's size are in or out, and no two such
            masks share one: the clearest has it.
        settled: (B,): masks of a text's instances, which were compared with each other already. Theirs are
            chances, taken straight at `side`; all others' are taken at the picture's size.
    """
    levels = np.empty((len(logits), side, side), np.float32)
    for row in np.flatnonzero(settled):
        levels[row] = _leveled(_chance(grow(logits[row], side)))
    if settled.all():
        return levels
    shown = np.stack([grow(each, image_size) for each in logits])
    if exact.any() and len(shown) > 1:
        owner = shown.argmax(axis=0)
        for row in np.flatnonzero(exact):
            covered = owner != row
            shown[row][covered] = np.minimum(shown[row][covered], _COVERED)
    for row in np.flatnonzero(~settled):
        share = shown[row] > 0 if exact[row] else _chance(shown[row])
        levels[row] = grow(_leveled(share), side)
    return levels


def _chance(logits: Logits) -> Logits:
    chance = 1 / (1 + np.exp(-np.maximum(logits, -_STEEP)))
    return chance.astype(np.float32, copy=False)


def _leveled(share: NDArray[np.float32 | np.bool_]) -> Logits:
    return (_SPREAD * share + _LOWEST).astype(np.float32)
