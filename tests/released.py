"""Checkpoints in the released layouts, filled with the reference recipe's weights."""

import importlib.util
from pathlib import Path
from types import ModuleType

import torch

from model_store import registry
from model_store.layouts import STAGE_3_LEFT_OUT, layout_of
from tests.command import run_command

_POSITIONS = "positional_embedding.pos_embed.pos_embed"


def weight_recipe(reference: Path) -> ModuleType:
    """The reference's weight recipe, loaded from its folder."""
    spec = importlib.util.spec_from_file_location("weight_recipe", reference / "weight_recipe.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_checkpoint(
    reference: Path, variant: str, path: Path, rows: int | None = None, only: tuple[str, ...] = ("",)
) -> Path:
    """Write `{"model": {key: tensor}}` with the keys of the variant's released file to `path`.

    Args:
        rows: of the text position table; None: those of the released file.
        only: beginnings of the keys to write.
    """
    recipe = weight_recipe(reference)
    layout = layout_of(registry.find(variant), reference / "manifests")
    tensors = {}
    for key, shape in layout.shapes.items():
        if key.startswith(only):
            if rows and key.endswith(_POSITIONS):
                shape = (1, 1, rows, shape[3])
            tensors[key] = torch.from_numpy(recipe.fill(key, shape))
    torch.save({"model": tensors, "meta": {"epoch": 1}}, path)
    return path


def import_released(
    reference: Path, store: Path, variant: str, context: int | None, rows: int | None
) -> None:
    """Import the variant by the public command from a file in its released layout.

    Args:
        store: for the file while it is needed, and for the artefact.
        context: tokens per text; None: the variant's.
        rows: see `write_checkpoint`.
    """
    file = write_checkpoint(reference, variant, store / f"{variant}.pt", rows)
    arguments = ["variants", "import", variant, "--checkpoint", str(file), "--store", str(store)]
    if filler := registry.find(variant).fill_from:
        rest = write_checkpoint(reference, filler, store / f"{filler}.pt", only=STAGE_3_LEFT_OUT)
        arguments += ["--fill-from", str(rest)]
    run_command(*arguments, *(["--context", str(context)] if context else []))
    for written in store.glob("*.pt"):
        written.unlink()
