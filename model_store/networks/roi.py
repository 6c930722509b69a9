"""Pooling boxes out of feature maps, as one operator that exports to ONNX's RoiAlign."""

# mypy: allow-untyped-calls

from collections.abc import Callable
from typing import Any

import torch
import torchvision
from onnxscript import opset20 as op
from torch import Tensor

# torchvision's version in Python holds a tensor of channels x (cells x map's side)^2 several times over.
_CHANNELS = 32


@torch.library.custom_op("efficientsam3::roi_align", mutates_args=())
def roi_align(features: Tensor, boxes: Tensor, image: Tensor, cells: int) -> Tensor:
    """Averages each box into a grid of cells, sampling about once per feature cell.

    Args:
        features: (B, D, H, W) float32.
        boxes: (R, 4) float32, xyxy in cells of the feature map, cell (0, 0)'s centre at 0.
        image: (R,) int64, the row of `features` each box belongs to.
        cells: side of the result.

    Returns:
        (R, D, cells, cells) float32.
    """
    # torchvision's version in Python compiles itself on first use, for which a compiler is needed.
    with torch.compiler.set_stance("force_eager"):
        rois = torch.cat((image[:, None].to(boxes.dtype), boxes), dim=1)
        parts = [torchvision.ops.roi_align(part, rois, cells) for part in features.split(_CHANNELS, dim=1)]
    return torch.cat(parts, dim=1)


@roi_align.register_fake
def _(features: Tensor, boxes: Tensor, image: Tensor, cells: int) -> Tensor:
    return features.new_empty((boxes.shape[0], features.shape[1], cells, cells))


def _onnx_roi_align(features: Any, boxes: Any, image: Any, cells: int) -> Any:
    return op.RoiAlign(
        features,
        boxes,
        image,
        coordinate_transformation_mode="output_half_pixel",
        mode="avg",
        output_height=cells,
        output_width=cells,
        sampling_ratio=0,
        spatial_scale=1.0,
    )


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """What `torch.onnx.export` must be told about the operator."""
    return {torch.ops.efficientsam3.roi_align.default: _onnx_roi_align}
