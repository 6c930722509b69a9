"""A released file -> tensors by canonical key. Nothing in the file is ever executed."""

import pickle
import zipfile
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from model_store.artifact import StoreError
from model_store.networks.keys import canonical

# Names shown of a list of faults; the total is always told.
_SHOWN = 8
# A checkpoint's own wrappers around its tensors.
_WRAPPERS = ("model", "state_dict")


class CheckpointError(StoreError):
    """The file is no checkpoint of the variant; the message names what is wrong with it."""


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
        raise CheckpointError(f"{path.name} holds something other than tensors: {listed(odd)}")
    tensors = {canonical(key): value for key, value in entries.items()}
    if len(tensors) != len(entries):
        raise CheckpointError(f"{path.name} holds {len(entries) - len(tensors)} keys more than once")
    return tensors


def listed(keys: list[str]) -> str:
    """The first keys, and how many more there are."""
    more = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
    return ", ".join(keys[:_SHOWN]) + more


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
