"""The video memory of tracked objects: what is kept of a frame, and what later frames make of it."""

# mypy: allow-untyped-calls

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers.models.sam3_tracker_video import modeling_sam3_tracker_video as sam3

from model_store.networks.memory_attention import DenseMemoryAttention
from model_store.networks.memory_encoder import MemoryEncoder
from model_store.networks.perceiver import EfficientMemoryAttention, PerceiverResampler
from model_store.networks.positions import sine_positions
from model_store.networks.sizes import Sizes
from model_store.registry import MemoryKind

# The share of their positions that features take with them into the attention.
_PLACED = 0.1


@dataclass(frozen=True, slots=True)
class Past:
    """What is kept of the objects' earlier frames: a row per object, padded where they differ in age."""

    # (B, F, T, M) of F >= 1 frames, as `VideoMemory.encode` gave them.
    memory: Tensor
    # (B, F) integers: 1 for the latest frame, up to `MemorySizes.frames - 1`; 0 for a conditioning frame.
    ages: Tensor
    # (B, F) bool, False for padding.
    memory_valid: Tensor
    # (B, P, D) of P >= 1 frames, as `VideoMemory.pointers` gave them; `no_pointer` for an absent object.
    pointers: Tensor
    # (B, P) float32: frames ago, as a share of the longest time that counts.
    pointer_ages: Tensor
    # (B, P) bool, False for padding.
    pointers_valid: Tensor

    @property
    def empty(self) -> Tensor:
        """(B,) bool: nothing is kept of the object."""
        return ~(self.memory_valid.any(1) | self.pointers_valid.any(1))


@dataclass(frozen=True, slots=True)
class Tokens:
    """Tokens that are attended to."""

    # (B, Q, M) both.
    values: Tensor
    places: Tensor
    # (B, Q) bool, False for padding.
    valid: Tensor


class VideoMemory(nn.Module):
    """What both kinds of memory have in common."""

    positions: Tensor
    # Of a frame.
    tokens: int

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        memory, width = sizes.memory, sizes.width
        assert width % memory.width == 0, (
            f"a pointer of {width} channels is no whole number of {memory.width}"
        )
        self.grid, self.width = sizes.grid, memory.width
        self.encoder = MemoryEncoder(sizes)
        # A row per age, the last one for conditioning frames.
        self.ages = nn.Parameter(torch.zeros(memory.frames, 1, 1, memory.width))
        self.pointer = sam3.Sam3TrackerVideoFeedForward(width, width, width, 3)
        self.pointer_age = nn.Linear(width, memory.width)
        # The pointer of an object that is not in the picture.
        self.no_pointer = nn.Parameter(torch.zeros(1, width))
        self.mask_prompt = nn.Conv2d(1, 1, 4, stride=4)
        self.register_buffer("positions", sine_positions(width, sizes.grid), persistent=False)

    def pointers(self, tokens: Tensor) -> Tensor:
        """The prompt decoder's mask tokens (B, masks, D) -> the object pointer of each, (B, masks, D)."""
        pointers: Tensor = self.pointer(tokens)
        return pointers

    def no_past(self, rows: int) -> Past:
        """Of objects of which nothing is kept."""
        none = torch.zeros((rows, 1), dtype=torch.bool, device=self.no_pointer.device)
        return Past(
            memory=self.no_pointer.new_zeros((rows, 1, self.tokens, self.width)),
            ages=none.int(),
            memory_valid=none,
            pointers=self.no_pointer.new_zeros((rows, 1, self.no_pointer.shape[1])),
            pointer_ages=none.float(),
            pointers_valid=none,
        )

    def logits_of(self, mask: Tensor) -> Tensor:
        """A given mask (B, 16g, 16g) of 0 and 1 -> (B, 4g, 4g), the mask for the prompt decoder's pointer."""
        logits: Tensor = self.mask_prompt(mask[:, None])[:, 0]
        return logits

    def pointer_places(self, ages: Tensor) -> Tensor:
        """Ages of pointers as in `Past`, (B, P) -> their positions, (B, P, M)."""
        sines = sam3.get_1d_sine_pe(ages, self.pointer_age.in_features)
        places: Tensor = self.pointer_age(sines)
        return places

    def encode(self, features_x1: Tensor, logits: Tensor, prompted: Tensor, object_score: Tensor) -> Tensor:
        """What is kept of a frame: (B, T, M).

        Args:
            features_x1: (B, D, g, g).
            logits, prompted: as `MemoryEncoder.level` takes them.
            object_score: (B, 1) logit of the object being in the picture.
        """
        return self.keep(features_x1, self.encoder.level(logits, prompted), object_score)

    def keep(self, features_x1: Tensor, levels: Tensor, object_score: Tensor) -> Tensor:
        """As `encode`, of what `MemoryEncoder.level` gave."""
        raise NotImplementedError

    def condition(self, features_x1: Tensor, past: Past, no_memory: Tensor) -> Tensor:
        """The features of the objects' frame with their past: (B, D, g, g).

        Args:
            features_x1: (B, D, g, g).
            no_memory: (1, 1, D), the prompt decoder's.
        """
        raise NotImplementedError

    def _cells(self, features_x1: Tensor) -> Tensor:
        """(B, D, g, g) -> (B, g * g, D), positions added."""
        return (features_x1 + _PLACED * self.positions).flatten(2).transpose(1, 2)

    def _map(self, cells: Tensor) -> Tensor:
        conditioned: Tensor = cells.transpose(1, 2).unflatten(2, (self.grid, self.grid))
        return conditioned

    def _age_places(self, past: Past) -> Tensor:
        """(B, F, 1, M)."""
        return self.ages[:, 0].roll(1, 0)[past.ages.long()]

    def _pointer_tokens(self, past: Past) -> Tokens:
        """The pointers, cut to the width of the memory, and an empty token where nothing is kept."""
        values = past.pointers.unflatten(-1, (-1, self.width))
        places = self.pointer_places(past.pointer_ages)[:, :, None].expand(values.shape)
        valid = past.pointers_valid[:, :, None].expand(values.shape[:3])
        empty = torch.zeros_like(values[:, 0, :1])
        return Tokens(
            torch.cat((values.flatten(1, 2), empty), dim=1),
            torch.cat((places.flatten(1, 2), empty), dim=1),
            torch.cat((valid.flatten(1), past.empty[:, None]), dim=1),
        )

    def _valid(self, past: Past, pointers: Tokens) -> Tensor:
        """(B, F * T + Q)."""
        cells = past.memory_valid[:, :, None].expand(past.memory.shape[:3]).flatten(1)
        return torch.cat((cells, pointers.valid), dim=1)


