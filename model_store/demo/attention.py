"""transformers' attention, written out for training: with the fused one a step takes a quarter longer."""

# mypy: allow-untyped-calls

from typing import Any

from torch import Tensor, nn
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask
from transformers.modeling_utils import AttentionInterface

from model_store.networks.attention import written_out

_NAME = "written_out"


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    **_: Any,
) -> tuple[Tensor, None]:
    """As transformers asks: (B, H, Q, d), (B, H, K, d) twice -> (B, Q, H, d), and no weights."""
    return written_out(query, key, value, attention_mask, scaling).transpose(1, 2), None


def write_out(network: nn.Module) -> None:
    """Makes every attention of the network run written out."""
    AttentionInterface.register(_NAME, _attention)
    AttentionMaskInterface.register(_NAME, sdpa_mask)
    for module in network.modules():
        config: Any = getattr(module, "config", None)
        if hasattr(config, "_attn_implementation"):
            config._attn_implementation = _NAME
