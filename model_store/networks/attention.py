"""Attention: as the video memory's own networks have it, and written out for training."""

# mypy: allow-untyped-calls

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn


def written_out(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """(B, H, T, C) and (B, H, K, C) twice -> (B, H, T, C).

    On a processor the fused operator's backward pass is slower than the products themselves.

    Args:
        mask: broadcasts to (B, H, T, K): bool, False where nothing is to be seen, or float, added.
    """
    scores = (queries * scale) @ keys.transpose(-1, -2)
    if mask is not None and mask.dtype == torch.bool:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    elif mask is not None:
        scores = scores + mask
    return scores.softmax(-1).to(values.dtype) @ values


def attend(queries: Tensor, keys: Tensor, values: Tensor, valid: Tensor | None = None) -> Tensor:
    """Scaled dot products.

    Args:
        queries: (B, H, T, C).
        keys, values: (B, H, K, C).
        valid: (B, K) bool, False for keys that nothing attends to; at least one of a row is True. None: all.

    Returns:
        (B, T, H * C).
    """
    mask = None if valid is None else valid[:, None, None]
    if queries.requires_grad and queries.is_cpu:
        seen = written_out(queries, keys, values, mask, queries.shape[-1] ** -0.5)
    else:
        seen = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
    joined: Tensor = seen.transpose(1, 2).flatten(2)
    return joined


def heads_of(values: Tensor, heads: int) -> Tensor:
    """(B, T, H * C) -> (B, H, T, C)."""
    split: Tensor = values.unflatten(-1, (heads, -1)).transpose(1, 2)
    return split


class Attention(nn.Module):
    """Multi-head attention with biases, all of one width."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        assert width % heads == 0, f"{width} channels are no whole number for each of {heads} heads"
        self.heads = heads
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.o_proj = nn.Linear(width, width)

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor, valid: Tensor | None = None) -> Tensor:
        """(B, T, D), (B, K, D), (B, K, D), (B, K) bool as for `attend` -> (B, T, D)."""
        seen = attend(
            heads_of(self.q_proj(queries), self.heads),
            heads_of(self.k_proj(keys), self.heads),
            heads_of(self.v_proj(values), self.heads),
            valid,
        )
        projected: Tensor = self.o_proj(seen)
        return projected
