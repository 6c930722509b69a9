"""Tokens to text features."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import CLIPTextConfig
from transformers.models.clip.modeling_clip import CLIPEncoderLayer, CLIPTextEmbeddings
from transformers.models.sam3_lite_text.configuration_sam3_lite_text import Sam3LiteTextTextConfig
from transformers.models.sam3_lite_text.modeling_sam3_lite_text import (
    Sam3LiteTextRepMixerBlock,
    Sam3LiteTextTextEmbeddings,
    Sam3LiteTextTextEncoderLayer,
)

from model_store.networks.sizes import Sizes, TextNetwork, TextSizes


def _numbers(text: TextSizes) -> dict[str, Any]:
    """What transformers calls a text encoder's numbers."""
    return {
        "vocab_size": text.vocabulary,
        "hidden_size": text.width,
        "intermediate_size": 4 * text.width,
        "num_hidden_layers": text.layers,
        "num_attention_heads": text.heads,
        "max_position_embeddings": text.context,
    }


class TextEncoder(nn.Module):
    """MobileCLIP's text encoder and the projection to the detector's width.

    transformers' own model is not used whole: it masks the padding inside the encoder, while the students
    were trained with padding tokens taking part like any other.
    """

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        text = sizes.text
        config = Sam3LiteTextTextConfig(**_numbers(text))
        config._attn_implementation = "sdpa"
        ends = {0, text.layers - 1} if text.convolutional_ends else set()
        self.embeddings = Sam3LiteTextTextEmbeddings(config)
        self.layers = nn.ModuleList(
            Sam3LiteTextRepMixerBlock(config) if i in ends else Sam3LiteTextTextEncoderLayer(config)
            for i in range(text.layers)
        )
        self.final_layer_norm = nn.LayerNorm(text.width, eps=config.layer_norm_eps)
        self.projector = nn.Linear(text.width, sizes.width)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T) int32 -> features (B, T, D) float32, valid (B, T) bool: False where the token is 0."""
        hidden = self.embeddings(tokens)
        for layer in self.layers:
            hidden = layer(hidden, attention_mask=None)
        return self.projector(self.final_layer_norm(hidden)), tokens != 0


class Sam3TextEncoder(nn.Module):
    """SAM3's own text encoder (CLIP's, causal) and its projection to the detector's width."""

    unseen: Tensor

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        text = sizes.text
        config = CLIPTextConfig(**_numbers(text), hidden_act="gelu")
        config._attn_implementation = "sdpa"
        self.clip_embeddings = CLIPTextEmbeddings(config)
        self.blocks = nn.ModuleList(CLIPEncoderLayer(config) for _ in range(text.layers))
        self.ln_final = nn.LayerNorm(text.width)
        self.resizer = nn.Linear(text.width, sizes.width)
        with torch.device("cpu"):
            # Computed, not loaded, so they need real memory.
            self.clip_embeddings.register_buffer(
                "position_ids", torch.arange(text.context)[None], persistent=False
            )
            later = torch.full((text.context, text.context), -torch.inf).triu(1)
        self.register_buffer("unseen", later, persistent=False)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """As `TextEncoder.forward`."""
        hidden = self.clip_embeddings(tokens)
        for layer in self.blocks:
            hidden = layer(hidden, attention_mask=self.unseen[None, None])
        return self.resizer(self.ln_final(hidden)), tokens != 0


TEXT_ENCODERS: dict[TextNetwork, Callable[[Sizes], TextEncoder | Sam3TextEncoder]] = {
    "mobileclip": TextEncoder,
    "sam3": Sam3TextEncoder,
}
