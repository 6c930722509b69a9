"""What the released file of a variant holds: every key and its shape, as far as that is known.

A folder of layouts holds `<name>.json.gz` files, each `{"keys": {key: {"shape": [...]}}}` of one full
checkpoint. What no layout in it covers follows from our own networks, and is marked as not verified.
"""

import gzip
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from model_store.artifact import StoreError
from model_store.assembly import FULL_TABLE, shapes_in_file
from model_store.networks.keys import canonical
from model_store.networks.sizes import sizes_of
from model_store.registry import Variant

Shapes = dict[str, tuple[int, ...]]

# How layouts abbreviate the image encoders.
_SHORT = {
    "efficientvit_b0": "ev_s",
    "efficientvit_b1": "ev_m",
    "efficientvit_b2": "ev_l",
    "repvit_m0_9": "rv_s",
    "repvit_m1_1": "rv_m",
    "repvit_m2_3": "rv_l",
    "tiny_vit_5m": "tv_s",
    "tiny_vit_11m": "tv_m",
    "tiny_vit_21m": "tv_l",
}
# All but the trunk is alike in every file of Stage 1 and in SAM3's own.
_ANY_IMAGE = "ev_m_notext"
_PERCEIVER = "stage2_efficient_tracker_ev_m"
_TRUNK = "detector.backbone.vision_backbone.trunk."
_TEXT = "detector.backbone.language_backbone."
_POSITIONS = _TEXT + "encoder.positional_embedding.pos_embed.pos_embed"
# What Stage 3 leaves out of its files.
STAGE_3_LEFT_OUT = ("detector.geometry_encoder.", "detector.backbone.vision_backbone.sam2_convs.", "tracker.")


@dataclass(frozen=True, slots=True)
class Layout:
    """A released file, without its values."""

    # By the file's own keys, which `keys.canonical` makes those of a full checkpoint.
    shapes: Shapes
    # True: every key is one that a layout lists. False: some follow from our own networks.
    verified: bool

    @property
    def parameters(self) -> int:
        """Numbers in the file."""
        return sum(math.prod(shape) for shape in self.shapes.values())


def layout_of(variant: Variant, folder: Path) -> Layout:
    """The layout of a variant's released file, put together from those in the folder.

    Raises:
        StoreError: the folder lacks a layout that is needed.
    """
    trunk, trunk_verified = _trunk(variant, folder)
    if variant.memory == "perceiver":
        tracker = _read(folder, _PERCEIVER)
        rest = {key: shape for key, shape in tracker.items() if not canonical(key).startswith(_TRUNK)}
        return Layout(trunk | rest, trunk_verified)
    image = {key: shape for key, shape in _read(folder, _ANY_IMAGE).items() if not key.startswith(_TRUNK)}
    if variant.stage == "stage3" and variant.released:
        image = {key: shape for key, shape in image.items() if not key.startswith(STAGE_3_LEFT_OUT)}
    text, text_verified = _text(variant, folder)
    return Layout(trunk | image | text, trunk_verified and text_verified)


def _trunk(variant: Variant, folder: Path) -> tuple[Shapes, bool]:
    verified = variant.image_encoder in _SHORT
    whole = _read(folder, f"{_SHORT[variant.image_encoder]}_notext") if verified else _own(variant)
    return {key: shape for key, shape in whole.items() if key.startswith(_TRUNK)}, verified


def _text(variant: Variant, folder: Path) -> tuple[Shapes, bool]:
    verified = variant.text_encoder != "sam3"
    whole = _read(folder, f"ev_m_{variant.text_encoder}") if verified else _own(variant)
    text = {key: shape for key, shape in whole.items() if key.startswith(_TEXT)}
    if verified:
        rows = FULL_TABLE if variant.positions == "interpolated" else variant.context_length
        text[_POSITIONS] = (1, 1, rows, text[_POSITIONS][3])
    return text, verified


def _read(folder: Path, name: str) -> Shapes:
    path = folder / f"{name}.json.gz"
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            keys: Mapping[str, Mapping[str, list[int]]] = json.load(file)["keys"]
    except (OSError, ValueError, KeyError) as error:
        raise StoreError(f"{path} is no layout of a checkpoint: {error}") from error
    return {key: tuple(entry["shape"]) for key, entry in keys.items()}


def _own(variant: Variant) -> Shapes:
    """The keys that our networks read, and nothing else."""
    return {key: tuple(shape) for key, shape in shapes_in_file(sizes_of(variant)).items()}
