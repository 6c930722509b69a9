"""The student while it learns: its parts run together, and heads that only training needs."""

# mypy: allow-untyped-calls

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from model_store.demo import losses
from model_store.demo.attention import write_out
from model_store.demo.beginning import begin
from model_store.demo.beginning_memory import begin_memory
from model_store.demo.losses import Pairs
from model_store.demo.plan import SLOW
from model_store.networks.detector import Detections
from model_store.networks.fold import product
from model_store.networks.geometry import PADDING
from model_store.networks.sizes import Sizes
from model_store.networks.student import Abilities, Student

Batch = dict[str, Tensor]

# Deviation of the prompt decoder's finer maps at the start.
_FINER = 0.1
# Learning rates by the beginning of a parameter's name, as shares of the common one; the first that fits. The
# interactive neck learns slowly at first, or clicks are never looked at: it would learn to show every object,
# in any case. What is behind it is new when crops are done, and faster is worse for trunk and text.
PACES = {
    "student.interactive_neck.": SLOW,
    "student.objects.decoder.conv_s": SLOW,
    "student.objects.": 2.0,
    "student.memory.": 2.0,
}


@dataclass(frozen=True, slots=True)
class Interactive:
    """What the prompt decoder takes of N pictures: (N, D, g, g), (N, D/4, 2g, 2g), (N, D/8, 4g, 4g)."""

    x1: Tensor
    x2: Tensor
    x4: Tensor


