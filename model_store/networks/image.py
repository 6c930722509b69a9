"""Pixels to image embedding to the three concept feature maps."""

from typing import Any

import timm
import torch
import torch.nn.functional as F  # noqa: N812
from timm.models.efficientvit_mit import LiteMLA
from torch import Tensor, nn
from transformers.models.sam3.modeling_sam3 import Sam3FPNLayer

from model_store.networks.sizes import Sizes

# Keeps the linear attention's quotient finite where every query feature is 0. What the students were trained
# with; timm's 1e-5 costs 5e-5 of a feature, and even 1e-7 four times the difference of f32 itself. (It is 0
# in f16, where this quotient must stay in f32.)
_ATTENTION_EPS = 1e-15


class ImageEncoder(nn.Module):
    """Normalisation, trunk and projection head."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.trunk: Any = timm.create_model(sizes.trunk, pretrained=False)
        self.trunk.head = nn.Identity()
        for module in self.trunk.modules():
            if isinstance(module, LiteMLA):
                module.eps = _ATTENTION_EPS
        channels = sizes.embedding_channels
        self.head = nn.Sequential(
            nn.Conv2d(sizes.trunk_channels, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
            nn.GELU(),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, pixels: Tensor) -> Tensor:
        """(N, S, S, 3) uint8 RGB -> (N, C, S/32, S/32) float32, S/32 rounded up."""
        # (x / 255 - 0.5) / 0.5
        normalised = pixels.permute(0, 3, 1, 2).to(torch.float32) * (2 / 255) - 1
        embedding: Tensor = self.head(self.trunk.forward_features(normalised))
        return embedding


class Neck(nn.Module):
    """Image embedding to features at 4, 2 and 1 times the grid.

    The released files hold a fourth level at half the grid; no graph reads it, so it is not built.
    """

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.grid = sizes.grid
        self.levels = nn.ModuleList(
            Sam3FPNLayer(sizes.embedding_channels, sizes.width, scale) for scale in (4.0, 2.0, 1.0)
        )

    def forward(self, embedding: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(N, C, s, s) -> (N, D, 4g, 4g), (N, D, 2g, 2g), (N, D, g, g), all float32."""
        resized = F.interpolate(embedding, size=(self.grid, self.grid), mode="bilinear")
        x4, x2, x1 = (level(resized) for level in self.levels)
        return x4, x2, x1
