"""A training -> the artefact: `python -m model_store.demo.artefact --run RUN --drawings D --store STORE`."""

import argparse
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model_store import importing, registry
from model_store.demo.drawings import DIGESTS, FURTHER_STYLES, STYLES
from model_store.demo.feed import FIRST_SEED
from model_store.demo.plan import PLAN
from model_store.demo.scenes import World, scene
from model_store.demo.student import Words, sizes
from model_store.demo.train import CHECKPOINT
from model_store.demo.vocabulary import Vocabulary
from model_store.networks.student import Abilities, build

_STUDENT = "student."
# Scenes that stand for all that the world gives.
_SCENES = 64


def make(run: Path, drawings: Path, store: Path, figures: Mapping[str, Any] | None = None) -> Path:
    """Puts the run's averaged weights in the store, as f16.

    Args:
        run: the training's folder.
        drawings: folder of the rendered drawings.
        figures: what an evaluation gave, for the manifest.
    """
    saved = torch.load(run / CHECKPOINT, map_location="cpu", weights_only=True)
    variant, words = registry.find(registry.EMBEDDED), Words(Vocabulary.load())
    weights: dict[str, Tensor] = {
        name.removeprefix(_STUDENT): tensor
        for name, tensor in saved["average"].items()
        if name.startswith(_STUDENT)
    }
    training = {
        "seed": saved["seed"],
        "step": saved["step"],
        "phases": {phase.name: phase.steps for phase in PLAN},
        "data": digests(World.load(drawings, (*STYLES, *FURTHER_STYLES))),
        "figures": dict(figures or {}),
    }
    account = importing.Account(
        source={"training": training}, audit={"keys": len(weights)}, words=words.tokenizer, halves=True
    )
    student = build(sizes(), weights, Abilities(memory=variant.memory))
    return importing.make(variant, student, store, lambda *_: None, account)


def digests(world: World) -> dict[str, Any]:
    """sha256 of what the training saw: the drawings as published, and the first scenes made of them."""
    scenes = hashlib.sha256()
    for seed in range(FIRST_SEED, FIRST_SEED + _SCENES):
        made = scene(world, seed)
        scenes.update(made.pixels.tobytes())
        for thing in made.things:
            scenes.update(",".join(sorted(thing.names)).encode() + thing.mask.tobytes())
    return {
        "drawings": {style: DIGESTS[style] for style in (*STYLES, *FURTHER_STYLES)},
        f"scenes {FIRST_SEED} to {FIRST_SEED + _SCENES - 1}": scenes.hexdigest(),
    }


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="folder of the training")
    parser.add_argument("--drawings", type=Path, required=True, help="folder of the rendered drawings")
    parser.add_argument("--store", type=Path, required=True, help="folder of artefacts")
    parser.add_argument("--figures", type=Path, help="JSON that an evaluation wrote")
    arguments = parser.parse_args()
    figures = json.loads(arguments.figures.read_text("utf-8")) if arguments.figures else None
    folder = make(arguments.run, arguments.drawings, arguments.store, figures)
    size = sum(file.stat().st_size for file in folder.iterdir())
    print(f"{folder}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
