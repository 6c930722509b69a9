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
    odd = [key for key, value in entries.items() if not _is_plain(value)]
    if odd:
        raise CheckpointError(f"{path.name} holds something other than plain tensors: {listed(odd)}")
    tensors = {canonical(key): value for key, value in entries.items()}
    if len(tensors) != len(entries):
        raise CheckpointError(f"{path.name} holds {len(entries) - len(tensors)} keys more than once")
    return tensors


def listed(keys: list[str]) -> str:
    """The first keys, and how many more there are."""
    more = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
    return ", ".join(keys[:_SHOWN]) + more


def _is_plain(value: object) -> bool:
    """A tensor whose numbers all lie in the file, one after the other."""
    return (
        isinstance(value, Tensor)
        and value.layout is torch.strided
        and not (value.is_meta or value.is_nested)
        # A number that stands for many would make a small file a large tensor.
        and value.numel() * value.element_size() <= value.untyped_storage().nbytes()
    )


def _safetensors(path: Path) -> dict[str, Any]:
    try:
        return dict(safetensors.torch.load_file(path))
    except (safetensors.SafetensorError, OSError) as error:
        raise CheckpointError(f"{path.name} cannot be read: {error}") from error


def _check_zip(path: Path) -> None:
    """Check every record of a zip file, which torch does not.

    Raises:
        CheckpointError: a record is compressed, records overlap, or one's checksum is wrong.
    """
    size = path.stat().st_size
    with zipfile.ZipFile(path) as file:
        records = file.infolist()
        # torch.save compresses nothing, so that a file can never hold more than its own size.
        packed = [record.filename for record in records if record.compress_type != zipfile.ZIP_STORED]
        if packed or sum(record.file_size for record in records) > size:
            raise CheckpointError(
                f"{path.name} is refused: it unpacks to more than its {size} bytes, "
                "which no file that torch.save wrote does"
            )
        if spoilt := file.testzip():
            raise CheckpointError(f"{path.name} is damaged: the checksum of {spoilt} in it is wrong")


def _pickled(path: Path) -> dict[str, Any]:
    try:
        is_zip = zipfile.is_zipfile(path)
        if is_zip:
            _check_zip(path)
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except CheckpointError:
        raise
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
