"""A released file -> audited tensors. Nothing in the file is ever executed."""

import pickle
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from model_store.artifact import StoreError
from model_store.networks.keys import canonical, sources, unused_group

# Names shown of a list of faults; the total is always told.
_SHOWN = 8
_POSITIONS = "detector.backbone.language_backbone.encoder.positional_embedding.pos_embed.pos_embed"
_GEOMETRY = "detector.geometry_encoder."
# A checkpoint's own wrappers around its tensors.
_WRAPPERS = ("model", "state_dict")


class CheckpointError(StoreError):
    """The file is no checkpoint of the variant; the message names what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Audit:
    """How the keys of a file were accounted for."""

    # Keys in the file; those whose tensors the networks take; the others by group.
    keys: int
    used: int
    unused_groups: Mapping[str, int]
    # Rows of the text position table in the file; the networks take the first ones.
    position_rows: int


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a .pt, .pth or .safetensors file by canonical key.

    Takes `{"model": ...}`, `{"state_dict": ...}` and flat files.

    Raises:
        CheckpointError: the file cannot be read without executing something in it, holds anything but
            tensors, or holds one twice.
    """
    entries = _safetensors(path) if path.suffix == ".safetensors" else _pickled(path)
    odd = [key for key, value in entries.items() if not isinstance(value, Tensor)]
    if odd:
        raise CheckpointError(f"{path.name} holds something other than tensors: {_listed(odd)}")
    tensors = {canonical(key): value for key, value in entries.items()}
    if len(tensors) != len(entries):
        raise CheckpointError(f"{path.name} holds {len(entries) - len(tensors)} keys more than once")
    return tensors


def _safetensors(path: Path) -> dict[str, Any]:
    try:
        return dict(safetensors.torch.load_file(path))
    except (safetensors.SafetensorError, OSError) as error:
        raise CheckpointError(f"{path.name} cannot be read: {error}") from error


def _pickled(path: Path) -> dict[str, Any]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        reason = "it is damaged, or holds objects other than tensors, which are never loaded"
        raise CheckpointError(f"{path.name} is refused: {reason}") from error
    except Exception as error:
        # A damaged file fails wherever the reader happens to trip.
        first = str(error).partition("\n")[0] or type(error).__name__
        raise CheckpointError(f"{path.name} cannot be read: {first}") from error
    for wrapper in _WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
            break
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise CheckpointError(f"{path.name} holds no tensors by name")
    return content


def audit(
    tensors: Mapping[str, Tensor], shapes: Mapping[str, torch.Size], context: int
) -> tuple[dict[str, Tensor], Audit]:
    """The tensors the networks need, by the networks' names, with every key of the file accounted for.

    Args:
        tensors: by canonical key, see `read`.
        shapes: by the networks' names.
        context: tokens per text; a longer position table gives its first rows.

    Returns:
        Float32 tensors, and the account.

    Raises:
        CheckpointError: a key is missing, unexpected or of the wrong shape, or a weight is not finite.
    """
    origin = sources(shapes)
    expected: dict[str, torch.Size] = {}
    for name, shape in shapes.items():
        whole = shape if origin[name].third is None else torch.Size((3 * shape[0], *shape[1:]))
        expected[origin[name].key] = whole
    rest = [key for key in tensors if key not in expected]
    groups = [unused_group(key) for key in rest]
    faults = [
        _fault("missing", (key for key in expected if key not in tensors)),
        _fault("unexpected", (key for key, group in zip(rest, groups, strict=True) if group is None)),
    ]
    taken = {key: _first_rows(tensors[key], key, context) for key in expected if key in tensors}
    faults += [
        _fault("of the wrong shape", _wrong_shapes(taken, expected)),
        _fault("not finite or no floating point", (key for key, value in taken.items() if not _sound(value))),
    ]
    if any(faults):
        raise CheckpointError("; ".join(fault for fault in faults if fault) + _hint(expected, tensors))
    weights = {name: _part(taken[source.key], source.third) for name, source in origin.items()}
    counted = {group: groups.count(group) for group in sorted({group for group in groups if group})}
    rows = tensors[_POSITIONS].shape[2]
    return weights, Audit(len(tensors), len(expected), counted, rows)


def _hint(expected: Iterable[str], tensors: Mapping[str, Tensor]) -> str:
    """What is known of files that lack just these keys."""
    missing = [key for key in expected if key not in tensors]
    if missing and all(key.startswith(_GEOMETRY) for key in missing):
        return (
            ". The file was saved without its geometry encoder, which every prompt needs: no stage "
            "trains it, so copy these keys from a Stage 1 file of the same family or from SAM3's own"
        )
    return ""


def _first_rows(value: Tensor, key: str, context: int) -> Tensor:
    if key == _POSITIONS and value.dim() == 4:
        return value[:, :, :context]
    return value


def _wrong_shapes(taken: Mapping[str, Tensor], expected: Mapping[str, torch.Size]) -> list[str]:
    return [
        f"{key} {tuple(value.shape)} instead of {tuple(expected[key])}"
        for key, value in taken.items()
        if value.shape != expected[key]
    ]


def _sound(value: Tensor) -> bool:
    return value.is_floating_point() and bool(torch.isfinite(value).all())


def _part(value: Tensor, third: int | None) -> Tensor:
    whole = value.to(torch.float32)
    return (whole if third is None else whole.chunk(3)[third]).contiguous()


def _fault(kind: str, keys: Iterable[str]) -> str:
    found = list(keys)
    return f"{len(found)} keys are {kind}: {_listed(found)}" if found else ""


def _listed(keys: list[str]) -> str:
    more = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
    return ", ".join(keys[:_SHOWN]) + more
