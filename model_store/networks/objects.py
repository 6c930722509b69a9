"""The prompt decoder: clicks, a box and a mask to one object's masks."""

# mypy: allow-untyped-calls

import math
from typing import Any

import torch
from torch import Tensor, nn
from transformers.models.sam3_tracker import modeling_sam3_tracker as sam3
from transformers.models.sam3_tracker.configuration_sam3_tracker import (
    Sam3TrackerMaskDecoderConfig,
    Sam3TrackerPromptEncoderConfig,
)

from model_store.networks.sizes import Sizes

# Labels of a prompt's points. A box is its two corners.
NEGATIVE, POSITIVE, TOP_LEFT, BOTTOM_RIGHT = range(4)
# A token that says that there are no more points; it stands after the points of every prompt that has any.
NO_POINT = -1
# Only fills the array.
PADDING = -10


class PointEncoder(nn.Module):
    """Coordinates and labels to prompt tokens.

    transformers' own keeps the four label embeddings in one tensor; here each is its own, as in the files.
    """

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.image_size = sizes.image_size
        self.positions = nn.Parameter(torch.empty(2, sizes.width // 2))
        self.labels = nn.ModuleList(nn.Embedding(1, sizes.width) for _ in range(4))
        self.no_point = nn.Embedding(1, sizes.width)

    def encode(self, points: Tensor) -> Tensor:
        """(..., 2) x and y in 0..1 -> (..., D): random Fourier features."""
        angles = 2 * math.pi * ((2 * points - 1) @ self.positions)
        return torch.cat((angles.sin(), angles.cos()), dim=-1)

    def grid(self, cells: int) -> Tensor:
        """(1, D, cells, cells): the encoding of every cell's centre."""
        centres = (torch.arange(cells, dtype=torch.float32, device=self.positions.device) + 0.5) / cells
        y, x = torch.meshgrid(centres, centres, indexing="ij")
        return self.encode(torch.stack((x, y), dim=-1)).permute(2, 0, 1)[None]

    def forward(self, points: Tensor, labels: Tensor) -> Tensor:
        """(B, P, 2) x and y in 0..1 of the picture, (B, P) labels -> (B, P, D)."""
        kinds: Any = self.labels
        # A pixel's coordinate is that of its corner; what is encoded is its centre.
        tokens = self.encode(points + 0.5 / self.image_size)
        tokens = torch.where((labels == NO_POINT)[..., None], self.no_point.weight, tokens)
        for label, kind in enumerate(kinds):
            tokens = tokens + (labels == label)[..., None] * kind.weight
        return tokens


class TwoWayBlock(sam3.Sam3TrackerTwoWayAttentionBlock):
    """The parent, with a mask over the tokens that are padding: nothing attends to them.

    `tokens` are (B, 1, T, D), `cells` (B, 1, g * g, D), `mask` (B, 1, 1, T) bool, False for padding.
    """

    def forward(  # type: ignore[override]
        self, tokens: Tensor, cells: Tensor, token_places: Tensor, cell_places: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        if self.skip_first_layer_pe:
            tokens = self.self_attn(tokens, tokens, tokens, attention_similarity=mask)[0]
        else:
            placed = tokens + token_places
            tokens = tokens + self.self_attn(placed, placed, tokens, attention_similarity=mask)[0]
        tokens = self.layer_norm1(tokens)
        placed_cells = cells + cell_places
        seen = self.cross_attn_token_to_image(tokens + token_places, placed_cells, cells)[0]
        tokens = self.layer_norm2(tokens + seen)
        tokens = self.layer_norm3(tokens + self.mlp(tokens))
        told = self.cross_attn_image_to_token(
            placed_cells, tokens + token_places, tokens, attention_similarity=mask
        )[0]
        return tokens, self.layer_norm4(cells + told)


class MaskDecoder(sam3.Sam3TrackerMaskDecoder):
    """Prompt tokens and features to all masks, their predicted IoU and the object's score.

    The parent chooses among the masks; here that is the caller's.
    """

    def __init__(self, config: Sam3TrackerMaskDecoderConfig) -> None:
        super().__init__(config)
        self.transformer.layers = nn.ModuleList(
            TwoWayBlock(config, skip_first_layer_pe=index == 0) for index in range(config.num_hidden_layers)
        )

    def transform(
        self, prompt: Tensor, valid: Tensor, features: Tensor, places: Tensor
    ) -> tuple[Tensor, Tensor]:
        """-> tokens (B, 2 + masks, D): object score, IoU, one per mask; cells (B, D, g, g)."""
        batch, side = prompt.shape[0], features.shape[-1]
        own = torch.cat((self.obj_score_token.weight, self.iou_token.weight, self.mask_tokens.weight))
        token_places = torch.cat((own.expand(batch, -1, -1), prompt), dim=1)[:, None]
        every = torch.ones_like(valid[:, :1]).expand(-1, own.shape[0])
        mask = torch.cat((every, valid), dim=1)[:, None, None]
        tokens, cells = token_places, features.flatten(2).transpose(1, 2)[:, None]
        cell_places = places.flatten(2).transpose(1, 2)[:, None]
        for layer in self.transformer.layers:
            tokens, cells = layer(tokens, cells, token_places, cell_places, mask)
        seen = self.transformer.final_attn_token_to_image(tokens + token_places, cells + cell_places, cells)[
            0
        ]
        tokens = self.transformer.layer_norm_final_attn(tokens + seen)
        return tokens[:, 0, : own.shape[0]], cells[:, 0].transpose(1, 2).unflatten(2, (side, side))

    def forward(  # type: ignore[override]
        self, tokens: Tensor, cells: Tensor, features_x2: Tensor, features_x4: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What `transform` gave, and finer features -> logits (B, M, 4g, 4g), IoU (B, M), score (B, 1)."""
        pixels = self.activation(self.upscale_layer_norm(self.upscale_conv1(cells) + features_x2))
        # Added as (B, C, 16gg): an engine that keeps channels last, as convolutions like it, goes slowly
        # through as few as these.
        finest = self.upscale_conv2(pixels)
        pixels = self.activation(finest.flatten(2) + features_x4.flatten(2))
        queries = torch.stack(
            [mlp(tokens[:, 2 + index]) for index, mlp in enumerate(self.output_hypernetworks_mlps)], dim=1
        )
        logits = (queries @ pixels).unflatten(2, finest.shape[-2:])
        return logits, self.iou_prediction_head(tokens[:, 1]), self.pred_obj_score_head(tokens[:, 0])


class PromptDecoder(nn.Module):
    """Points, a box as two points, and a mask, to masks of one object per row."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        common: dict[str, Any] = {"hidden_size": sizes.width}
        masks = Sam3TrackerPromptEncoderConfig(**common)
        decoder = Sam3TrackerMaskDecoderConfig(
            num_attention_heads=sizes.heads,
            mlp_dim=sizes.feed_forward,
            num_hidden_layers=sizes.object_layers,
            num_multimask_outputs=sizes.proposals,
            iou_head_hidden_dim=sizes.width,
            **common,
        )
        decoder._attn_implementation = "sdpa"
        self.grid = sizes.grid
        self.points = PointEncoder(sizes)
        self.mask = sam3.Sam3TrackerMaskEmbedding(masks)
        self.no_mask = nn.Embedding(1, sizes.width)
        self.decoder = MaskDecoder(decoder)
        # Added to the coarsest features of a picture that has no past.
        self.no_memory = nn.Parameter(torch.empty(1, 1, sizes.width))

    def finer(self, x4: Tensor, x2: Tensor) -> tuple[Tensor, Tensor]:
        """The neck's two finer maps as the decoder takes them: (N, D/8, 4g, 4g), (N, D/4, 2g, 2g)."""
        return self.decoder.conv_s0(x4), self.decoder.conv_s1(x2)

    def decode(
        self,
        features_x1: Tensor,
        features_x2: Tensor,
        features_x4: Tensor,
        image: Tensor,
        points: Tensor,
        labels: Tensor,
        mask: Tensor,
        has_mask: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What `forward` gives, and the token of each mask, (B, M, D)."""
        prompt = self.points(points, labels)
        none = self.no_mask.weight[..., None, None]
        dense = torch.where(has_mask[:, None, None, None], self.mask(mask[:, None]), none)
        tokens, cells = self.decoder.transform(
            prompt, labels != PADDING, features_x1 + dense, self.points.grid(self.grid)
        )
        rows = image.long()
        logits, iou, score = self.decoder(
            tokens, cells, features_x2.index_select(0, rows), features_x4.index_select(0, rows)
        )
        return logits, iou, score, tokens[:, 2:]

    def forward(
        self,
        features_x1: Tensor,
        features_x2: Tensor,
        features_x4: Tensor,
        image: Tensor,
        points: Tensor,
        labels: Tensor,
        mask: Tensor,
        has_mask: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The graph `prompt_decoder`; see `model_store.networks.graphs` for names and shapes."""
        return self.decode(features_x1, features_x2, features_x4, image, points, labels, mask, has_mask)[:3]


class InteractiveFeatures(nn.Module):
    """Image embedding to the features that the prompt decoder takes."""

    def __init__(self, neck: nn.Module, decoder: PromptDecoder) -> None:
        super().__init__()
        self.neck = neck
        self.decoder = decoder

    def forward(self, embedding: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(N, C, s, s) -> (N, D/8, 4g, 4g), (N, D/4, 2g, 2g), (N, D, g, g), all float32."""
        x4, x2, x1 = self.neck(embedding)
        return *self.decoder.finer(x4, x2), x1
