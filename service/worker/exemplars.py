"""Exemplars of a prompt -> the concept decoder's points, boxes and labels."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.pb.efficientsam3.v1 import segmentation_pb2 as pb
from service.worker import places

POSITIVE, NEGATIVE, PADDING = 1, 0, -10

# `exemplar_points` [1, J, 2] and `exemplar_boxes` [1, K, 4], float32 in 0..1 of the image, and their labels
# [1, J] and [1, K] int32.
Exemplars = dict[str, NDArray[Any]]


def as_tensors(path: str, exemplars: Iterable[pb.Exemplar], width: int, height: int) -> Exemplars:
    """The graph's inputs; where there is no point or no box, one of padding.

    A box that reaches over the image's edge is clipped to it. Raises `invalid_argument` for a region that
    lies outside altogether.
    """
    points: list[tuple[list[float], int]] = []
    boxes: list[tuple[list[float], int]] = []
    for index, exemplar in enumerate(exemplars):
        negative = exemplar.HasField("positive") and not exemplar.positive
        label = NEGATIVE if negative else POSITIVE
        where = f"{path}.exemplars[{index}]"
        if exemplar.HasField("point"):
            points.append((places.point(f"{where}.point", exemplar.point, width, height), label))
        else:
            boxes.append((places.box(f"{where}.box", exemplar.box, width, height), label))
    points = points or [([0.0] * 2, PADDING)]
    boxes = boxes or [([0.0] * 4, PADDING)]
    return {
        "exemplar_points": np.array([[region for region, _ in points]], np.float32),
        "exemplar_point_labels": np.array([[label for _, label in points]], np.int32),
        "exemplar_boxes": np.array([[region for region, _ in boxes]], np.float32),
        "exemplar_box_labels": np.array([[label for _, label in boxes]], np.int32),
    }
