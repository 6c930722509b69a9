"""Checkpoints in the released layout, filled with the reference recipe's weights."""

import gzip
import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

# The manifest that lists a variant's keys, by variant.
MANIFESTS = {"es-ev-s-mc-s0": "ev_s_mobileclip_s0", "es-ev-m-mc-s0": "ev_m_mobileclip_s0"}
CONTEXT_LENGTH = 16


def weight_recipe(reference: Path) -> ModuleType:
    """The reference's weight recipe, loaded from its folder."""
    spec = importlib.util.spec_from_file_location("weight_recipe", reference / "weight_recipe.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def manifest_of(reference: Path, variant: str) -> dict[str, Any]:
    """Every key of the variant's full checkpoint with its shape, as the reference lists it."""
    with gzip.open(reference / "manifests" / f"{MANIFESTS[variant]}.json.gz", "rt") as file:
        listed: dict[str, Any] = json.load(file)
    return listed


def write_checkpoint(reference: Path, variant: str, path: Path) -> Path:
    """Write `{"model": {key: tensor}}` with every key of the variant to `path`.

    The text position table has as many rows as the context is long, as in the released `_ctx16` files.
    """
    recipe = weight_recipe(reference)
    tensors = {}
    for key, entry in manifest_of(reference, variant)["keys"].items():
        shape = list(entry["shape"])
        if key.endswith("positional_embedding.pos_embed.pos_embed"):
            shape[2] = CONTEXT_LENGTH
        tensors[key] = torch.from_numpy(recipe.fill(key, shape))
    torch.save({"model": tensors, "meta": {"text_context_length": CONTEXT_LENGTH}}, path)
    return path
