"""The position encoding of a feature map."""

# mypy: allow-untyped-calls

import torch
from torch import Tensor
from transformers.models.sam3_lite_text.modeling_sam3_lite_text import Sam3LiteTextSinePositionEmbedding


def sine_positions(width: int, side: int) -> Tensor:
    """(1, W, side, side) float32: the sines of a map of W channels. Always on the CPU."""
    table: Tensor = Sam3LiteTextSinePositionEmbedding.build_sine_position_embedding(
        torch.Size((1, width, side, side)),
        torch.device("cpu"),
        torch.float32,
        width // 2,
        normalize=True,
        scale=2 * torch.pi,
    )
    return table.contiguous()
