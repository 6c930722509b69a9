"""Bilinear, antialiased resizing of bytes, to the bit as the students' reference does it.

The reference resizes with torch's byte kernel. Pillow computes the same filter with finer weights, and one
value in a few hundred comes out a level off; on a student with recipe weights that alone moves masks to an
IoU of 0.997 with the reference's. So the kernel's arithmetic is done here, with a sparse matrix product.
"""

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

# Rows or columns taken at once, so that a strip stays in the processor's cache.
_STRIP = 16
# The kernel keeps weights in 16 signed bits, and tries no more than this many fractional ones.
_MAX_WEIGHT = 1 << 15
_MAX_FRACTION_BITS = 22


def stretch(picture: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 -> (side, side, 3) uint8, aspect ignored; width first, rounded, then height."""
    height = picture.shape[0]
    wide = np.empty((height, side, 3), np.uint8)
    for row in range(0, height, _STRIP):
        strip = picture[row : row + _STRIP].transpose(1, 0, 2)
        wide[row : row + _STRIP] = _resample(strip, side).transpose(1, 0, 2)
    stretched = np.empty((side, side, 3), np.uint8)
    for column in range(0, side, _STRIP):
        stretched[:, column : column + _STRIP] = _resample(wide[:, column : column + _STRIP], side)
    return stretched


def _resample(strip: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """(n, k, 3) uint8 -> (side, k, 3) uint8 along the first axis."""
    weights, bits = _weights(strip.shape[0], side)
    values = weights @ strip.reshape(strip.shape[0], -1).astype(np.int32)
    values += (1 << bits) >> 1
    values >>= bits
    resampled: NDArray[np.uint8] = values.clip(0, 255).astype(np.uint8)
    return resampled.reshape(side, *strip.shape[1:])


@lru_cache(maxsize=32)
def _weights(size: int, side: int) -> tuple[Any, int]:
    """The triangle filter from `size` to `side` samples: (side, size) int32, and its fractional bits.

    Sample i looks at the inputs within max(1, size / side) of its centre, size / side * (i + 1/2).
    """
    scale = size / side
    reach = max(scale, 1.0)
    centre = scale * (np.arange(side) + 0.5)
    first = np.maximum((centre - reach + 0.5).astype(np.int32), 0)
    count = np.minimum((centre + reach + 0.5).astype(np.int32), size) - first
    taps = np.arange(count.max(), dtype=np.int32)
    inside = taps < count[:, np.newaxis]
    inputs = first[:, np.newaxis] + taps
    heights = np.maximum(1 - np.abs((inputs + 0.5 - centre[:, np.newaxis]) / reach), 0) * inside
    shares = heights / heights.sum(axis=1, keepdims=True)
    bits = 0
    while bits < _MAX_FRACTION_BITS and int(0.5 + shares.max() * (2 << bits)) < _MAX_WEIGHT:
        bits += 1
    fixed = (0.5 + shares * (1 << bits)).astype(np.int32)
    starts = np.concatenate(([0], np.cumsum(count))).astype(np.int32)
    return csr_array((fixed[inside], inputs[inside], starts), shape=(side, size)), bits
