"""The Perceiver memory: a frame's memory in a few tokens, and the attention to them."""

# mypy: allow-untyped-calls

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from model_store.networks.attention import Attention, attend, heads_of
from model_store.networks.sizes import MemorySizes, Sizes


class _Mixing(nn.Module):
    """Attention without biases, whose heads need not add up to the width."""

    def __init__(self, sizes: MemorySizes) -> None:
        super().__init__()
        self.heads = sizes.perceiver_heads
        inner = sizes.perceiver_heads * sizes.perceiver_head_width
        self.to_q = nn.Linear(sizes.width, inner, bias=False)
        self.to_kv = nn.Linear(sizes.width, 2 * inner, bias=False)
        self.to_out = nn.Linear(inner, sizes.width, bias=False)

    def mix(self, latents: Tensor, seen: Tensor) -> Tensor:
        """(B, T, M) and the (B, K, M) that they attend to -> (B, T, M)."""
        keys, values = self.to_kv(seen).chunk(2, dim=-1)
        queries = self.to_q(latents)
        mixed: Tensor = self.to_out(attend(*(heads_of(each, self.heads) for each in (queries, keys, values))))
        return mixed


class _CrossAttention(_Mixing):
    def __init__(self, sizes: MemorySizes) -> None:
        super().__init__(sizes)
        self.norm_x = nn.LayerNorm(sizes.width)
        self.norm_latents = nn.LayerNorm(sizes.width)

    def forward(self, latents: Tensor, cells: Tensor) -> Tensor:
        return self.mix(self.norm_latents(latents), self.norm_x(cells))


class _SelfAttention(_Mixing):
    def __init__(self, sizes: MemorySizes) -> None:
        super().__init__(sizes)
        self.norm = nn.LayerNorm(sizes.width)

    def forward(self, latents: Tensor) -> Tensor:
        normed = self.norm(latents)
        return self.mix(normed, normed)


def _feed_forward(sizes: MemorySizes) -> nn.Sequential:
    return nn.Sequential(
        nn.LayerNorm(sizes.width),
        nn.Linear(sizes.width, sizes.perceiver_feed_forward, bias=False),
        nn.GELU(),
        nn.Linear(sizes.perceiver_feed_forward, sizes.width, bias=False),
    )


class PerceiverLayer(nn.Module):
    """Latents look at the cells, then at each other."""

    def __init__(self, sizes: MemorySizes) -> None:
        super().__init__()
        self.attn = _CrossAttention(sizes)
        self.ff = _feed_forward(sizes)
        self.self_attn = _SelfAttention(sizes)
        self.self_ff = _feed_forward(sizes)

    def forward(self, latents: Tensor, cells: Tensor) -> Tensor:
        """(B, T, M), (B, K, M) -> (B, T, M)."""
        latents = latents + self.attn(latents, cells)
        latents = latents + self.ff(latents)
        latents = latents + self.self_attn(latents)
        mixed: Tensor = latents + self.self_ff(latents)
        return mixed


class PerceiverResampler(nn.Module):
    """A dense memory to tokens: some see the whole frame, the others a window each, rows first.

    Both sorts go through the same layers. Where a frame is, a token's number says: none has a position.
    """

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        memory = sizes.memory
        self.windows = memory.windows
        # Cells of a window's side. A grid that the windows do not divide is made smaller.
        self.cells = sizes.grid // max(memory.windows, 1)
        assert self.cells, f"a grid of {sizes.grid} cells has no {memory.windows} windows"
        self.latents_1d = nn.Parameter(torch.randn(memory.latents, memory.width))
        self.latents_2d = nn.Parameter(torch.randn(memory.windows**2, memory.width))
        self.layers = nn.ModuleList(PerceiverLayer(memory) for _ in range(memory.perceiver_layers))
        self.norm = nn.LayerNorm(memory.width)

    def windowed(self, memory: Tensor) -> Tensor:
        """(N, M, g, g) -> (N * W * W, cells of a window, M)."""
        side = self.windows * self.cells
        if memory.shape[-1] != side:
            memory = F.interpolate(memory, size=(side, side), mode="bilinear")
        rows = memory.unflatten(3, (self.windows, self.cells)).unflatten(2, (self.windows, self.cells))
        windows: Tensor = rows.permute(0, 2, 4, 3, 5, 1).flatten(3, 4).flatten(0, 2)
        return windows

    def forward(self, memory: Tensor) -> Tensor:
        """(N, M, g, g) -> (N, T, M), T = latents + windows squared."""
        count = memory.shape[0]
        tokens = []
        if self.latents_1d.shape[0]:
            whole = memory.flatten(2).transpose(1, 2)
            tokens.append(self._run(self.latents_1d.expand(count, -1, -1), whole))
        if self.windows:
            single = self.latents_2d.repeat(count, 1)[:, None]
            tokens.append(self._run(single, self.windowed(memory)).unflatten(0, (count, -1)).flatten(1, 2))
        return torch.cat(tokens, dim=1)

    def _run(self, latents: Tensor, cells: Tensor) -> Tensor:
        for layer in self.layers:
            latents = layer(latents, cells)
        normed: Tensor = self.norm(latents)
        return normed


class EfficientLayer(nn.Module):
    """Cells of the frame look at each other, then at the memory."""

    def __init__(self, width: int, sizes: MemorySizes) -> None:
        super().__init__()
        self.self_attn = Attention(width, sizes.attention_heads)
        self.cross_attn = Attention(width, sizes.attention_heads)
        self.linear1 = nn.Linear(width, sizes.attention_feed_forward)
        self.linear2 = nn.Linear(sizes.attention_feed_forward, width)
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        self.norm3 = nn.LayerNorm(width)

    def forward(
        self, cells: Tensor, places: Tensor, memory: Tensor, placed_memory: Tensor, valid: Tensor
    ) -> Tensor:
        """As `EfficientMemoryAttention.forward`; `placed_memory` is with the positions added."""
        normed = self.norm1(cells)
        cells = cells + self.self_attn(normed + places, normed + places, normed)
        normed = self.norm2(cells) + places
        cells = cells + self.cross_attn(normed, placed_memory, memory, valid)
        grown: Tensor = self.linear2(F.gelu(self.linear1(self.norm3(cells))))
        return cells + grown


class EfficientMemoryAttention(nn.Module):
    """A frame's features and the tokens of its past to conditioned features."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        layers = range(sizes.memory.attention_layers)
        self.layers: Any = nn.ModuleList(EfficientLayer(sizes.width, sizes.memory) for _ in layers)
        self.norm = nn.LayerNorm(sizes.width)

    def forward(
        self, cells: Tensor, places: Tensor, memory: Tensor, memory_places: Tensor, valid: Tensor
    ) -> Tensor:
        """Attends.

        Args:
            cells: (B, T, D) features of the frame, rows first.
            places: (T, D) their positions.
            memory: (B, K, D).
            memory_places: (B, K, D) or what broadcasts to it.
            valid: (B, K) bool, False for padding; at least one of a row is True.

        Returns:
            (B, T, D).
        """
        placed_memory = memory + memory_places
        for layer in self.layers:
            cells = layer(cells, places, memory, placed_memory, valid)
        conditioned: Tensor = self.norm(cells)
        return conditioned
