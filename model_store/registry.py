"""variants.toml -> Variant: the students as data. Standard library only."""

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from collections.abc import Mapping


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


class UnknownVariantError(LookupError):
    """There is no row of that name; the message names those that come close."""
