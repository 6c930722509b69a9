"""variants.toml -> Variant: the students as data. Standard library only."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Any, Literal

# The variant whose artefact comes with the package.
EMBEDDED = "demo"

MemoryKind = Literal["dense", "perceiver", ""]


@dataclass(frozen=True, slots=True)
class Variant:
    """One row of variants.toml: a student, and where its weights come from."""

    # `es-<ev|rv|tv>-<s|m|l>[-mc-<s0|s1|l>][-ctx32][-geo|-ft][-perceiver]`, `litetext-<s0|s1|l>-ctx<16|32>`
    # or `demo`
    name: str
    # Key into the image encoders of `model_store.networks`, e.g. "efficientvit_b1".
    image_encoder: str
    # "mobileclip_s0", "mobileclip_s1", "mobileclip2_l", "sam3" or "demo".
    text_encoder: str
    # Tokens per text, start and end included.
    context_length: int
    # "stage1", "stage1_ft", "stage3", "stage2", "litetext" or "demo".
    stage: str
    # Path of the released file inside `repository`; empty when nothing was released.
    file: str
    # Other names the file has had.
    aliases: tuple[str, ...]
    # Repository on the model hub.
    repository: str
    # SPDX identifier, or the licence's name.
    licence: str
    # False: no weights were ever published.
    released: bool
    # Default score threshold, 0..1.
    score_threshold: float
    # How the objects of a video are remembered; "" where the file has no tracker.
    memory: MemoryKind
    # What becomes of a position table longer than the context: "cut" or "interpolated".
    positions: str
    # Name of a variant whose released file has the parts that this one's lacks; empty where it lacks none.
    fill_from: str
    # Published millions of parameters of the whole file; 0 where none were published.
    published_millions: float


class UnknownVariantError(LookupError):
    """There is no row of that name; the message names those that come close."""


def _row(name: str, fields: dict[str, Any]) -> Variant:
    return Variant(name=name, aliases=tuple(fields.pop("aliases", ())), file=fields.pop("file", ""), **fields)


@cache
def published() -> Mapping[str, float]:
    """Published millions of parameters of each encoder, by its name."""
    table: dict[str, float] = _table()["published"]
    return MappingProxyType(table)


def _table() -> dict[str, Any]:
    return tomllib.loads(files("model_store").joinpath("variants.toml").read_text("utf-8"))


@cache
def variants() -> Mapping[str, Variant]:
    """Every variant by its name, in the file's order. Read once."""
    table = _table()
    rows: dict[str, Variant] = {}
    for group in table["group"]:
        for name, own in group.pop("variants").items():
            if name in rows:
                raise ValueError(f"variants.toml has {name} twice")
            rows[name] = _row(name, table["defaults"] | group | own)
    return MappingProxyType(rows)


def distilled() -> list[Variant]:
    """The variants that come from a checkpoint in EfficientSAM3's layout, released or not."""
    return [variant for variant in variants().values() if variant.stage != "demo"]


def files_of(variant: Variant) -> list[Variant]:
    """The variants whose files one needs: its own, and the one that holds what its own file lacks."""
    return [variant, find(variant.fill_from)] if variant.fill_from else [variant]


def find(name: str) -> Variant:
    """The variant of that name.

    Raises:
        UnknownVariantError: there is none; the message names those that come close.
    """
    try:
        return variants()[name]
    except KeyError:
        near = get_close_matches(name, variants(), n=3)
        hint = f"; close to it: {', '.join(near)}" if near else ""
        raise UnknownVariantError(f"there is no variant {name[:80]!r}{hint}") from None
