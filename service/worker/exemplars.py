"""Exemplars of a prompt -> the concept decoder's boxes and labels."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from service.errors import Kind, ServiceError
from service.pb.efficientsam3.v1 import segmentation_pb2 as pb

POSITIVE, NEGATIVE, PADDING = 1, 0, -10


def as_tensors(
    path: str, exemplars: Iterable[pb.Exemplar], width: int, height: int
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Boxes [1, K, 4] float32 xyxy in 0..1 of the image and labels [1, K] int32; one padding box for none.

    A box that reaches over the image's edge is clipped to it. Raises `invalid_argument` for one that lies
    outside altogether.
    """
    boxes, labels = [], []
    for index, exemplar in enumerate(exemplars):
        boxes.append(_clipped(f"{path}.exemplars[{index}].box", exemplar.box, width, height))
        negative = exemplar.HasField("positive") and not exemplar.positive
        labels.append(NEGATIVE if negative else POSITIVE)
    if not boxes:
        boxes, labels = [[0.0, 0.0, 0.0, 0.0]], [PADDING]
    return np.array([boxes], np.float32), np.array([labels], np.int32)


def _clipped(path: str, box: pb.Box, width: int, height: int) -> list[float]:
    x0, x1 = max(box.x0, 0.0), min(box.x1, float(width))
    y0, y1 = max(box.y0, 0.0), min(box.y1, float(height))
    if x0 >= x1 or y0 >= y1:
        shown = f"[{box.x0:g}, {box.y0:g}, {box.x1:g}, {box.y1:g}]"
        detail = f"{path} {shown} lies outside of the image, which is {width} x {height} pixels."
        raise ServiceError(Kind.INVALID_ARGUMENT, detail)
    return [x0 / width, y0 / height, x1 / width, y1 / height]
