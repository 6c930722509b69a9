"""What training minimises. Masks are (N, s, s); logits are before the sigmoid; all float32."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from model_store.networks.detector import Detections

# Of the parts of the cost of giving a query to an object, and of the losses of the pairs so made.
_CLASS, _L1, _GIOU = 2.0, 5.0, 2.0
# Of the score in that cost. Several queries find one object, each about as well as the others: with a small
# one, which of them is taken changes from step to step, and none learns to be the one.
_CHOSEN = 15.0
_FOCAL_ALPHA, _FOCAL_GAMMA = 0.4, 1.5


@dataclass(frozen=True, slots=True)
class Pairs:
    """Queries and the objects they are to find: row of the batch, query, index of the object. (n,) int64."""

    row: Tensor
    query: Tensor
    thing: Tensor


def dice(logits: Tensor, masks: Tensor) -> Tensor:
    """(N,): 1 - Dice of each mask, smoothed by one cell."""
    probability = logits.sigmoid().flatten(1)
    truth = masks.flatten(1)
    overlap = 2 * (probability * truth).sum(1)
    return 1 - (overlap + 1) / (probability.sum(1) + truth.sum(1) + 1)


def cross_entropy(logits: Tensor, masks: Tensor, extra: float) -> Tensor:
    """(N,): binary cross entropy of each mask.

    The object's cells are weighted by up to 1 + `extra`, the more the smaller it is, so that empty masks
    are no way out at the start.
    """
    share = masks.flatten(1).mean(1).clamp(min=1e-3)
    weight = ((1 - share) / share).clamp(max=1 + extra).clamp(min=1.0)
    each = F.binary_cross_entropy_with_logits(logits, masks, reduction="none")
    balanced = 1 + masks * (weight[:, None, None] - 1)
    return (each * balanced).flatten(1).sum(1) / balanced.flatten(1).sum(1)


def mask_loss(logits: Tensor, masks: Tensor, extra: float) -> Tensor:
    """(N,): both; logits are brought to the masks' side."""
    if logits.shape[-1] != masks.shape[-1]:
        logits = F.interpolate(logits[:, None], masks.shape[-2:], mode="bilinear")[:, 0]
    return dice(logits, masks) + 5 * cross_entropy(logits, masks, extra)


def iou(logits: Tensor, masks: Tensor) -> Tensor:
    """(N,): IoU of the foreground with the mask, which is brought to the logits' side. No gradient."""
    with torch.no_grad():
        if masks.shape[-1] != logits.shape[-1]:
            masks = F.interpolate(masks[:, None], logits.shape[-2:], mode="area")[:, 0]
        found, truth = (logits > 0).flatten(1), (masks > 0.5).flatten(1)
        return (found & truth).sum(1) / (found | truth).sum(1).clamp(min=1)


def giou(a: Tensor, b: Tensor) -> Tensor:
    """Generalised IoU of boxes (..., 4) xyxy."""
    low, high = torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:])
    shared = (high - low).clamp(min=0).prod(-1)
    union = (a[..., 2:] - a[..., :2]).clamp(min=0).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1) - shared
    around = torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])
    hull = around.clamp(min=1e-6).prod(-1)
    return shared / union.clamp(min=1e-6) - (hull - union) / hull


def match(logits: Tensor, boxes: Tensor, things: Tensor, wanted: Tensor) -> Pairs:
    """The cheapest one-to-one assignment of queries to objects, for one layer.

    Args:
        logits: (R, Q).
        boxes: (R, Q, 4) xyxy.
        things: (R, K, 4) xyxy, the objects' boxes.
        wanted: (R, K) bool, which of them the row asks for.
    """
    with torch.no_grad():
        near = (boxes[:, :, None] - things[:, None]).abs().sum(-1)
        alike = giou(boxes[:, :, None], things[:, None])
        cost = _L1 * near - _GIOU * alike - _CHOSEN * logits.sigmoid()[..., None] * alike.clamp(min=0)
        table = cost.float().cpu().numpy()
    triples: list[tuple[int, int, int]] = []
    for row, asked in enumerate(wanted.cpu().numpy()):
        if asked.any():
            columns = asked.nonzero()[0]
            queries, chosen = linear_sum_assignment(table[row][:, columns])
            triples += [(row, int(q), int(columns[c])) for q, c in zip(queries, chosen, strict=True)]
    made = torch.tensor(triples, dtype=torch.int64, device=logits.device).reshape(-1, 3)
    return Pairs(*made.unbind(1))


def focal(logits: Tensor, truth: Tensor) -> Tensor:
    """The sum of the focal loss (arXiv 1708.02002, equation 5)."""
    each = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    right = torch.exp(-each)
    alpha = _FOCAL_ALPHA * truth + (1 - _FOCAL_ALPHA) * (1 - truth)
    return (alpha * (1 - right) ** _FOCAL_GAMMA * each).sum()


def detection(found: Detections, things: Tensor, wanted: Tensor) -> tuple[Tensor, Pairs]:
    """The loss of scores and boxes over all layers, and the last layer's pairs.

    Args:
        things: (R, K, 4) xyxy.
        wanted: (R, K) bool.
    """
    present = wanted.any(1, keepdim=True).float()
    count = wanted.sum().clamp(min=1)
    total = found.logits.new_zeros(())
    for logits, boxes, presence in zip(found.logits, found.boxes, found.presence, strict=True):
        logits, boxes, presence = logits.float(), boxes.float(), presence.float()
        pairs = match(logits, boxes, things, wanted)
        truth = torch.zeros_like(logits)
        truth[pairs.row, pairs.query] = 1
        guess, box = boxes[pairs.row, pairs.query], things[pairs.row, pairs.thing]
        total = total + _CLASS * focal(logits, truth) / count
        total = total + (_L1 * (guess - box).abs().sum() + _GIOU * (1 - giou(guess, box)).sum()) / count
        total = total + F.binary_cross_entropy_with_logits(presence, present)
    return total, pairs