class DenseMemory(VideoMemory):
    """SAM3's: a token per cell, T = g * g."""

    memory_positions: Tensor

    def __init__(self, sizes: Sizes) -> None:
        super().__init__(sizes)
        self.tokens = sizes.grid**2
        self.dense_attention = DenseMemoryAttention(sizes)
        positions = sine_positions(sizes.memory.width, sizes.grid).flatten(2).transpose(1, 2)
        self.register_buffer("memory_positions", positions, persistent=False)

    def keep(self, features_x1: Tensor, levels: Tensor, object_score: Tensor) -> Tensor:
        """As the parent's."""
        dense: Tensor = self.encoder(features_x1, levels, object_score)
        return dense.flatten(2).transpose(1, 2)

    def condition(self, features_x1: Tensor, past: Past, no_memory: Tensor) -> Tensor:
        """As the parent's; features without a past are the raw ones and `no_memory`."""
        pointers = self._pointer_tokens(past)
        conditioned = self.dense_attention(
            self._cells(features_x1),
            past.memory,
            self.memory_positions + self._age_places(past),
            pointers.values,
            pointers.places,
            self._valid(past, pointers),
        )
        first = features_x1 + no_memory[..., None].transpose(1, 2)
        return torch.where(past.empty[:, None, None, None], first, self._map(conditioned))


class PerceiverMemory(VideoMemory):
    """Stage 2's: a few tokens per frame, none of which has a position in it."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__(sizes)
        self.tokens = sizes.memory.latents + sizes.memory.windows**2
        self.perceiver = PerceiverResampler(sizes)
        self.attention = EfficientMemoryAttention(sizes)
        self.projection = nn.Linear(self.width, sizes.width)
        self.place_projection = nn.Linear(self.width, sizes.width)

    def keep(self, features_x1: Tensor, levels: Tensor, object_score: Tensor) -> Tensor:
        """As the parent's."""
        tokens: Tensor = self.perceiver(self.encoder(features_x1, levels, object_score))
        return tokens

    def condition(self, features_x1: Tensor, past: Past, no_memory: Tensor) -> Tensor:
        """As the parent's; features without a past attend to an empty token, and `no_memory` is not used."""
        pointers = self._pointer_tokens(past)
        places = self._age_places(past).expand(past.memory.shape).flatten(1, 2)
        conditioned = self.attention(
            self._cells(features_x1),
            self.positions[0].flatten(1).T,
            self.projection(torch.cat((past.memory.flatten(1, 2), pointers.values), dim=1)),
            self.place_projection(torch.cat((places, pointers.places), dim=1)),
            self._valid(past, pointers),
        )
        return self._map(conditioned)


MEMORIES: Mapping[MemoryKind, Callable[[Sizes], VideoMemory]] = {
    "dense": DenseMemory,
    "perceiver": PerceiverMemory,
}