class Learner(nn.Module):
    """A student with random weights and the heads of its auxiliary losses."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.student = Student(sizes, Abilities(memory="perceiver"))
        begin(self.student)
        write_out(self.student)
        for module in self.student.modules():
            if isinstance(module, nn.Dropout):
                # No scene is seen twice.
                module.p = 0.0
        width, channels = sizes.width, sizes.embedding_channels
        # Where the concept is, seen from the encoded map alone.
        self.semantic = nn.Conv2d(width, 1, 1)
        # How alike features before any prompt are to a text: of a cell, a scale's logarithm and a bias; of a
        # thing, a scale's logarithm.
        self.alignment = nn.Parameter(torch.tensor([3.0, -4.0]))
        self.naming = nn.Parameter(torch.tensor(2.5))
        # Crops: which 4 x 4 parts of a cell are the object.
        self.outline = nn.Conv2d(channels, 16, 1)
        # Whether the necks' scales are set, and whether the memory has begun.
        self.settled: Tensor
        self.remembers: Tensor
        self.register_buffer("settled", torch.tensor(False))
        self.register_buffer("remembers", torch.tensor(False))

    def scales(self, pixels: Tensor) -> dict[str, Tensor]:
        """What the necks' outputs are too large by, by the name of the layer that makes each.

        Crops leave embeddings of any size, and attention that adds positions or tokens to features of a
        deviation of 10 sees neither: queries become all alike. `settle` makes it 1, as arXiv 1511.06422
        does for every layer. The prompt decoder's finer maps are to be smaller than what it adds to them.

        Args:
            pixels: (N, S, S, 3) uint8.
        """
        embedding = self.student.image(pixels)
        for_concepts = enumerate(self.student.neck(embedding))
        too_large = {f"student.neck.levels.{index}.proj2": level.std() for index, level in for_concepts}
        seen = self.interactive(embedding)
        return too_large | {
            "student.interactive_neck.levels.2.proj2": seen.x1.std(),
            "student.objects.decoder.conv_s1": seen.x2.std() / _FINER,
            "student.objects.decoder.conv_s0": seen.x4.std() / _FINER,
        }

    def settle(self, scales: Mapping[str, Tensor]) -> None:
        """Divides the weights and biases of those layers by their scales."""
        for name, scale in scales.items():
            for parameter in self.get_submodule(name).parameters():
                parameter.data /= scale
        self.settled.fill_(True)

    def seen(self, pixels: Tensor) -> Tensor:
        """The image embedding, learning nothing: a batch of a few clips is no sample to normalise by."""
        image = self.student.image
        trains = image.training
        image.eval()
        with torch.no_grad():
            embedding: Tensor = image(pixels)
        image.train(trains)
        return embedding

    def begin_memory(self, pixels: Tensor, masks: Tensor) -> None:
        """Sets the memory's weights by pictures (N, S, S, 3) uint8 and their things (N, K, s, s) float32."""
        x1 = self.interactive(self.seen(pixels)).x1.float().detach()
        largest = masks.flatten(2).sum(2).argmax(1)
        begin_memory(self.student, x1, masks[torch.arange(len(masks), device=masks.device), largest])
        self.remembers.fill_(True)

    def crops(self, pixels: Tensor, masks: Tensor, names: Tensor, tokens: Tensor) -> Tensor:
        """The loss of telling single objects apart and from their background.

        Args:
            pixels: (B, s, s, 3) uint8.
            masks: (B, s / 4, s / 4) float32.
            names: (B,) int64, the row of `tokens` that is the object's name.
            tokens: (C, T) int32.
        """
        with _unrecorded(self.student.image):
            embedding = self.student.image(pixels).float()
        outline = F.pixel_shuffle(self.outline(embedding), 4)[:, 0].float()
        x1 = self.student.neck.levels[2](embedding)
        named = self._named(x1, masks[:, None], names[:, None], tokens)
        return named + losses.mask_loss(outline, masks, extra=0.0).mean()

    def _named(self, x1: Tensor, masks: Tensor, names: Tensor, tokens: Tensor) -> Tensor:
        """The loss of telling things by the mean of their features, which a text's is to be like.

        It is in the detector's own space, for attention to find what a text names: without it detection
        learns nothing for hundreds of steps.

        Args:
            x1: (N, D, g, g).
            masks: (N, K, s, s) float32.
            names: (N, K) int64, the row of `tokens` that is the thing's name; -1 for none.
            tokens: (C, T) int32.
        """
        inside = F.interpolate(masks, x1.shape[-2:], mode="area")
        pooled = torch.einsum("ndhw,nkhw->nkd", x1.float(), inside)[names >= 0]
        features, valid = self.student.text(tokens)
        text = _mean(features, valid)
        logits = self.naming.exp() * F.normalize(pooled, dim=1) @ F.normalize(text, dim=1).T
        return F.cross_entropy(logits, names[names >= 0], label_smoothing=0.05)

    def concepts(self, embedding: Tensor, batch: Batch, extra: float, most: int) -> tuple[Tensor, Tensor]:
        """The loss of finding concepts, and that of their masks.

        Args:
            embedding: the image encoder's output for N pictures.
            batch: what `tasks.sample` gave, stacked.
            extra: see `losses.cross_entropy`.
            most: rows whose masks are looked at.
        """
        x4, x2, x1 = self.student.neck(embedding)
        count, rows = batch["tokens"].shape[:2]
        image = torch.arange(count, device=x1.device).repeat_interleave(rows)
        things, wanted = batch["boxes"][image], batch["wanted"].flatten(0, 1)
        found = self._detect(x1[image], batch)
        loss, pairs = losses.detection(found, things, wanted)
        truth = self._truth(batch["masks"].float(), wanted, rows)
        seen = self.semantic(found.encoded)[:, 0].float()
        loss = loss + 2 * F.binary_cross_entropy_with_logits(seen, truth) + losses.dice(seen, truth).mean()
        loss = loss + self._aligned(x1[image], found, batch["exemplar_labels"].flatten(0, 1), truth)
        loss = loss + self._named(x1, batch["masks"].float(), batch["names"], batch["phrases"])
        return loss, self._masks(found, pairs, (x2, x4), batch["masks"], (image, extra, most))

    def _aligned(self, x1: Tensor, found: Detections, labels: Tensor, truth: Tensor) -> Tensor:
        """The loss of finding the cells of what a text names by their likeness alone."""
        context = self.sizes.text.context
        named = (labels == PADDING).all(1)
        text = _mean(found.prompt[:, :context], found.prompt_valid[:, :context])
        alike = torch.einsum("rd,rdhw->rhw", F.normalize(text, dim=1), F.normalize(x1.float(), dim=1))
        logits = self.alignment[0].exp() * alike + self.alignment[1]
        each = F.binary_cross_entropy_with_logits(logits, truth, reduction="none").mean((1, 2))
        each = 2 * each + losses.dice(logits, truth)
        return (each * named).sum() / named.sum().clamp(min=1)

    def _truth(self, masks: Tensor, wanted: Tensor, rows: int) -> Tensor:
        """(R, g, g): the share of each cell that is any of the wanted things."""
        small = F.interpolate(masks, (self.sizes.grid, self.sizes.grid), mode="area")
        every = small.repeat_interleave(rows, dim=0) * wanted[..., None, None]
        return every.sum(1).clamp(max=1)

    def _detect(self, x1: Tensor, batch: Batch) -> Detections:
        features, valid = self.student.text(batch["tokens"].flatten(0, 1))
        none = torch.full((len(x1), 1), PADDING, dtype=torch.int32, device=x1.device)
        points = x1.new_zeros((len(x1), 1, 2))
        boxes, labels = batch["exemplar_boxes"].flatten(0, 1), batch["exemplar_labels"].flatten(0, 1)
        return self.student.detector.detect(x1, features, valid, points, none, boxes, labels)

    def _masks(
        self,
        found: Detections,
        pairs: Pairs,
        finer: tuple[Tensor, Tensor],
        masks: Tensor,
        rest: tuple[Tensor, float, int],
    ) -> Tensor:
        """The loss of the masks of matched queries, of at most `most` rows."""
        image, extra, most = rest
        rows = pairs.row.unique()[:most]
        if not len(rows):
            return found.queries.sum() * 0
        x2, x4 = finer
        each = [(pairs.row == row).nonzero()[:, 0] for row in rows]
        longest = max(len(own) for own in each)
        queries = found.queries.new_zeros((len(rows), longest, self.sizes.width))
        for index, own in enumerate(each):
            queries[index, : len(own)] = found.queries[-1][rows[index], pairs.query[own]]
        logits = self.student.masks(
            found.encoded[rows],
            found.prompt[rows],
            found.prompt_valid[rows],
            x2[image[rows]],
            x4[image[rows]],
            queries,
        )
        kept = torch.cat([logits[index, : len(own)] for index, own in enumerate(each)]).float()
        order = torch.cat(each)
        truth = masks[image[pairs.row[order]], pairs.thing[order]].float()
        return losses.mask_loss(kept, truth, extra).mean()

    def interactive(self, embedding: Tensor) -> Interactive:
        """As `InteractiveFeatures`, with each level's last layer and the projection after it as one."""
        levels: Any = self.student.interactive_neck.levels
        decoder: Any = self.student.objects.decoder
        x4, x2, x1 = levels
        return Interactive(
            x1(embedding),
            _projected(x2, decoder.conv_s1, embedding),
            _projected(x4, decoder.conv_s0, embedding),
        )


def _mean(features: Tensor, valid: Tensor) -> Tensor:
    """(R, T, D) of tokens, (R, T) bool -> (R, D) float32."""
    shown = valid[..., None].float()
    return (features.float() * shown).sum(1) / shown.sum(1)


def _projected(level: Any, pointwise: nn.Conv2d, embedding: Tensor) -> Tensor:
    """The 1x1 convolution of the level's output: the product of the two is an eighth of the work."""
    hidden = embedding
    for layer in level.scale_layers:
        hidden = layer(hidden)
    weight, bias = product(level.proj2, pointwise, torch.float32)
    return F.conv2d(level.proj1(hidden), weight, bias, padding=1)


@contextmanager
def _unrecorded(network: nn.Module) -> Iterator[None]:
    """Means and deviations of what runs through it are not kept: serving sees pictures, which differ."""
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
