"""Rings -> the mask they bound, exactly: a pixel belongs to it if its centre lies inside."""

import numpy as np
from numpy.typing import NDArray

from service.errors import Kind, ServiceError

# Rows of pixels that the edges may cross, all together: half a second of work. An outline of a thousand
# corners on an image of 100 megapixels crosses a tenth of that.
MAX_CROSSINGS = 1_000_000
# Crossings computed at once.
_CHUNK = 1 << 20


def fill(
    path: str,
    corners: NDArray[np.float64],
    sizes: NDArray[np.int64],
    holes: NDArray[np.bool_],
    height: int,
    width: int,
) -> NDArray[np.bool_]:
    """(height, width) bool: the pixels whose centre lies in more rings than holes.

    `corners` is (n, 2) finite x and y in pixels, ring after ring; `sizes` and `holes` are each ring's number
    of corners and whether it bounds a hole. A ring closes itself, its sense does not matter, what it goes
    round twice is outside of it, and what leaves the mask is cut off. A centre on an edge belongs to what
    lies right of the edge or below. Raises `payload_too_large`, naming `path`, for edges that would take too
    long.
    """
    keys = _crossings(path, corners, sizes, height, width)
    keys.sort()
    # A ring crosses a row an even number of times: along the row it is entered and left by turns.
    places, columns = np.divmod(keys, width + 1)
    rings, rows = np.divmod(places, height)
    steps = np.where(holes[rings], -1, 1)
    steps[1::2] *= -1
    counts = np.zeros((height, width + 1), np.int32)
    np.add.at(counts, (rows, columns), steps)
    np.cumsum(counts, axis=1, out=counts)
    return counts[:, :width] > 0


def _crossings(
    path: str, corners: NDArray[np.float64], sizes: NDArray[np.int64], height: int, width: int
) -> NDArray[np.int64]:
    """(ring * height + row) * (width + 1) + column for each row whose centres an edge crosses.

    `column` is the first pixel whose centre is not left of the edge; `width` if there is none.
    """
    following = np.arange(1, len(corners) + 1)
    following[np.cumsum(sizes) - 1] = np.cumsum(sizes) - sizes
    (x, y), (x_next, y_next) = corners.T, corners[following].T
    first = _centre_at(np.minimum(y, y_next), height)
    ends: NDArray[np.int64] = np.cumsum(_centre_at(np.maximum(y, y_next), height) - first)
    total = int(ends[-1]) if ends.size else 0
    if total > MAX_CROSSINGS:
        detail = f"{path} cross {total:,} rows of pixels in all; the limit is {MAX_CROSSINGS:,}."
        raise ServiceError(Kind.PAYLOAD_TOO_LARGE, detail)
    first_row = np.repeat(np.arange(len(sizes)), sizes) * height + first
    starts = np.concatenate(([0], ends))
    keys = np.empty(total, np.int64)
    for start in range(0, total, _CHUNK):
        crossing = np.arange(start, min(start + _CHUNK, total), dtype=np.int64)
        edge = np.searchsorted(ends, crossing, side="right")
        along = crossing - starts[edge]
        share = (first[edge] + along + 0.5 - y[edge]) / (y_next[edge] - y[edge])
        column = _centre_at(x[edge] + share * (x_next[edge] - x[edge]), width)
        keys[crossing] = (first_row[edge] + along) * (width + 1) + column
    return keys


def _centre_at(place: NDArray[np.float64], size: int) -> NDArray[np.int64]:
    """The first of `size` pixels whose centre is not before `place`; `size` if there is none."""
    return np.ceil(np.clip(place, 0, size) - 0.5).astype(np.int64)
