"""One object at a time: prompts made from true masks, answers, and clicks that correct them."""

# mypy: allow-untyped-calls

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from model_store.demo import losses
from model_store.demo.learner import Batch, Interactive, Learner
from model_store.networks.objects import BOTTOM_RIGHT, NEGATIVE, NO_POINT, PADDING, POSITIVE, TOP_LEFT

# A box's two corners, then clicks, then the mark that ends them.
_BOX, _CLICKS = slice(0, 2), 3
_SLOTS = 2 + _CLICKS + 1
# Share of objects that begin with a box, and with a mask; the others begin with a click.
_BOXES, _MASKS = 0.4, 0.12
# Logits of a mask that is sent.
_SURE = 10.0
# The most that an object's cells may weigh more than others: with more, all objects are the best answer.
_EXTRA = 2.0
# Weight of the object's score.
_THERE = 0.3


@dataclass(frozen=True, slots=True)
class Prompts:
    """The prompt decoder's inputs for R objects."""

    # (R,) the picture that each is in.
    image: Tensor
    # (R, _SLOTS, 2) in 0..1, (R, _SLOTS).
    points: Tensor
    labels: Tensor
    # (R, 4g, 4g) logits, (R,) bool.
    mask: Tensor
    has_mask: Tensor


def step(learner: Learner, seen: Interactive, batch: Batch, each: int, extra: float) -> Tensor:
    """The loss of segmenting `each` objects of every picture from a prompt and two corrections."""
    image, thing = _choose(batch["real"], each)
    truth = batch["masks"][image, thing].float()
    prompts = first(learner, truth, image, batch["boxes"][image, thing])
    total, logits = truth.new_zeros(()), truth
    for click in range(_CLICKS):
        if click:
            prompts = corrected(prompts, logits, truth, 2 + click)
        logits, loss = _answer(learner, seen, prompts, truth, extra)
        total = total + loss
    return total / _CLICKS


def _choose(real: Tensor, each: int) -> tuple[Tensor, Tensor]:
    """(R,) twice: pictures and things, up to `each` of a picture."""
    drawn = torch.rand(real.shape, device=real.device) * real
    chosen = torch.zeros_like(real).scatter_(1, drawn.topk(each, dim=1).indices, True) & real
    image, thing = chosen.nonzero().unbind(1)
    return image, thing


