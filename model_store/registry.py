"""variants.toml -> Variant: the students as data. Standard library only."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Any


@dataclass(frozen=True, slots=True)
class Variant:
    """One row of variants.toml: a student, and where its weights come from."""

    # `es-<ev|rv|tv>-<s|m|l>[-mc-<s0|s1|l>][-ctx32][-geo|-ft][-perceiver]` or `litetext-<s0|s1|l>-ctx<16|32>`
    name: str
    # Key into the image encoders of `model_store.networks`, e.g. "efficientvit_b1" or "sam3_vit".
    image_encoder: str
    # "mobileclip_s0", "mobileclip_s1", "mobileclip2_l" or "sam3".
    text_encoder: str
    # Tokens per text, start and end included.
    context_length: int
    # "stage1", "stage1_ft", "stage3", "stage2" or "litetext".
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
    # "dense", "perceiver" or "" (the file has no tracker).
    memory: str
    # Kinds of prompt the released file has the parts for.
    prompts: tuple[str, ...]
    # True: networks for all its parts are here, so that it can be imported and synthesized.
    runnable: bool


class UnknownVariantError(LookupError):
    """There is no row of that name; the message names those that come close."""


def _row(name: str, fields: dict[str, Any], networks: dict[str, list[str]]) -> Variant:
    runnable = (
        fields["image_encoder"] in networks["image_encoders"]
        and fields["text_encoder"] in networks["text_encoders"]
        and fields["memory"] in networks["memories"]
    )
    lists: dict[str, Any] = {key: tuple(fields.pop(key, ())) for key in ("aliases", "prompts")}
    return Variant(name=name, file=fields.pop("file", ""), runnable=runnable, **lists, **fields)


@cache
def variants() -> Mapping[str, Variant]:
    """Every variant by its name, in the file's order. Read once."""
    table = tomllib.loads(files("model_store").joinpath("variants.toml").read_text("utf-8"))
    rows: dict[str, Variant] = {}
    for group in table["group"]:
        for name, own in group.pop("variants").items():
            if name in rows:
                raise ValueError(f"variants.toml has {name} twice")
            rows[name] = _row(name, table["defaults"] | group | own, table["networks"])
    return MappingProxyType(rows)


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
