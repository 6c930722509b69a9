"""Mask logits -> a mask of the image's size, and its encodings.

Here a mask is (H, W) uint8, 0 or 1, row-major, at the size of the original image.
"""

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

from service.pb.efficientsam3.v1 import segmentation_pb2 as pb

Mask = NDArray[np.uint8]


def upscale(logits: NDArray[np.float32], width: int, height: int) -> Mask:
    """(h, w) logits -> (height, width) uint8: bilinear with half-pixel centres, 1 where above 0."""
    resized = cv2.resize(logits, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(resized > 0).view(np.uint8)


def bounds_xyxy(mask: Mask) -> tuple[int, int, int, int]:
    """The box around the foreground, along the pixels' edges; all 0 where there is none."""
    left, top, width, height = cv2.boundingRect(mask)
    return left, top, left + width, top + height


def encode(mask: Mask, mask_format: "pb.MaskFormat.ValueType") -> pb.Mask:
    """The mask as a message, in one of the formats but NONE; UNSPECIFIED is RLE."""
    height, width = mask.shape
    message = pb.Mask(height=height, width=width)
    match mask_format:
        case pb.MASK_FORMAT_PNG:
            message.png = png(mask)
        case pb.MASK_FORMAT_POLYGON:
            message.polygon.CopyFrom(polygon(mask))
        case _:
            message.rle = rle(mask)
    return message


def rle(mask: Mask) -> str:
    """COCO's compressed counts, column-major."""
    counts: bytes = coco.encode(np.asfortranarray(mask))["counts"]
    return counts.decode("ascii")


def png(mask: Mask) -> bytes:
    """An 8-bit grey PNG file, 0 or 255."""
    _, file = cv2.imencode(".png", mask * np.uint8(255))
    return bytes(file)


def polygon(mask: Mask) -> pb.Polygon:
    """The outlines along the pixels' edges: filling them gives the mask back, exactly.

    cv2 follows the centres of border pixels. On the mask at twice its size every such centre lies half a
    pixel off one corner of the original grid, and rounding it there gives the outline along the edges.
    """
    left, top, width, height = cv2.boundingRect(mask)
    doubled = np.kron(mask[top : top + height, left : left + width], np.ones((2, 2), np.uint8))
    message = pb.Polygon()
    if doubled.size == 0:
        return message
    contours, hierarchy = cv2.findContours(
        doubled, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE, offset=(2 * left, 2 * top)
    )
    for contour, (_, _, _, parent) in zip(contours, hierarchy[0], strict=True):
        corners = _without_repeats((np.asarray(contour, np.int32)[:, 0] + 1) // 2)
        message.rings.add(xy=corners.ravel().tolist(), hole=bool(parent >= 0))
    return message


def logits_message(logits: NDArray[np.float32]) -> pb.Mask:
    """(h, w) logits as little-endian half floats."""
    bound = np.finfo(np.float16).max
    halves = np.clip(logits, -bound, bound).astype("<f2")
    return pb.Mask(height=logits.shape[0], width=logits.shape[1], logits=halves.tobytes())


def _without_repeats(corners: NDArray[np.int32]) -> NDArray[np.int32]:
    """(N, 2) points of a closed ring, without those that equal the one before."""
    moved = (corners != np.roll(corners, 1, axis=0)).any(axis=1)
    return np.compress(moved, corners, axis=0)
