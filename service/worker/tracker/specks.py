"""Specks of a mask that is followed: small holes are filled, small splinters dropped."""

import cv2
import numpy as np
from numpy.typing import NDArray

Logits = NDArray[np.float32]

# The reference's: up to 16 of 288 x 288 cells, and a splinter up to half of its mask.
_CELLS, _OF_CELLS = 16, 288**2
_FILLED, _DROPPED = np.float32(0.1), np.float32(-0.1)


def without_specks(logits: Logits) -> Logits:
    """(h, w) logits whose small parts, connected also across corners, lie just on the other side of 0."""
    most = _CELLS * logits.size // _OF_CELLS
    filled = _turned(logits, logits <= 0, most, _FILLED)
    shown = filled > 0
    return _turned(filled, shown, min(most, int(shown.sum()) // 2), _DROPPED)


def _turned(logits: Logits, where: NDArray[np.bool_], most: int, value: np.float32) -> Logits:
    """The parts of `where` that have at most so many cells get the value."""
    if not most:
        return logits
    _, parts, stats, _ = cv2.connectedComponentsWithStats(where.view(np.uint8), connectivity=8)
    small = stats[:, cv2.CC_STAT_AREA] <= most
    small[0] = False  # everything else
    turned: Logits = np.where(small[parts], value, logits)
    return turned
