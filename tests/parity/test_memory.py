"""The video memory beside the reference, in torch: part by part on unit inputs, and frame by frame."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from model_store.networks.memory import DenseMemory, PerceiverMemory
from model_store.networks.objects import BOTTOM_RIGHT, NEGATIVE, NO_POINT, TOP_LEFT
from model_store.networks.student import Student
from service.worker.tracker.bank import Kept
from service.worker.tracker.follow import Found, Prompted
from tests.parity.goldens import FEATURES, MASKS, compare
from tests.parity.memory import (
    Clip,
    click,
    golden,
    latest,
    memory_as_bfloat16,
    remembering,
)
from tests.parity.table import Measured
from tests.released import weight_recipe

VARIANT = "es-ev-m"
# Frames of a track: what every run sees, and all that the reference has.
SOME, ALL_DENSE, ALL_TWO, ALL_PERCEIVER = 2, 8, 4, 6
# Rows of the table.
DENSE_UNITS, UNITS = "`unit_tracker`", "`stage2_perceiver`, units"
ONE, TWO = "`track_ev_m_memfp32`, one object", "`track_ev_m_memfp32`, two objects"
ONE_BF16, PERCEIVER = "`track_ev_m_membf16`, one object", "`stage2_perceiver`, one object"
# By what the goldens call an array: its column of the table, and its bound. Differences grow in the loop.
BOUNDS = {
    "memattn_out": ("features", FEATURES),
    "memenc_out": ("memory", FEATURES),
    "perceiver_latents": ("memory", FEATURES),
    "tpos_enc": ("pointer", FEATURES),
    "sub": ("features", 5 * FEATURES),
    "low": ("mask logits", 5 * MASKS),
    "score": ("object score", 5 * FEATURES),
    "ptr": ("pointer", 5 * FEATURES),
    "mem": ("memory", 5 * FEATURES),
    "mem_sub": ("memory", 5 * FEATURES),
}
# Values that are kept as bfloat16 and lie next to a rounding's edge come out a step apart: this below 4.
BF16_STEPS = 2 / 128

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


def _of_one(found: Found) -> dict[str, NDArray[np.float32]]:
    """What the goldens of one object have of a frame."""
    return {
        "low": found.logits[::4, ::4],
        "score": np.array(found.object_score, np.float32),
        "ptr": latest(found).pointer,
        "mem": _map(latest(found))[::8, ::6, ::6],
    }


@torch.inference_mode()
def test_the_perceivers_tokens(perceiver: Student, unit: Unit, reference: Path, measured: Measured) -> None:
    assert isinstance(perceiver.memory, PerceiverMemory)
    found = perceiver.memory.perceiver(unit("in.perceiver.x", 2, 64, 72, 72))
    _agree(measured, UNITS, golden(reference, "stage2_perceiver"), "", perceiver_latents=found)


@torch.inference_mode()
def test_the_perceivers_attention(
    perceiver: Student, unit: Unit, reference: Path, measured: Measured
) -> None:
    assert isinstance(perceiver.memory, PerceiverMemory)
    cells, places = (unit(f"in.s2attn.{name}", 5184, 256) for name in ("curr", "curr_pos"))
    memory, memory_places = (unit(f"in.s2attn.{name}", 1, 648, 256) for name in ("mem", "mem_pos"))
    valid = torch.ones(1, 648, dtype=torch.bool)
    found = perceiver.memory.attention((cells + 0.1 * places)[None], places, memory, memory_places, valid)
    _agree(measured, UNITS, golden(reference, "stage2_perceiver"), "", memattn_out=found[0, ::37])


@torch.inference_mode()
def test_dense_attention(dense: Student, unit: Unit, reference: Path, measured: Measured) -> None:
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
    _agree(measured, DENSE_UNITS, golden(reference, "unit_tracker"), "", memattn_out=found[0, ::37])


@torch.inference_mode()
def test_what_is_remembered_of_a_frame(
    dense: Student, unit: Unit, reference: Path, measured: Measured
) -> None:
    pixels, mask = unit("in.memenc.pix", 1, 256, 72, 72), unit("in.memenc.mask", 1, 1008, 1008)
    # The reference's mask is foreground or not, as that of a prompt is.
    levels = dense.memory.encoder.level(mask, torch.tensor([True]))
    found = dense.memory.encoder(pixels, levels, torch.ones(1, 1))
    _agree(measured, DENSE_UNITS, golden(reference, "unit_tracker"), "", memenc_out=found[0, :, ::6, ::6])


@torch.inference_mode()
def test_where_in_time_a_pointer_is(dense: Student, reference: Path, measured: Measured) -> None:
    ages = torch.tensor([[0.0, 1.0, 3.0, 7.0]]) / 15
    found = dense.memory.pointer_places(ages)
    _agree(measured, DENSE_UNITS, golden(reference, "unit_tracker"), "", tpos_enc=found)


@pytest.mark.parametrize("frames", [SOME, pytest.param(ALL_DENSE, marks=pytest.mark.slow)])
def test_an_object_is_followed_by_the_dense_memory(
    dense: Student, reference: Path, measured: Measured, frames: int
) -> None:
    expected = golden(reference, "track_ev_m_memfp32")
    clip = Clip(dense, reference, ALL_DENSE)
    for number, (found,) in enumerate(clip.follow(frames, {1: click(0.42, 0.55)})):
        conditioned = clip.engine.outputs["memory_attention"]["conditioned"]
        _agree(measured, ONE, expected, f"pt_cond{number}_", sub=conditioned[:, ::16, ::6, ::6])
        _agree(measured, ONE, expected, f"pt_f{number}_", **_of_one(found))


@pytest.mark.slow
def test_an_object_is_followed_by_a_memory_kept_as_bfloat16(
    dense: Student, reference: Path, measured: Measured
) -> None:
    expected = golden(reference, "track_ev_m_membf16")
    clip = Clip(dense, reference, ALL_DENSE, memory_as_bfloat16)
    for number, (found,) in enumerate(clip.follow(ALL_TWO, {1: click(0.42, 0.55)})):
        _agree(measured, ONE_BF16, expected, f"pt_f{number}_", **_of_one(found))


@pytest.mark.parametrize("frames", [SOME, pytest.param(ALL_TWO, marks=pytest.mark.slow)])
def test_two_objects_of_a_box_and_a_mask_are_followed_by_the_dense_memory(
    dense: Student, reference: Path, measured: Measured, frames: int
) -> None:
    expected = golden(reference, "track_ev_m_memfp32")
    clip = Clip(dense, reference, ALL_DENSE)
    corners = np.array([(0.2, 0.3), (0.6, 0.8), (0.3, 0.4), (0, 0)], np.float32)
    labels = np.array([TOP_LEFT, BOTTOM_RIGHT, NEGATIVE, NO_POINT], np.int32)
    shown = np.zeros((480, 640), np.bool_)
    shown[100:260, 350:520] = True
    nothing = np.zeros((0, 2), np.float32), np.zeros(0, np.int32)
    prompts = {
        1: Prompted(corners, labels),
        7: Prompted(*nothing, clip.follower.given(shown, width=1280, height=720)),
    }
    for number, found in enumerate(clip.follow(frames, prompts)):
        kept = [latest(each) for each in found]
        _agree(
            measured,
            TWO,
            expected,
            f"two_f{number}_",
            low=np.stack([each.logits[::4, ::4] for each in found]),
            score=np.array([each.object_score for each in found]),
            ptr=np.stack([each.pointer for each in kept]),
            mem=np.stack([_map(each)[::8, ::6, ::6] for each in kept]),
        )


@pytest.mark.parametrize("frames", [SOME, pytest.param(ALL_PERCEIVER, marks=pytest.mark.slow)])
def test_an_object_is_followed_by_the_perceiver(
    perceiver: Student, reference: Path, measured: Measured, frames: int
) -> None:
    expected = golden(reference, "stage2_perceiver")
    clip = Clip(perceiver, reference, ALL_PERCEIVER)
    for number, (found,) in enumerate(clip.follow(frames, {1: click(0.42, 0.55)})):
        kept = latest(found)
        assert kept.memory is not None
        _agree(
            measured,
            PERCEIVER,
            expected,
            f"loop_f{number}_",
            low=found.logits[::4, ::4],
            score=np.array(found.object_score),
            ptr=kept.pointer,
            mem_sub=kept.memory[::4],
        )


def _map(kept: Kept) -> NDArray[np.float32]:
    """The dense memory, (M, g, g)."""
    assert kept.memory is not None
    return kept.memory.T.reshape(-1, 72, 72)


def _agree(
    measured: Measured,
    row: str,
    expected: dict[str, NDArray[np.float32]],
    prefix: str,
    **found: NDArray[np.float32] | Tensor,
) -> None:
    """Arrays by what the golden calls them behind the prefix; each is noted in the row of the table."""
    for name, ours in found.items():
        theirs = expected[prefix + name]
        output, bound = BOUNDS[name]
        if row == ONE_BF16 and output == "memory":
            bound = BF16_STEPS
        difference = compare(
            (row, prefix, "-"), output, np.asarray(ours).reshape(theirs.shape), theirs, bound
        )
        measured.tracks.setdefault(row, []).append(difference)
        assert difference.largest <= bound, prefix + name
