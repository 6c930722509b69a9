"""A mask that comes as a prompt -> the decoder's mask input.

Whatever its size, a mask stands for the whole image: its pixels, and a polygon's corners, count in its own
`size`. `prompts.check` has bounded sizes and counts; here is found what only decoding finds.
"""

from itertools import chain
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from service.errors import Kind, ServiceError
from service.pb.efficientsam3.v1 import segmentation_pb2 as pb
from service.worker import image
from service.worker.polygon_fill import fill
from service.worker.resize import coverage

# Foreground of a PNG is above this level.
_HALF = 127
# Characters of one number in COCO's counts: 35 bits, which hold any run that the limits allow.
_MAX_CHARACTERS = 7

Mask = NDArray[np.bool_]


def logits_of(path: str, mask: pb.Mask, side: int) -> NDArray[np.float32]:
    """(side, side) float32 logits over the whole image, stretched. `path` names the mask in errors.

    Logits of that size are taken as they are, others are resized bilinearly. Of the other encodings each
    logit is 20 p - 10, where p is the share of foreground under it. Raises `invalid_argument` and, for a
    polygon, `payload_too_large`.
    """
    if mask.WhichOneof("encoding") == "logits":
        return _resized(_read_logits(path, mask), side)
    binary = binary_of(path, mask)
    if not binary.any():
        hint = f" (a PNG's is above {_HALF})" if mask.HasField("png") else ""
        raise _invalid(f"{path} has no foreground{hint}: it shows no object.")
    return 20 * coverage(binary, side, side) - 10


def binary_of(path: str, mask: pb.Mask) -> Mask:
    """(height, width) bool, at the mask's own size; of logits, where they are above 0. Raises as above."""
    match mask.WhichOneof("encoding"):
        case "png":
            return _read_png(path, mask)
        case "polygon":
            return _read_polygon(path, mask)
        case "logits":
            return _read_logits(path, mask) > 0
        case _:
            return _read_rle(path, mask)


def _read_rle(path: str, mask: pb.Mask) -> Mask:
    """COCO's compressed counts. Its own reader trusts them, and can be led out of its memory."""
    runs = _runs(f"{path}.counts", mask.rle)
    pixels = mask.height * mask.width
    # No run may be so long that the sum overflows.
    if runs.size and not 0 <= int(runs.min()) <= int(runs.max()) <= pixels:
        raise _invalid(f"{path}.counts has a run of less than nothing, or of more than the mask.")
    if (total := int(runs.sum())) != pixels:
        shape = f"{path}.size [{mask.height}, {mask.width}]"
        raise _invalid(f"{path}.counts has runs of {total:,} pixels in all; {shape} needs {pixels:,}.")
    columns = np.repeat(np.arange(runs.size) % 2 == 1, runs)
    return columns.reshape(mask.width, mask.height).T


def _runs(path: str, counts: str) -> NDArray[np.int64]:
    """The run lengths, background first: numbers of five bits a character, from the lowest.

    Bit 5 says that the number goes on; bit 4 of its last character is the sign. From the fourth number on
    each is the difference to the one before the last.
    """
    codes = np.frombuffer(counts.encode(), np.uint8) - np.uint8(ord("0"))
    ends = np.flatnonzero(codes < 32)
    starts = np.concatenate(([0], ends[:-1] + 1))[: ends.size]
    lengths = ends + 1 - starts
    is_whole = codes.size == 0 or (codes.max() < 64 and codes[-1] < 32)
    if not is_whole or lengths.max(initial=0) > _MAX_CHARACTERS:
        raise _invalid(f"{path} is not in COCO's compressed format.")
    runs = np.zeros(ends.size, np.int64)
    for place in range(int(lengths.max(initial=0))):
        present = lengths > place
        runs[present] |= (codes[starts[present] + place] & 31).astype(np.int64) << 5 * place
    runs -= np.where(codes[ends] & 16, np.int64(1) << 5 * lengths, 0)
    for first in (1, 2):
        runs[first::2] = np.cumsum(runs[first::2])
    return runs


def _read_png(path: str, mask: pb.Mask) -> Mask:
    try:
        return image.grey(mask.png, mask.width, mask.height) > _HALF
    except ServiceError as error:
        raise _invalid(f"{path}.png{error.detail.removeprefix('image')}") from error


def _read_polygon(path: str, mask: pb.Mask) -> Mask:
    rings = mask.polygon.rings
    corners = np.fromiter(chain.from_iterable(ring.xy for ring in rings), np.float64).reshape(-1, 2)
    sizes = np.array([len(ring.xy) // 2 for ring in rings], np.int64)
    holes = np.array([ring.hole for ring in rings], np.bool_)
    return fill(f"{path}.rings", corners, sizes, holes, mask.height, mask.width)


def _read_logits(path: str, mask: pb.Mask) -> NDArray[np.float32]:
    logits = np.frombuffer(mask.logits, "<f2").astype(np.float32).reshape(mask.height, mask.width)
    if not np.isfinite(logits).all():
        raise _invalid(f"{path}.logits has values that are no finite numbers.")
    return logits


def _resized(logits: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    if logits.shape == (side, side):
        return logits
    resized: NDArray[Any] = cv2.resize(logits, (side, side), interpolation=cv2.INTER_LINEAR)
    return resized


def _invalid(detail: str) -> ServiceError:
    return ServiceError(Kind.INVALID_ARGUMENT, detail)
