"""The video memory of a small student: padding, order and absence."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from model_store.networks.memory import MEMORIES, Past, VideoMemory
from model_store.networks.sizes import Sizes
from model_store.registry import MemoryKind
from model_store.synthetic import weights

KINDS: tuple[MemoryKind, ...] = ("dense", "perceiver")
_OBJECTS, _FRAMES, _POINTERS = 2, 3, 4


@pytest.fixture(scope="module", params=KINDS)
def memory(request: pytest.FixtureRequest, sizes: Sizes) -> VideoMemory:
    return _memory(sizes, request.param)


def _memory(sizes: Sizes, kind: MemoryKind) -> VideoMemory:
    part = MEMORIES[kind](sizes).requires_grad_(False)
    part.load_state_dict(weights({name: tensor.shape for name, tensor in part.state_dict().items()}))
    return part


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
def test_padding_changes_nothing(memory: VideoMemory, sizes: Sizes) -> None:
    past, features, none = _past(memory, sizes), _features(sizes, 9), _no_memory(sizes)
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
    memory: VideoMemory, sizes: Sizes
) -> None:
    past, features, none = _past(memory, sizes), _features(sizes, 9), _no_memory(sizes)
    turned = replace(past, memory=past.memory.flip(1), ages=past.ages.flip(1))
    expected = memory.condition(features, past, none)
    assert torch.allclose(memory.condition(features, turned, none), expected, atol=1e-5)
    older = replace(past, ages=past.ages.flip(1))
    assert (memory.condition(features, older, none) - expected).abs().max() > 1e-3


@torch.inference_mode()
def test_objects_are_alone_in_their_rows(memory: VideoMemory, sizes: Sizes) -> None:
    """And one without a past stands beside one that has it."""
    past, features, none = _past(memory, sizes), _features(sizes, 9), _no_memory(sizes)
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
def test_an_absent_object_is_remembered_as_such(memory: VideoMemory, sizes: Sizes) -> None:
    features, mask = _features(sizes, 1), torch.zeros(_OBJECTS, sizes.mask_size, sizes.mask_size)
    prompted = torch.zeros(_OBJECTS, dtype=torch.bool)
    there, gone = (
        memory.encode(features, mask, prompted, score * torch.ones(_OBJECTS, 1)) for score in (1, -1)
    )
    assert there.shape[0] == _OBJECTS and there.shape[2] == sizes.memory.width
    assert (there - gone).abs().max() > 1e-3


@torch.inference_mode()
def test_a_first_frame_is_dense_memorys_own_and_the_perceivers_empty_token(sizes: Sizes) -> None:
    none, features = _no_memory(sizes), _features(sizes, 9)
    for kind in KINDS:
        memory = _memory(sizes, kind)
        past = _past(memory, sizes)
        nothing = replace(
            past,
            memory_valid=torch.zeros_like(past.memory_valid),
            pointers_valid=torch.zeros_like(past.pointers_valid),
        )
        first = memory.condition(features, nothing, none)
        raw = torch.allclose(first, features + 0.3)
        assert raw == (kind == "dense")
        # What stands in the padding is not looked at.
        emptied = replace(nothing, memory=torch.ones_like(past.memory), pointers=past.pointers + 1)
        assert torch.allclose(memory.condition(features, emptied, none), first, atol=1e-5)


@torch.inference_mode()
def test_a_mask_of_the_size_of_memories_is_taken_as_it_is(memory: VideoMemory, sizes: Sizes) -> None:
    torch.manual_seed(2)
    mask = torch.randn(2, sizes.remembered_size, sizes.remembered_size)
    found = memory.encoder.level(mask, torch.tensor([True, False]))
    assert torch.equal(found[0], torch.where(mask[0] > 0, 10.0, -10.0))
    assert torch.allclose(found[1], 20 * mask[1].sigmoid() - 10)
    smaller = mask[:, : sizes.mask_size, : sizes.mask_size]
    assert memory.encoder.level(smaller, torch.tensor([True, False])).shape == mask.shape


def test_every_weight_is_trained_and_training_gives_what_serving_does(
    memory: VideoMemory, sizes: Sizes
) -> None:
    """Though it attends by another route, and some objects have no past."""
    features, none = _features(sizes, 9), _no_memory(sizes)
    mask = torch.randn(_OBJECTS, sizes.remembered_size, sizes.remembered_size)
    memory.requires_grad_(True)
    try:
        past = _past(memory, sizes)
        score = -torch.ones(_OBJECTS, 1)
        gone = memory.encode(features, past.memory.mean() + mask, torch.tensor([True, False]), score)
        past = replace(
            past,
            memory=past.memory + gone[:, None],
            memory_valid=torch.tensor([[True] * _FRAMES, [False] * _FRAMES]),
            pointers_valid=torch.tensor([[True] * _POINTERS, [False] * _POINTERS]),
        )
        trained = memory.condition(features, past, none)
        prompt = memory.logits_of(mask)
        (trained.square().mean() + prompt.square().mean()).backward()
        grads = {name: each.grad for name, each in memory.named_parameters()}
    finally:
        memory.requires_grad_(False)
    # The caller puts it in the place of an absent object's pointer.
    untouched = {name for name, grad in grads.items() if grad is None}
    assert untouched == {"no_pointer"}
    assert all(grad.isfinite().all() for grad in grads.values() if grad is not None)
    with torch.inference_mode():
        served = memory.condition(features, past, none)
    assert torch.allclose(trained, served, atol=1e-5)


def test_the_perceiver_keeps_as_many_tokens_as_its_numbers_say(sizes: Sizes) -> None:
    memory = sizes.memory
    with torch.inference_mode():
        for changed in (memory, replace(memory, latents=0), replace(memory, windows=0)):
            made = _memory(replace(sizes, memory=changed), "perceiver")
            kept = _past(made, sizes).memory.shape
            assert kept[2] == changed.latents + changed.windows**2 and kept[3] == memory.width
    assert set(MEMORIES) == set(KINDS)