def somewhere(region: Tensor) -> Tensor:
    """(R, 2) x and y in 0..1: a random place in each region (R, s, s) of 0 and 1, most likely deep inside.

    In an empty region, anywhere.
    """
    side = region.shape[-1] // 2
    coarse = F.avg_pool2d(region[:, None], 2)
    depth = F.avg_pool2d(coarse, 5, stride=1, padding=2)
    # A cell that is not all of the region's is no place for a click, unless there is no other.
    weight = ((coarse == 1) * depth**4 + 1e-6 * coarse).flatten(1) + 1e-12
    index = (weight.log() - torch.rand_like(weight).log().neg().log()).argmax(1)
    place = torch.stack((index % side, index // side), dim=1).float() + 0.5
    return place / side


def first(learner: Learner, truth: Tensor, image: Tensor, boxes: Tensor) -> Prompts:
    """A click, a box or a mask for each object."""
    rows, device = len(truth), truth.device
    points = torch.zeros((rows, _SLOTS, 2), device=device)
    labels = torch.full((rows, _SLOTS), PADDING, dtype=torch.int32, device=device)
    draw = torch.rand(rows, device=device)
    boxed, masked = draw < _BOXES, draw > 1 - _MASKS
    size = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
    moved = boxes + size * (torch.rand(boxes.shape, device=device) - 0.5) * 0.1
    points[:, _BOX] = moved.clamp(0, 1).unflatten(1, (2, 2))
    points[:, 2] = somewhere(truth)
    labels[boxed, 0], labels[boxed, 1] = TOP_LEFT, BOTTOM_RIGHT
    labels[~boxed & ~masked, 2] = POSITIVE
    labels[~masked, -1] = NO_POINT
    side = learner.sizes.mask_size
    return Prompts(image, points, labels, _sketch(truth, side), masked)


def _sketch(truth: Tensor, side: int) -> Tensor:
    """(R, side, side) logits: the masks as a person or an earlier answer might give them, a little off."""
    coarse = F.interpolate(truth[:, None], (side, side), mode="area")
    rough = F.avg_pool2d(coarse, 5, stride=1, padding=2) + 0.35 * (
        F.interpolate(torch.rand((len(truth), 1, 8, 8), device=truth.device), (side, side), mode="bilinear")
        - 0.5
    )
    return torch.where(rough[:, 0] > 0.5, _SURE, -_SURE)


def _answer(
    learner: Learner, seen: Interactive, prompts: Prompts, truth: Tensor, extra: float
) -> tuple[Tensor, Tensor]:
    """(R, 4g, 4g) logits as they would be served, and the loss."""
    objects = learner.student.objects
    conditioned = (seen.x1 + objects.no_memory.reshape(1, -1, 1, 1))[prompts.image]
    logits, guess, score, _ = decoded(learner, conditioned, seen, prompts)
    return chosen(logits, guess), answer_loss(logits, guess, score, truth, extra)


def decoded(
    learner: Learner, conditioned: Tensor, seen: Interactive, prompts: Prompts
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What the prompt decoder gives for R objects: logits, predicted IoU, object score and tokens; float32.

    Args:
        conditioned: (R, D, g, g).
    """
    found = learner.student.objects.decode(
        conditioned,
        seen.x2,
        seen.x4,
        prompts.image,
        prompts.points,
        prompts.labels,
        prompts.mask,
        prompts.has_mask,
    )
    logits, guess, score, tokens = (each.float() for each in found)
    return logits, guess, score, tokens


def best_proposal(quality: Tensor) -> Tensor:
    """(R, 4) -> (R,): the best mask but the first, which is for clear prompts."""
    return 1 + quality[:, 1:].argmax(1)


def chosen(logits: Tensor, guess: Tensor) -> Tensor:
    """(R, 4, s, s), (R, 4) -> (R, s, s): the proposal of the best predicted IoU. No gradient."""
    return logits[torch.arange(len(logits), device=logits.device), best_proposal(guess)].detach()


def answer_loss(logits: Tensor, guess: Tensor, score: Tensor, truth: Tensor, extra: float) -> Tensor:
    """The loss of the first mask, the best of the others, all predicted IoU, and the object's score.

    Of an object that is not there, an empty truth, the score alone counts.
    """
    rows = torch.arange(len(logits), device=logits.device)
    true_iou = torch.stack([losses.iou(logits[:, mask], truth) for mask in range(logits.shape[1])], dim=1)
    best = best_proposal(true_iou)
    extra = min(extra, _EXTRA)
    loss = losses.mask_loss(logits[:, 0], truth, extra) + losses.mask_loss(logits[rows, best], truth, extra)
    ranking = (guess - true_iou).abs().mean(1)
    there = truth.flatten(1).any(1).float()
    known = F.binary_cross_entropy_with_logits(score[:, 0], there)
    return ((loss + ranking) * there).sum() / there.sum().clamp(min=1) + _THERE * known


def corrected(prompts: Prompts, logits: Tensor, truth: Tensor, slot: int) -> Prompts:
    """One more click, where the answer is wrong, and often the answer as the mask.

    Args:
        logits: (R, 4g, 4g), the answer.
        slot: the click's among the points.
    """
    found = F.interpolate(logits[:, None], truth.shape[-2:], mode="bilinear")[:, 0] > 0
    missed, extra = (truth > 0.5) & ~found, (truth < 0.5) & found
    inside = missed.flatten(1).sum(1) >= extra.flatten(1).sum(1)
    points, labels = prompts.points.clone(), prompts.labels.clone()
    points[:, slot] = somewhere(torch.where(inside[:, None, None], missed, extra).float())
    labels[:, slot] = torch.where(inside, POSITIVE, NEGATIVE).int()
    labels[:, -1] = NO_POINT
    kept = torch.rand(len(truth), device=truth.device) < 0.5
    return Prompts(prompts.image, points, labels, logits.clamp(-32, 32), kept)
