"""Pooling boxes out of feature maps, as one operator that exports to ONNX's RoiAlign and can be trained."""

# mypy: allow-untyped-calls

from collections.abc import Callable
from typing import Any

import torch
from onnxscript import opset20 as op
from torch import Tensor


@torch.library.custom_op("efficientsam3::roi_align", mutates_args=())
def roi_align(features: Tensor, boxes: Tensor, image: Tensor, cells: int) -> Tensor:
    """Averages each box into a grid of cells, sampling about once per feature cell.

    The samples of a box form a grid, and bilinear weights are products of one factor per axis; so is their
    average, which makes the whole two small matrix products per box.

    Args:
        features: (B, D, H, W) float32.
        boxes: (R, 4) float32, xyxy in cells of the feature map, cell (0, 0)'s centre at 0.
        image: (R,) int64, the row of `features` each box belongs to.
        cells: side of the result.

    Returns:
        (R, D, cells, cells) float32.
    """
    down, across = _weights(boxes, cells, features.shape)
    return torch.einsum("rah,rdhw,rbw->rdab", down, features[image], across).to(features.dtype)


@roi_align.register_fake
def _(features: Tensor, boxes: Tensor, image: Tensor, cells: int) -> Tensor:
    return features.new_empty((boxes.shape[0], features.shape[1], cells, cells))


def _weights(boxes: Tensor, cells: int, shape: torch.Size) -> tuple[Tensor, Tensor]:
    """(R, cells, H) and (R, cells, W): what each row and column of the map adds to each cell's average."""
    x0, y0, x1, y1 = boxes.unbind(-1)
    return _along(y0, y1, cells, shape[-2]), _along(x0, x1, cells, shape[-1])


def _along(low: Tensor, high: Tensor, cells: int, side: int) -> Tensor:
    """(R,) where boxes begin and end on one axis -> (R, cells, side)."""
    # A box is at least one feature cell wide, and each result cell has a sample per feature cell, rounded up.
    extent = (high - low).clamp(min=1.0)
    count = torch.ceil(extent / cells)
    sample = torch.arange(int(count.max()) if count.numel() else 1, device=low.device)
    within = (sample + 0.5) / count[:, None]
    cell = torch.arange(cells, device=low.device)[None, :, None]
    place = low[:, None, None] + (cell + within[:, None]) * (extent / cells)[:, None, None]
    # Samples beyond the map's rim count as 0; those on the rim as the nearest feature.
    seen = (place >= -1) & (place <= side) & (sample < count[:, None])[:, None]
    nearest = place.clamp(0, side - 1)[..., None] - torch.arange(side, device=low.device)
    share = (1 - nearest.abs()).clamp(min=0) * seen[..., None]
    return share.sum(2) / count[:, None, None]


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    features, boxes, image, ctx.cells = inputs
    ctx.shape = features.shape
    ctx.save_for_backward(boxes, image)


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
    boxes, image = ctx.saved_tensors
    down, across = _weights(boxes, ctx.cells, ctx.shape)
    parts = torch.einsum("rah,rdab,rbw->rdhw", down, gradient.to(down.dtype), across).to(gradient.dtype)
    return gradient.new_zeros(ctx.shape).index_add(0, image, parts), None, None, None


roi_align.register_autograd(_backward, setup_context=_remember)


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
