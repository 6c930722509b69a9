"""Exemplars to prompt tokens."""

# mypy: allow-untyped-calls

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from transformers.models.sam3_lite_text import modeling_sam3_lite_text as sam3
from transformers.models.sam3_lite_text.configuration_sam3_lite_text import Sam3LiteTextGeometryEncoderConfig

from model_store.networks.roi import roi_align

# Label of an exemplar that only fills the array.
PADDING = -10


def xyxy_to_cxcywh(boxes: Tensor) -> Tensor:
    """(..., 4) corners -> (..., 4) centre and extent, in the same unit."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return torch.cat(((low + high) / 2, high - low), dim=-1)


class GeometryEncoder(sam3.Sam3LiteTextGeometryEncoder):
    """Exemplar points and boxes to prompt tokens, and the class token that stands in every prompt.

    Adds points to its parent, which knows boxes only. Differs from it in form, not in numbers: the class
    token comes last whatever is padding (tokens carry no position, so their order means nothing), and boxes
    are pooled by one operator for all images.
    """

    def __init__(self, config: Sam3LiteTextGeometryEncoderConfig) -> None:
        super().__init__(config)
        width = config.hidden_size
        self.points_direct_project = nn.Linear(2, width)
        self.points_pool_project = nn.Linear(width, width)
        self.points_pos_enc_project = nn.Linear(width, width)

    def encode_boxes(self, boxes: Tensor, labels: Tensor, features: Tensor) -> Tensor:
        """(B, K, 4) xyxy in 0..1, (B, K) labels, (B, D, g, g) normalised features -> (B, K, D)."""
        batch, count = labels.shape
        rows = boxes.reshape(-1, 4)
        image = torch.arange(batch, device=boxes.device).unsqueeze(1).expand(batch, count).reshape(-1)
        pooled = roi_align(features, rows * features.shape[-1], image, self.roi_size)
        centred = xyxy_to_cxcywh(rows)
        position = self.boxes_pos_enc_project(self._encode_box_coordinates(*centred.unbind(-1)))
        tokens = self.boxes_direct_project(centred) + self.boxes_pool_project(pooled).flatten(1) + position
        return self._labelled(tokens.reshape(batch, count, -1), labels)

    def encode_points(self, points: Tensor, labels: Tensor, features: Tensor) -> Tensor:
        """(B, J, 2) x and y in 0..1, (B, J) labels, (B, D, g, g) normalised features -> (B, J, D)."""
        batch, count = labels.shape
        pooled = F.grid_sample(features, (2 * points - 1).unsqueeze(2), align_corners=False)
        x, y = self.position_encoding.encode_1d_positions(*points.reshape(-1, 2).unbind(-1))
        position = torch.cat((x, y), dim=-1).reshape(batch, count, -1)
        tokens = self.points_direct_project(points)
        tokens = tokens + self.points_pool_project(pooled.squeeze(-1).transpose(1, 2))
        return self._labelled(tokens + self.points_pos_enc_project(position), labels)

    def _labelled(self, tokens: Tensor, labels: Tensor) -> Tensor:
        labelled: Tensor = self.label_embed((labels == 1).long()) + tokens
        return labelled

    def forward(  # type: ignore[override]
        self,
        points: Tensor,
        point_labels: Tensor,
        boxes: Tensor,
        box_labels: Tensor,
        features: Tensor,
        positions: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """-> tokens (B, J + K + 1, D) float32, valid (B, J + K + 1) bool. `positions` is (1, g * g, D)."""
        flat = features.flatten(2).transpose(1, 2)
        side = features.shape[-1]
        normalised = self.vision_layer_norm(flat).transpose(1, 2).unflatten(2, (side, side))
        shown = (
            self.encode_points(points, point_labels, normalised),
            self.encode_boxes(boxes, box_labels, normalised),
            self.cls_embed.weight.unsqueeze(0).expand(boxes.shape[0], -1, -1),
        )
        tokens = self.prompt_layer_norm(self.final_proj(torch.cat(shown, dim=1)))
        labels = torch.cat((point_labels, box_labels, torch.ones_like(box_labels[:, :1])), dim=1)
        valid = labels != PADDING
        for layer in self.layers:
            tokens = layer(tokens, flat, positions, valid[:, None, None, :])
        return self.output_layer_norm(tokens), valid
