"""Attention to every cell of the frames that are remembered, as SAM3's tracker has it."""

# mypy: allow-untyped-calls

from typing import Any

import torch
from torch import Tensor, nn
from transformers.models.sam3_tracker_video import modeling_sam3_tracker_video as sam3

from model_store.networks.attention import attend, heads_of
from model_store.networks.memory_encoder import tracker_config
from model_store.networks.sizes import Sizes


def rotary_tables(sizes: Sizes) -> tuple[Tensor, Tensor]:
    """Cosines and sines (g * g, C) of the angles that a cell's queries and keys are turned by, C per head."""
    config = tracker_config(sizes)
    # Computed, not loaded, so they need real memory.
    with torch.device("cpu"):
        cells = sam3.Sam3TrackerVideoMemoryAttention.precompute_positions(config)
        cosines, sines = sam3.Sam3TrackerVideoVisionRotaryEmbedding(config)(cells, cells)
    return cosines[0].clone(), sines[0].clone()


class DenseLayer(sam3.Sam3TrackerVideoMemoryAttentionLayer):
    """The parent, for a memory of any width, with a mask over memory that is padding."""

    def __init__(self, sizes: Sizes) -> None:
        config = tracker_config(sizes)
        super().__init__(config)
        self.cross_attn_image = sam3.Sam3TrackerVideoRoPEAttention(config, kv_in_dim=sizes.memory.width)

    def forward(  # type: ignore[override]
        self,
        cells: Tensor,
        turns: tuple[Tensor, Tensor],
        memory: Tensor,
        placed_memory: Tensor,
        pointers: Tensor,
        placed_pointers: Tensor,
        valid: Tensor,
    ) -> Tensor:
        """As `DenseMemoryAttention.forward`; `placed_*` are with the positions added."""
        own = self.self_attn
        normed = self.layer_norm1(cells)
        queries = _turned(heads_of(own.q_proj(normed), own.num_attention_heads), turns)
        keys = _turned(heads_of(own.k_proj(normed), own.num_attention_heads), turns)
        values = heads_of(own.v_proj(normed), own.num_attention_heads)
        cells = cells + own.o_proj(attend(queries, keys, values))
        cross = self.cross_attn_image
        heads = cross.num_attention_heads
        queries = _turned(heads_of(cross.q_proj(self.layer_norm2(cells)), heads), turns)
        # (B, F, H, T, C): every frame's cells are turned alike.
        frames = cross.k_proj(placed_memory).unflatten(-1, (heads, -1)).transpose(2, 3)
        spatial = _turned(frames, turns).transpose(1, 2).flatten(2, 3)
        keys = torch.cat((spatial, heads_of(cross.k_proj(placed_pointers), heads)), dim=2)
        values = heads_of(cross.v_proj(torch.cat((memory.flatten(1, 2), pointers), dim=1)), heads)
        cells = cells + cross.o_proj(attend(queries, keys, values, valid))
        grown: Tensor = self.linear2(self.activation(self.linear1(self.layer_norm3(cells))))
        return cells + grown


def _turned(values: Tensor, turns: tuple[Tensor, Tensor]) -> Tensor:
    """(..., T, C) and tables (T, C) -> the same, pairs of channels turned in their plane."""
    cosines, sines = turns
    turned: Tensor = values * cosines + sam3.rotate_pairwise(values) * sines
    return turned


class DenseMemoryAttention(nn.Module):
    """A frame's features and the dense memories of its past to conditioned features."""

    cosines: Tensor
    sines: Tensor

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.layers: Any = nn.ModuleList(DenseLayer(sizes) for _ in range(sizes.memory.dense_layers))
        self.layer_norm = nn.LayerNorm(sizes.width)
        cosines, sines = rotary_tables(sizes)
        self.register_buffer("cosines", cosines, persistent=False)
        self.register_buffer("sines", sines, persistent=False)

    def forward(
        self,
        cells: Tensor,
        memory: Tensor,
        memory_places: Tensor,
        pointers: Tensor,
        pointer_places: Tensor,
        valid: Tensor,
    ) -> Tensor:
        """Attends.

        Args:
            cells: (B, T, D) features of the frame, rows first, their positions added; T = g * g.
            memory: (B, F, T, M) of the frames that are remembered.
            memory_places: (B, F, T, M) or what broadcasts to it.
            pointers: (B, Q, M) tokens that are at no cell.
            pointer_places: (B, Q, M).
            valid: (B, F * T + Q) bool, False for padding; at least one of a row is True.

        Returns:
            (B, T, D).
        """
        turns = (self.cosines, self.sines)
        placed = memory + memory_places, pointers, pointers + pointer_places
        for layer in self.layers:
            cells = layer(cells, turns, memory, *placed, valid)
        conditioned: Tensor = self.layer_norm(cells)
        return conditioned
