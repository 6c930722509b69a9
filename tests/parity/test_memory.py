"""The video memory beside the reference, in torch: part by part on unit inputs, and frame by frame."""

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from model_store.networks.memory import DenseMemory, PerceiverMemory
from model_store.networks.student import Student
from tests.parity.goldens import FEATURES, MASKS
from tests.parity.memory import Track, features, golden, largest, remembering
from tests.released import weight_recipe

VARIANT = "es-ev-m"
# Frames of a track: what every run sees, and all that the reference has.
SOME, ALL_DENSE, ALL_PERCEIVER = 2, 8, 6

Unit = Callable[..., Tensor]


@pytest.fixture(scope="module")
def unit(reference: Path) -> Unit:
    """The recipe's input of that name and shape."""
    recipe = weight_recipe(reference)
    return lambda name, *shape: torch.from_numpy(recipe.unit(name, np.prod(shape))).float().reshape(shape)


@pytest.fixture(scope="module")
def dense(reference: Path) -> Student:
    return remembering(reference, VARIANT, "dense")


@pytest.fixture(scope="module")
def perceiver(reference: Path) -> Student:
    return remembering(reference, VARIANT, "perceiver")


@pytest.fixture(scope="module")
def frame(reference: Path, dense: Student) -> Callable[[int], tuple[Tensor, ...]]:
    """A frame's features, which are those of both students."""
    return cache(lambda number: features(dense, reference, number))


@torch.inference_mode()
def test_the_perceivers_tokens(perceiver: Student, unit: Unit, reference: Path) -> None:
    assert isinstance(perceiver.memory, PerceiverMemory)
    found = perceiver.memory.perceiver(unit("in.perceiver.x", 2, 64, 72, 72))
    assert largest(found, golden(reference, "stage2_perceiver")["perceiver_latents"]) <= FEATURES


@torch.inference_mode()
def test_the_perceivers_attention(perceiver: Student, unit: Unit, reference: Path) -> None:
    assert isinstance(perceiver.memory, PerceiverMemory)
    cells, places = (unit(f"in.s2attn.{name}", 5184, 256) for name in ("curr", "curr_pos"))
    memory, memory_places = (unit(f"in.s2attn.{name}", 1, 648, 256) for name in ("mem", "mem_pos"))
    valid = torch.ones(1, 648, dtype=torch.bool)
    found = perceiver.memory.attention((cells + 0.1 * places)[None], places, memory, memory_places, valid)
    assert largest(found[0, ::37], golden(reference, "stage2_perceiver")["memattn_out"]) <= FEATURES


@torch.inference_mode()
def test_dense_attention(dense: Student, unit: Unit, reference: Path) -> None:
    assert isinstance(dense.memory, DenseMemory)
    cells, places = (unit(f"in.memattn.{name}", 1, 5184, 256) for name in ("src", "pos"))
    count = 2 * 5184 + 12
    tokens, token_places = (unit(f"in.memattn.{name}", 1, count, 64) for name in ("prompt", "prompt_pos"))
    memory, memory_places = (each[:, :-12].unflatten(1, (2, 5184)) for each in (tokens, token_places))
    found = dense.memory.dense_attention(
        cells + 0.1 * places,
        memory,
        memory_places,
        tokens[:, -12:],
        token_places[:, -12:],
        torch.ones(1, count, dtype=torch.bool),
    )
    assert largest(found[0, ::37], golden(reference, "unit_tracker")["memattn_out"]) <= FEATURES


@torch.inference_mode()
def test_what_is_remembered_of_a_frame(dense: Student, unit: Unit, reference: Path) -> None:
    pixels, mask = unit("in.memenc.pix", 1, 256, 72, 72), unit("in.memenc.mask", 1, 1008, 1008)
    # The reference's mask is foreground or not, as that of a prompt is.
    levels = dense.memory.encoder.level(mask, torch.tensor([True]))
    found = dense.memory.encoder(pixels, levels, torch.ones(1, 1))
    assert largest(found[0, :, ::6, ::6], golden(reference, "unit_tracker")["memenc_out"]) <= FEATURES


@torch.inference_mode()
def test_where_in_time_a_pointer_is(dense: Student, reference: Path) -> None:
    ages = torch.tensor([[0.0, 1.0, 3.0, 7.0]]) / 15
    found = dense.memory.pointer_places(ages)
    assert largest(found, golden(reference, "unit_tracker")["tpos_enc"]) <= FEATURES


@pytest.mark.parametrize("frames", [SOME, pytest.param(ALL_DENSE, marks=pytest.mark.slow)])
@torch.inference_mode()
def test_an_object_is_followed_by_the_dense_memory(
    dense: Student, frame: Callable[[int], tuple[Tensor, ...]], reference: Path, frames: int
) -> None:
    expected = golden(reference, "track_ev_m_memfp32")
    # A pointer counts as old after all frames of the clip but one.
    track = Track(dense, span=ALL_DENSE - 1, proposals=True)
    for number, answer in enumerate(track.follow(_frames(frame, frames))):
        kept = answer.memory.transpose(1, 2).unflatten(2, (72, 72))
        found = {
            f"cond{number}_sub": (answer.conditioned[:, ::16, ::6, ::6], FEATURES),
            f"f{number}_low": (answer.logits[:, ::4, ::4], MASKS),
            f"f{number}_score": (answer.object_score, FEATURES),
            f"f{number}_ptr": (answer.pointer, FEATURES),
            f"f{number}_mem": (kept[:, ::8, ::6, ::6], FEATURES),
        }
        for name, (ours, bound) in found.items():
            assert largest(ours, expected[f"pt_{name}"]) <= 5 * bound, name


@pytest.mark.parametrize("frames", [SOME, pytest.param(ALL_PERCEIVER, marks=pytest.mark.slow)])
@torch.inference_mode()
def test_an_object_is_followed_by_the_perceiver(
    perceiver: Student, frame: Callable[[int], tuple[Tensor, ...]], reference: Path, frames: int
) -> None:
    expected = golden(reference, "stage2_perceiver")
    track = Track(perceiver, span=ALL_PERCEIVER - 1, proposals=False)
    for number, answer in enumerate(track.follow(_frames(frame, frames))):
        found = {
            f"f{number}_low": (answer.logits[:, ::4, ::4], MASKS),
            f"f{number}_score": (answer.object_score, FEATURES),
            f"f{number}_ptr": (answer.pointer, FEATURES),
            f"f{number}_mem_sub": (answer.memory[:, ::4], FEATURES),
        }
        for name, (ours, bound) in found.items():
            assert largest(ours, expected[f"loop_{name}"]) <= 5 * bound, name


def _frames(frame: Callable[[int], tuple[Tensor, ...]], frames: int) -> Iterator[tuple[Tensor, ...]]:
    return (frame(number) for number in range(frames))
