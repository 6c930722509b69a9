"""The video memory of a small student: padding, order and absence."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from model_store.networks.memory import MEMORIES, MemoryKind, Past, VideoMemory
from model_store.networks.sizes import MemorySizes, Sizes
from model_store.networks.student import Abilities, blank, build, shapes
from model_store.synthetic import weights

KINDS: tuple[MemoryKind, ...] = ("dense", "perceiver")
_OBJECTS, _FRAMES, _POINTERS = 2, 3, 4


@pytest.fixture(scope="module")
def small(sizes: Sizes) -> Sizes:
    """Numbers of which none is a full student's."""
    memory = MemorySizes(
        width=sizes.width // 2,
        fuser_feed_forward=24,
        dense_feed_forward=24,
        dense_layers=2,
        latents=5,
        windows=3,
        perceiver_head_width=8,
        perceiver_feed_forward=24,
        attention_heads=2,
        attention_feed_forward=24,
    )
    return replace(sizes, memory=memory)


def _memory(sizes: Sizes, kind: MemoryKind) -> VideoMemory:
    abilities = Abilities(concepts=False, memory=kind)
    made: Any = build(sizes, weights(shapes(blank(sizes, abilities))), abilities)
    part: VideoMemory = made.memory
    return part


@pytest.fixture(scope="module", params=KINDS)
def memory(request: pytest.FixtureRequest, small: Sizes) -> VideoMemory:
    return _memory(small, request.param)


def _features(sizes: Sizes, seed: int) -> Tensor:
    torch.manual_seed(seed)
    return torch.randn(_OBJECTS, sizes.width, sizes.grid, sizes.grid)


def _past(memory: VideoMemory, sizes: Sizes) -> Past:
    masks = torch.randn(_OBJECTS, sizes.mask_size, sizes.mask_size)
    frames = [
        memory.encode(_features(sizes, seed), masks, torch.tensor([True, False]), torch.ones(_OBJECTS, 1))
        for seed in range(_FRAMES)
    ]
    pointers = memory.pointers(torch.randn(_OBJECTS, _POINTERS, sizes.width))
    return Past(
        memory=torch.stack(frames, dim=1),
        ages=torch.tensor([[0, 2, 1]]).expand(_OBJECTS, -1),
        memory_valid=torch.ones(_OBJECTS, _FRAMES, dtype=torch.bool),
        pointers=pointers,
        pointer_ages=torch.tensor([[1.0, 0.4, 0.2, 0.1]]).expand(_OBJECTS, -1),
        pointers_valid=torch.ones(_OBJECTS, _POINTERS, dtype=torch.bool),
    )


def _no_memory(sizes: Sizes) -> Tensor:
    return torch.full((1, 1, sizes.width), 0.3)


@torch.inference_mode()
def test_padding_changes_nothing(memory: VideoMemory, small: Sizes) -> None:
    past, features, none = _past(memory, small), _features(small, 9), _no_memory(small)
    padded = Past(
        memory=torch.cat((past.memory, 7 * torch.ones_like(past.memory[:, :1])), dim=1),
        ages=torch.cat((past.ages, torch.ones_like(past.ages[:, :1])), dim=1),
        memory_valid=torch.cat((past.memory_valid, torch.zeros_like(past.memory_valid[:, :1])), dim=1),
        pointers=torch.cat((past.pointers, 7 * torch.ones_like(past.pointers[:, :1])), dim=1),
        pointer_ages=torch.cat((past.pointer_ages, past.pointer_ages[:, :1]), dim=1),
        pointers_valid=torch.cat((past.pointers_valid, torch.zeros_like(past.pointers_valid[:, :1])), dim=1),
    )
    expected = memory.condition(features, past, none)
    assert torch.allclose(memory.condition(features, padded, none), expected, atol=1e-5)


@torch.inference_mode()
def test_the_order_of_remembered_frames_means_nothing_and_their_age_does(
    memory: VideoMemory, small: Sizes
) -> None:
    past, features, none = _past(memory, small), _features(small, 9), _no_memory(small)
    turned = replace(past, memory=past.memory.flip(1), ages=past.ages.flip(1))
    expected = memory.condition(features, past, none)
    assert torch.allclose(memory.condition(features, turned, none), expected, atol=1e-5)
    older = replace(past, ages=past.ages.flip(1))
    assert (memory.condition(features, older, none) - expected).abs().max() > 1e-3


@torch.inference_mode()
def test_objects_are_alone_in_their_rows(memory: VideoMemory, small: Sizes) -> None:
    """And one without a past stands beside one that has it."""
    past, features, none = _past(memory, small), _features(small, 9), _no_memory(small)
    valid = torch.tensor([True, False])
    mixed = replace(
        past,
        memory_valid=past.memory_valid & valid[:, None],
        pointers_valid=past.pointers_valid & valid[:, None],
    )
    both, one = memory.condition(features, past, none), memory.condition(features, mixed, none)
    assert torch.allclose(one[0], both[0], atol=1e-5)
    assert torch.isfinite(one).all() and (one[1] - both[1]).abs().max() > 1e-3


@torch.inference_mode()
def test_an_absent_object_is_remembered_as_such(memory: VideoMemory, small: Sizes) -> None:
    features, mask = _features(small, 1), torch.zeros(_OBJECTS, small.mask_size, small.mask_size)
    prompted = torch.zeros(_OBJECTS, dtype=torch.bool)
    there, gone = (
        memory.encode(features, mask, prompted, score * torch.ones(_OBJECTS, 1)) for score in (1, -1)
    )
    assert there.shape[0] == _OBJECTS and there.shape[2] == small.memory.width
    assert (there - gone).abs().max() > 1e-3


def test_the_perceiver_keeps_as_many_tokens_as_its_numbers_say(small: Sizes) -> None:
    with torch.inference_mode():
        assert _past(_memory(small, "perceiver"), small).memory.shape[2] == 5 + 3 * 3
    assert set(MEMORIES) == set(KINDS)
