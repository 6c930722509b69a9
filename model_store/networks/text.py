"""Tokens to text features."""

from torch import Tensor, nn
from transformers.models.sam3_lite_text.configuration_sam3_lite_text import Sam3LiteTextTextConfig
from transformers.models.sam3_lite_text.modeling_sam3_lite_text import (
    Sam3LiteTextRepMixerBlock,
    Sam3LiteTextTextEmbeddings,
    Sam3LiteTextTextEncoderLayer,
)

from model_store.networks.sizes import Sizes


class TextEncoder(nn.Module):
    """MobileCLIP's text encoder and the projection to the detector's width.

    transformers' own model is not used whole: it masks the padding inside the encoder, while the students
    were trained with padding tokens taking part like any other.
    """

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        text = sizes.text
        config = Sam3LiteTextTextConfig(
            vocab_size=text.vocabulary,
            hidden_size=text.width,
            intermediate_size=4 * text.width,
            num_hidden_layers=text.layers,
            num_attention_heads=text.heads,
            max_position_embeddings=text.context,
        )
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
