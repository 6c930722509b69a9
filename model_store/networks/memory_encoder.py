"""A frame's features and an object's mask on it to a dense memory."""

# mypy: allow-untyped-calls

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from transformers.models.sam3_tracker_video import modeling_sam3_tracker_video as sam3
from transformers.models.sam3_tracker_video.configuration_sam3_tracker_video import Sam3TrackerVideoConfig

from model_store.networks.sizes import Sizes

# What a mask is remembered as: logits of a share of 0 and of 1.
_SPREAD, _LOWEST = 20.0, -10.0


def tracker_config(sizes: Sizes) -> Sam3TrackerVideoConfig:
    """What transformers calls the numbers of a video memory."""
    memory = sizes.memory
    config = Sam3TrackerVideoConfig(
        memory_attention_hidden_size=sizes.width,
        memory_attention_num_layers=memory.dense_layers,
        memory_attention_num_attention_heads=memory.dense_heads,
        memory_attention_feed_forward_hidden_size=memory.dense_feed_forward,
        memory_attention_dropout=0.0,
        memory_attention_rope_dropout=0.0,
        memory_encoder_hidden_size=sizes.width,
        memory_encoder_output_channels=memory.width,
        memory_fuser_num_layers=memory.fuser_layers,
        memory_fuser_embed_dim=sizes.width,
        memory_fuser_intermediate_dim=memory.fuser_feed_forward,
        memory_fuser_kernel_size=memory.fuser_kernel,
        memory_fuser_padding=memory.fuser_kernel // 2,
    )
    # Follows the picture's size there, with a stride that students need not have.
    config.memory_attention_rope_feat_sizes = [sizes.grid, sizes.grid]
    return config


def resized_mask(mask: Tensor, side: int) -> Tensor:
    """(N, s, s) -> (N, side, side), bilinear, antialiased where it shrinks."""
    if mask.shape[-1] == side:
        return mask
    # Without effect on a mask that grows, and not every runtime has it.
    shrinks = mask.shape[-1] > side
    return F.interpolate(mask[:, None], size=(side, side), mode="bilinear", antialias=shrinks)[:, 0]


def _halving(channels: int) -> tuple[nn.Module, ...]:
    """Layers from (N, C, s, s) to (N, 4C, s/2, s/2)."""
    norm = sam3.Sam3TrackerVideoLayerNorm(4 * channels, data_format="channels_first")
    return nn.Conv2d(channels, 4 * channels, 3, stride=2, padding=1), norm, nn.GELU()


class MemoryEncoder(nn.Module):
    """The mask, made as small as the grid, and the features, fused by convolutions."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        steps = [_halving(4**step) for step in range(sizes.memory.mask_steps)]
        last = nn.Conv2d(4 ** len(steps), sizes.width, 1)
        self.image_size = sizes.image_size
        self.mask_size = sizes.remembered_size
        self.mask = nn.Sequential(*(layer for step in steps for layer in step), last)
        self.features = nn.Conv2d(sizes.width, sizes.width, 1)
        self.fuser = sam3.Sam3TrackerVideoMemoryFuser(tracker_config(sizes))
        self.projection = nn.Conv2d(sizes.width, sizes.memory.width, 1)
        # Added where the object is not in the picture.
        self.absent = nn.Parameter(torch.zeros(1, sizes.memory.width))

    def level(self, logits: Tensor, prompted: Tensor) -> Tensor:
        """Mask logits (N, s, s) of any side -> what is remembered of them, (N, S, S).

        What is foreground is decided at the picture's size, unless the mask comes at that of memories.

        Args:
            prompted: (N,) bool; a mask that answers a prompt is taken as it is shown, foreground or not.
        """
        if logits.shape[-1] != self.mask_size:
            logits = resized_mask(logits, self.image_size)
        share = torch.where(prompted[:, None, None], (logits > 0).to(logits.dtype), logits.sigmoid())
        return resized_mask(_SPREAD * share + _LOWEST, self.mask_size)

    def forward(self, features_x1: Tensor, levels: Tensor, object_score: Tensor) -> Tensor:
        """(N, D, g, g), (N, S, S) as `level` gives them, (N, 1) logit of being there -> (N, M, g, g)."""
        fused: Tensor = self.projection(self.fuser(self.features(features_x1) + self.mask(levels[:, None])))
        return fused + (object_score <= 0)[..., None, None] * self.absent[..., None, None]
