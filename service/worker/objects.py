"""Object prompts: clicks, a box and a mask to one object's mask."""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from model_store.artifact import Manifest
from service.pb.efficientsam3.v1 import segmentation_pb2 as pb
from service.pb.efficientsam3.v1 import tracking_pb2 as tracking_pb
from service.prompts import max_segments
from service.worker import mask_prompt, places
from service.worker.answer import Kept
from service.worker.run import Arrays, Run
from service.worker.scenes import Seen

# Labels of points, as the graph knows them.
_NEGATIVE, _POSITIVE, _TOP_LEFT, _BOTTOM_RIGHT, _NO_MORE, _PADDING = 0, 1, 2, 3, -1, -10
ROWS = 16
"""Objects that are decoded or remembered at once; each takes a full-size student some 80 MB while it is."""
# The mask for a clear prompt is stable when moving the threshold by this much changes little of its area.
_STABILITY_OFFSET = 0.05
_STABLE = 0.98
# The reference fills holes of up to this share of the mask logits' area (256 of 288 x 288 cells), with this.
_HOLE_SHARE = 256 / 288**2
_FILLED = 10.0
# The reference clamps logits that it gives back, and no others.
_CLAMP = 32.0

Prompts = Sequence[tuple[int, pb.Prompt]]
# What shows an object by points and a box.
Shown = pb.Prompt | tracking_pb.TrackPrompt


class Objects:
    """The graphs of the interactive side. All objects of a request are decoded as one batch."""

    def __init__(self, manifest: Manifest) -> None:
        self._side = manifest.mask_size
        self._no_memory = np.array(manifest.constants.get("no_memory", ()), np.float32).reshape(1, -1, 1, 1)

    def read(self, run: Run, prompts: Prompts, width: int, height: int) -> Arrays:
        """The prompts, each with its index in the request, as the graph's inputs.

        Masks that are read count as the stage `prompts`. Raises `invalid_argument` for a place outside of the
        image and for a mask that cannot be read.
        """
        count, side = len(prompts), self._side
        clicks = [points_of(f"prompts[{index}]", prompt, width, height) for index, prompt in prompts]
        longest = max(len(labels) for _, labels in clicks)
        inputs: Arrays = {
            "points": np.zeros((count, longest, 2), np.float32),
            "point_labels": np.full((count, longest), _PADDING, np.int32),
            "mask": np.zeros((count, side, side), np.float32),
            "has_mask": np.array([prompt.HasField("mask") for _, prompt in prompts]),
        }
        for row, (index, prompt) in enumerate(prompts):
            xy, labels = clicks[row]
            inputs["points"][row, : len(labels)] = np.reshape(xy, (-1, 2))
            inputs["point_labels"][row, : len(labels)] = labels
            if prompt.HasField("mask"):
                run.go_on()
                with run.stage("prompts"):
                    inputs["mask"][row] = mask_prompt.logits_of(f"prompts[{index}].mask", prompt.mask, side)
        return inputs

    def find(
        self, run: Run, seen: Seen, prompts: Prompts, inputs: Arrays, options: pb.SegmentOptions
    ) -> dict[int, Kept]:
        """By the prompt's index, its object's mask, or all candidates with `multimask`.

        Args:
            seen: the scene, with `interactive_features`.
            inputs: what `read` made of the prompts.
        """
        features = seen.features
        conditioned = features["interactive_x1"] + self._no_memory
        finer = {name: features[name] for name in ("interactive_x2", "interactive_x4")}
        rows = {"conditioned": np.repeat(conditioned, len(prompts), axis=0), **inputs}
        decoded = run.rows("prompt_decoder", ROWS, rows, **finer)
        return {
            index: _chosen(decoded["mask_logits"][row], decoded["iou"][row], prompt, options)
            for row, (index, prompt) in enumerate(prompts)
        }


def points_of(path: str, prompt: Shown, width: int, height: int) -> tuple[list[float], list[int]]:
    """x, y, x, y, ... in 0..1, and the points' labels: a box's corners come first, `no more` last."""
    xy: list[float] = []
    labels: list[int] = []
    if prompt.HasField("box"):
        xy += places.box(f"{path}.box", prompt.box, width, height)
        labels += [_TOP_LEFT, _BOTTOM_RIGHT]
    for index, point in enumerate(prompt.points):
        xy += places.point(f"{path}.points[{index}]", point, width, height)
        labels.append(_NEGATIVE if point.HasField("positive") and not point.positive else _POSITIVE)
    # A prompt of a mask alone has no point, not even the one that ends them; the graph wants an array.
    return [*xy, 0.0, 0.0], [*labels, _NO_MORE if labels else _PADDING]


def _chosen(
    logits: NDArray[np.float32], iou: NDArray[np.float32], prompt: pb.Prompt, options: pb.SegmentOptions
) -> Kept:
    """Of [M, h, w] masks: the candidates by predicted IoU with `multimask`, else the one that stands best.

    A prompt's own threshold applies; that of the request is meant for concepts.
    """
    candidates = 1 + np.argsort(-iou[1:], kind="stable")
    if options.multimask:
        chosen = candidates[: max_segments(options)]
    else:
        chosen = np.array([0]) if is_stable(logits[0]) else candidates[:1]
    if prompt.HasField("score_threshold"):
        chosen = chosen[iou[chosen] > prompt.score_threshold]
    return Kept(iou[chosen].astype(np.float64), None, logits[chosen], fill_holes, _clamped)


def _clamped(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.clip(logits, -_CLAMP, _CLAMP)


def is_stable(logits: NDArray[np.float32]) -> bool:
    """Whether a mask hardly changes when its threshold does."""
    inner, outer = (np.count_nonzero(logits > offset) for offset in (_STABILITY_OFFSET, -_STABILITY_OFFSET))
    return outer == 0 or bool(inner >= _STABLE * outer)


def fill_holes(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """(h, w) logits with small holes filled: background that is connected, also across corners."""
    _, parts, stats, _ = cv2.connectedComponentsWithStats((logits <= 0).view(np.uint8), connectivity=8)
    small = stats[:, cv2.CC_STAT_AREA] <= _HOLE_SHARE * logits.size
    small[0] = False  # the foreground
    filled: NDArray[np.float32] = np.where(small[parts], np.float32(_FILLED), logits)
    return filled
