"""The concept detector: features, text and exemplars to scores, boxes and queries, and those to masks."""

# mypy: allow-untyped-calls

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Sam3LiteTextConfig
from transformers.models.sam3_lite_text import modeling_sam3_lite_text as sam3
from transformers.models.sam3_lite_text.configuration_sam3_lite_text import (
    Sam3LiteTextDETRDecoderConfig,
    Sam3LiteTextDETREncoderConfig,
    Sam3LiteTextGeometryEncoderConfig,
    Sam3LiteTextMaskDecoderConfig,
)

from model_store.networks.geometry import GeometryEncoder
from model_store.networks.positions import sine_positions
from model_store.networks.sizes import Sizes


class Decoder(sam3.Sam3LiteTextDetrDecoder):
    """The parent with what it computes from the grid's size made constant, which is what exports."""

    cells: Tensor

    def __init__(self, config: Sam3LiteTextDETRDecoderConfig, sizes: Sizes) -> None:
        super().__init__(config)
        cells = torch.arange(sizes.grid, dtype=torch.float32, device="cpu") / sizes.grid
        self.register_buffer("cells", cells, persistent=False)
        # The students' clamp is written but not applied.
        self.clamp_presence_logit_max_val = float("inf")

    def _get_coords(self, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        return self.cells, self.cells


@dataclass(frozen=True, slots=True)
class Detections:
    """What every layer of the decoder found, and what the mask head needs. L layers, B rows, Q queries."""

    # (L, B, Q), (L, B, 1), (L, B, Q, 4) xyxy in 0..1, (L, B, Q, D); all float32.
    logits: Tensor
    presence: Tensor
    boxes: Tensor
    queries: Tensor
    # (B, D, g, g) float32, (B, P, D) float32, (B, P) bool.
    encoded: Tensor
    prompt: Tensor
    prompt_valid: Tensor


class Detector(nn.Module):
    """Encoder, decoder and scoring."""

    positions: Tensor

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        common: dict[str, Any] = {
            "hidden_size": sizes.width,
            "num_attention_heads": sizes.heads,
            "intermediate_size": sizes.feed_forward,
        }
        geometry = Sam3LiteTextGeometryEncoderConfig(
            num_layers=sizes.geometry_layers, roi_size=sizes.exemplar_cells, **common
        )
        encoder = Sam3LiteTextDETREncoderConfig(num_layers=sizes.encoder_layers, **common)
        decoder = Sam3LiteTextDETRDecoderConfig(
            num_layers=sizes.decoder_layers, num_queries=sizes.queries, **common
        )
        for config in (geometry, encoder, decoder):
            config._attn_implementation = "sdpa"
        self.grid = sizes.grid
        self.geometry = GeometryEncoder(geometry)
        self.encoder = sam3.Sam3LiteTextDetrEncoder(encoder)
        self.decoder = Decoder(decoder, sizes)
        self.scoring = sam3.Sam3LiteTextDotProductScoring(Sam3LiteTextConfig(detr_decoder_config=common))
        self.register_buffer("positions", sine_positions(sizes.width, sizes.grid), persistent=False)

    def forward(
        self,
        features_x1: Tensor,
        text_features: Tensor,
        text_valid: Tensor,
        points: Tensor,
        point_labels: Tensor,
        boxes: Tensor,
        box_labels: Tensor,
    ) -> tuple[Tensor, ...]:
        """The graph `concept_decoder`; see `model_store.networks.graphs` for names and shapes."""
        found = self.detect(features_x1, text_features, text_valid, points, point_labels, boxes, box_labels)
        last = (found.logits[-1], found.presence[-1], found.boxes[-1], found.queries[-1])
        return *last, found.encoded, found.prompt, found.prompt_valid

    def detect(
        self, features_x1: Tensor, text_features: Tensor, text_valid: Tensor, *exemplars: Tensor
    ) -> Detections:
        """As `forward`, layer by layer.

        Args:
            exemplars: points, their labels, boxes and theirs.
        """
        positions = self.positions.flatten(2).transpose(1, 2)
        shown, shown_valid = self.geometry(*exemplars, features_x1, positions)
        prompt = torch.cat((text_features, shown), dim=1)
        valid = torch.cat((text_valid, shown_valid), dim=1)
        spatial = self.positions.expand(features_x1.shape[0], -1, -1, -1)
        encoded = self.encoder([features_x1], prompt, [spatial], valid)
        decoded = self.decoder(
            encoded.last_hidden_state,
            prompt,
            encoded.pos_embeds_flattened,
            valid,
            torch.tensor([[self.grid, self.grid]]),
        )
        queries = decoded.intermediate_hidden_states
        refined = sam3.inverse_sigmoid(decoded.reference_boxes) + self.decoder.box_head(queries)
        return Detections(
            logits=self.scoring(queries, prompt, valid).squeeze(-1),
            presence=decoded.presence_logits,
            boxes=sam3.box_cxcywh_to_xyxy(refined.sigmoid()),
            queries=queries,
            encoded=encoded.last_hidden_state.transpose(1, 2).unflatten(2, (self.grid, self.grid)),
            prompt=prompt,
            prompt_valid=valid,
        )


class MaskHead(nn.Module):
    """Queries to mask logits."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        # The released files hold a third stage that nothing runs.
        config = Sam3LiteTextMaskDecoderConfig(
            hidden_size=sizes.width, num_attention_heads=sizes.heads, num_upsampling_stages=2
        )
        config._attn_implementation = "sdpa"
        self.prompt_norm = nn.LayerNorm(sizes.width)
        self.prompt_attention = sam3.Sam3LiteTextAttention(config)
        self.pixels = sam3.Sam3LiteTextPixelDecoder(config)
        self.instances = nn.Conv2d(sizes.width, sizes.width, 1)
        self.queries = sam3.Sam3LiteTextMaskEmbedder(config)

    def attend(self, encoded: Tensor, prompt: Tensor, prompt_valid: Tensor) -> Tensor:
        """The encoded map after one more look at the prompt: (B, D, g, g) float32."""
        flat = encoded.flatten(2).transpose(1, 2)
        mask = prompt_valid[:, None, None, :]
        flat = flat + self.prompt_attention(self.prompt_norm(flat), prompt, prompt, mask)[0]
        attended: Tensor = flat.transpose(1, 2).unflatten(2, encoded.shape[-2:])
        return attended

    def forward(
        self,
        encoded: Tensor,
        prompt: Tensor,
        prompt_valid: Tensor,
        features_x2: Tensor,
        features_x4: Tensor,
        queries: Tensor,
    ) -> Tensor:
        """-> (B, Q, 4g, 4g) float32 logits."""
        attended = self.attend(encoded, prompt, prompt_valid)
        pixels = self.instances(self.pixels([features_x4, features_x2, attended]))
        return torch.einsum("bqd,bdhw->bqhw", self.queries(queries), pixels)
