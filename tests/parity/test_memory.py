"""The parts of the video memory on the reference's unit inputs, in torch."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from model_store import registry
from model_store.networks.keys import sources
from model_store.networks.memory import MemoryKind
from model_store.networks.sizes import sizes_of
from model_store.networks.student import Abilities, Student, blank, build, shapes

# Largest difference of features in f32.
_BOUND = 1e-4

Unit = Callable[..., Tensor]


@pytest.fixture(scope="module")
def recipe(reference: Path) -> Any:
    sys.path.insert(0, str(reference))
    import weight_recipe

    return weight_recipe


@pytest.fixture(scope="module")
def unit(recipe: Any) -> Unit:
    """The recipe's input of that name and shape."""

    def made(name: str, *shape: int) -> Tensor:
        return torch.from_numpy(recipe.unit(name, int(np.prod(shape)))).float().reshape(shape)

    return made


def _student(recipe: Any, kind: MemoryKind) -> Student:
    sizes = sizes_of(registry.find("es-ev-s-perceiver"))
    abilities = Abilities(concepts=False, memory=kind)
    wanted = shapes(blank(sizes, abilities))
    weights: dict[str, Tensor] = {}
    for name, source in sources(wanted).items():
        shape = tuple(wanted[name])
        whole = (3 * shape[0], *shape[1:]) if source.third is not None else shape
        filled = np.asarray(recipe.fill(recipe.canonical(source.key), whole), np.float32)
        tensor = torch.from_numpy(filled)
        weights[name] = tensor if source.third is None else tensor.chunk(3)[source.third].clone()
    return build(sizes, weights, abilities)


def _golden(reference: Path, file: str, name: str) -> np.ndarray[Any, Any]:
    with np.load(reference / "goldens" / f"{file}.npz") as archive:
        golden: np.ndarray[Any, Any] = archive[name]
    return golden


def _assert_close(found: Tensor, golden: np.ndarray[Any, Any]) -> None:
    assert found.shape == golden.shape
    assert float((found - torch.from_numpy(golden)).abs().max()) <= _BOUND


@pytest.fixture(scope="module")
def perceiver(recipe: Any) -> Any:
    return _student(recipe, "perceiver").memory


@pytest.fixture(scope="module")
def dense(recipe: Any) -> Any:
    return _student(recipe, "dense").memory


@torch.inference_mode()
def test_the_perceivers_tokens(perceiver: Any, unit: Unit, reference: Path) -> None:
    found = perceiver.perceiver(unit("in.perceiver.x", 2, 64, 72, 72))
    _assert_close(found, _golden(reference, "stage2_perceiver", "perceiver_latents"))


@torch.inference_mode()
def test_the_perceivers_attention(perceiver: Any, unit: Unit, reference: Path) -> None:
    cells, places = (unit(f"in.s2attn.{name}", 5184, 256) for name in ("curr", "curr_pos"))
    memory, memory_places = (unit(f"in.s2attn.{name}", 1, 648, 256) for name in ("mem", "mem_pos"))
    valid = torch.ones(1, 648, dtype=torch.bool)
    found = perceiver.attention((cells + 0.1 * places)[None], places, memory, memory_places, valid)
    _assert_close(found[0, ::37], _golden(reference, "stage2_perceiver", "memattn_out"))


@torch.inference_mode()
def test_dense_attention(dense: Any, unit: Unit, reference: Path) -> None:
    cells, places = (unit(f"in.memattn.{name}", 1, 5184, 256) for name in ("src", "pos"))
    tokens, token_places = (
        unit(f"in.memattn.{name}", 1, 2 * 5184 + 12, 64) for name in ("prompt", "prompt_pos")
    )
    valid = torch.ones(1, 2 * 5184 + 12, dtype=torch.bool)
    memory, memory_places = (each[:, :-12].unflatten(1, (2, 5184)) for each in (tokens, token_places))
    found = dense.dense_attention(
        cells + 0.1 * places, memory, memory_places, tokens[:, -12:], token_places[:, -12:], valid
    )
    _assert_close(found[0, ::37], _golden(reference, "unit_tracker", "memattn_out"))


@torch.inference_mode()
def test_what_is_remembered_of_a_frame(dense: Any, unit: Unit, reference: Path) -> None:
    pixels, mask = unit("in.memenc.pix", 1, 256, 72, 72), unit("in.memenc.mask", 1, 1008, 1008)
    # The reference's mask is foreground or not, as that of a prompt is.
    found = dense.encoder(pixels, mask, torch.tensor([True]), torch.ones(1, 1))
    _assert_close(found[0, :, ::6, ::6], _golden(reference, "unit_tracker", "memenc_out"))
