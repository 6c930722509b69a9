"""Pixels to image embedding to feature maps."""

# mypy: allow-untyped-calls

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import timm
import torch
import torch.nn.functional as F  # noqa: N812
from timm.models.efficientvit_mit import LiteMLA
from timm.models.tiny_vit import Attention
from timm.utils.model import reparameterize_model
from torch import Tensor, nn
from transformers.models.sam3.configuration_sam3 import Sam3ViTConfig
from transformers.models.sam3.modeling_sam3 import Sam3FPNLayer, Sam3ViTModel

from model_store.networks.sizes import ImageNetwork, Sizes

# Keeps the linear attention's quotient finite where every query feature is 0. What the students were trained
# with; timm's 1e-5 costs 5e-5 of a feature, and even 1e-7 four times the difference of f32 itself. (It is 0
# in f16, where this quotient must stay in f32.)
_ATTENTION_EPS = 1e-15


def normalised(pixels: Tensor) -> Tensor:
    """(N, S, S, 3) uint8 RGB -> (N, 3, S, S) float32, (x / 255 - 0.5) / 0.5."""
    return pixels.permute(0, 3, 1, 2).to(torch.float32) * (2 / 255) - 1


class ImageEncoder(nn.Module):
    """A student's: normalisation, trunk and projection head."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.trunk: Any = timm.create_model(
            sizes.trunk, pretrained=False, num_classes=0, **sizes.trunk_numbers
        )
        self.trunk.head = nn.Identity()
        for module in self.trunk.modules():
            if isinstance(module, LiteMLA):
                module.eps = _ATTENTION_EPS
            if isinstance(module, Attention):
                # Which bias belongs to which pair of tokens: computed, not loaded, so it needs real memory.
                pairs = module.resolution[0] * module.resolution[1]
                module.attention_bias_idxs = torch.empty(pairs, pairs, dtype=torch.long, device="cpu")
                module.init_non_persistent_buffers()
        channels = sizes.embedding_channels
        self.head = nn.Sequential(
            nn.Conv2d(sizes.trunk_channels, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
            nn.GELU(),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, pixels: Tensor) -> Tensor:
        """(N, S, S, 3) uint8 RGB -> (N, C, s, s) float32; see `Sizes.embedding_side`."""
        embedding: Tensor = self.head(self.trunk.forward_features(normalised(pixels)))
        return embedding

    def fused(self) -> "ImageEncoder":
        """The same network with a trunk's parallel branches made one convolution each (RepViT has some).

        The sums are done in float64.
        """
        copy = deepcopy(self)
        copy.trunk = reparameterize_model(copy.trunk.double(), inplace=True).float()
        return copy.requires_grad_(False)


class Sam3ImageEncoder(nn.Module):
    """SAM3's own: normalisation and vision transformer."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        config = Sam3ViTConfig(hidden_size=sizes.embedding_channels, image_size=sizes.image_size)
        config._attn_implementation = "sdpa"
        self.side = sizes.embedding_side
        self.trunk: Any = Sam3ViTModel(config)
        layers: Any = self.trunk.layers
        for layer in layers:
            # Computed, not loaded, so they need real memory.
            with torch.device("cpu"):
                layer.position_ids = layer.precompute_positions(config, layer.window_size)
                rotary = layer.rotary_emb
                rotary.inv_freq = rotary.compute_axial_rope_parameters(config, device="cpu")[0]
            del rotary.original_inv_freq

    def forward(self, pixels: Tensor) -> Tensor:
        """(N, S, S, 3) uint8 RGB -> (N, C, S/14, S/14) float32."""
        tokens: Tensor = self.trunk(normalised(pixels)).last_hidden_state
        embedding: Tensor = tokens.transpose(1, 2).unflatten(2, (self.side, self.side))
        return embedding

    def fused(self) -> "Sam3ImageEncoder":
        """Itself: it has no branches."""
        return self


IMAGE_ENCODERS: dict[ImageNetwork, Callable[[Sizes], ImageEncoder | Sam3ImageEncoder]] = {
    "student": ImageEncoder,
    "sam3": Sam3ImageEncoder,
}


def resized(embedding: Tensor, grid: int) -> Tensor:
    """(N, C, s, s) -> (N, C, grid, grid), bilinear."""
    if embedding.shape[-1] == grid:
        return embedding
    return F.interpolate(embedding, size=(grid, grid), mode="bilinear")


class Neck(nn.Module):
    """Image embedding to features at 4, 2 and 1 times the grid. There is one for concepts, one for objects.

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
        features = resized(embedding, self.grid)
        x4, x2, x1 = (level(features) for level in self.levels)
        return x4, x2, x1
