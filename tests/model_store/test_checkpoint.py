import copy
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from model_store import checkpoint, importing
from model_store.assembly import Audit, assemble
from model_store.checkpoint import CheckpointError
from model_store.networks.sizes import Sizes

Tensors = dict[str, Tensor]
HEAD = "detector.backbone.vision_backbone.trunk.model.head.0.weight"
TABLE = "detector.backbone.language_backbone.encoder.positional_embedding.pos_embed.pos_embed"


class Payload:
    """Writes a file when unpickled by a loader that executes what it reads."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.mark}",)


def audited(path: Path, sizes: Sizes) -> tuple[Tensors, Audit]:
    made = assemble(sizes, checkpoint.read(path))
    return dict(made.weights), made.audit


def _wrapped(tensors: Tensors, path: Path) -> None:
    torch.save({"model": tensors, "meta": {"epoch": 3}}, path)


def _state_dict(tensors: Tensors, path: Path) -> None:
    torch.save({"state_dict": {"module." + key: value for key, value in tensors.items()}}, path)


def _flat_image_model(tensors: Tensors, path: Path) -> None:
    interactive = "inst_interactive_predictor.model."
    renamed = {
        key.removeprefix("detector.").replace("tracker.", interactive): value
        for key, value in tensors.items()
    }
    torch.save(renamed, path, _use_new_zipfile_serialization=False)


def _student_trunk(tensors: Tensors, path: Path) -> None:
    torch.save(
        {key.replace("trunk.model.", "trunk.model.student_trunk."): v for key, v in tensors.items()}, path
    )


def _safetensors(tensors: Tensors, path: Path) -> None:
    safetensors.torch.save_file(tensors, path)


@pytest.mark.parametrize(
    ("save", "suffix"),
    [
        (_wrapped, "pt"),
        (_state_dict, "pth"),
        (_flat_image_model, "pth"),
        (_student_trunk, "pt"),
        (_safetensors, "safetensors"),
    ],
)
def test_every_layout_of_a_file_gives_the_same_weights(
    save: Callable[[Tensors, Path], None],
    suffix: str,
    released: Tensors,
    weights: Tensors,
    sizes: Sizes,
    tmp_path: Path,
) -> None:
    path = tmp_path / f"file.{suffix}"
    save(released, path)
    taken, account = audited(path, sizes)
    assert taken.keys() == weights.keys()
    assert all(torch.equal(taken[name], weights[name]) for name in weights)
    assert account.keys == len(released)
    assert account.keys == account.used + sum(account.unused_groups.values())
    assert account.unused_groups == {"batch counters": 1, "half-size features": 1, "video memory": 1}


def test_a_longer_position_table_gives_its_first_rows(
    released: Tensors, weights: Tensors, sizes: Sizes, tmp_path: Path
) -> None:
    table = released[TABLE]
    released[TABLE] = torch.cat((table, torch.ones_like(table)), dim=2)
    _wrapped(released, tmp_path / "file.pt")
    taken, account = audited(tmp_path / "file.pt", sizes)
    assert torch.equal(taken["text.embeddings.position_embedding.position_embedding"], table)
    assert account.position_rows == 2 * table.shape[2]


def _drop(tensors: Tensors) -> None:
    del tensors[HEAD]


def _add(tensors: Tensors) -> None:
    tensors["detector.transformer.decoder.surprise"] = torch.zeros(1)


def _reshape(tensors: Tensors) -> None:
    tensors[HEAD] = tensors[HEAD][:3]


def _shorten(tensors: Tensors) -> None:
    tensors[TABLE] = tensors[TABLE][:, :, :2]


def _spoil(tensors: Tensors) -> None:
    tensors[HEAD] = torch.full_like(tensors[HEAD], float("nan"))


def _overflow(tensors: Tensors) -> None:
    tensors[HEAD] = torch.full_like(tensors[HEAD], 1e300, dtype=torch.float64)


def _make_tiny_floats(tensors: Tensors) -> None:
    tensors[HEAD] = tensors[HEAD].to(torch.float8_e4m3fn)


def _make_whole_numbers(tensors: Tensors) -> None:
    tensors[HEAD] = tensors[HEAD].to(torch.int64)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (_drop, rf"1 keys are missing: {HEAD}"),
        (_add, r"1 keys are unexpected: detector\.transformer\.decoder\.surprise"),
        (_reshape, rf"1 keys are of the wrong shape: {HEAD} \(3, 128, 1, 1\) instead of \(16, 128, 1, 1\)"),
        (_shorten, r"1 keys are of the wrong shape: .*pos_embed \(1, 1, 2, 16\) instead of \(1, 1, 6, 16\)"),
        (_spoil, rf"1 keys are not finite or no floating point: {HEAD}"),
        (_overflow, rf"1 keys are not finite or no floating point: {HEAD}"),
        (_make_tiny_floats, rf"1 keys are not finite or no floating point: {HEAD}"),
        (_make_whole_numbers, rf"1 keys are not finite or no floating point: {HEAD}"),
    ],
)
def test_a_file_whose_keys_do_not_fit_is_refused_by_name(
    damage: Callable[[Tensors], None], told: str, released: Tensors, sizes: Sizes, tmp_path: Path
) -> None:
    damage(released)
    _wrapped(released, tmp_path / "file.pt")
    with pytest.raises(CheckpointError, match=told):
        audited(tmp_path / "file.pt", sizes)


def _hostile(path: Path, released: Tensors) -> None:
    torch.save({"model": released, "meta": Payload(path.with_name("executed"))}, path)


def _hostile_pickle(path: Path, released: Tensors) -> None:
    path.write_bytes(pickle.dumps({"model": Payload(path.with_name("executed"))}, protocol=2))


def _truncated(path: Path, released: Tensors) -> None:
    torch.save({"model": released}, path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def _empty(path: Path, released: Tensors) -> None:
    path.write_bytes(b"")


def _no_tensors(path: Path, released: Tensors) -> None:
    torch.save({"model": {"epoch": 3}}, path)


def _a_list(path: Path, released: Tensors) -> None:
    torch.save([1, 2, 3], path)


def _another_model(path: Path, released: Tensors) -> None:
    torch.save({"layer4.conv1.weight": torch.zeros(2, 2)}, path)


def _a_small_file_of_a_large_tensor(path: Path, released: Tensors) -> None:
    torch.save({**released, HEAD: torch.zeros(1).expand(1 << 21, 1 << 21)}, path)


def _a_sparse_tensor(path: Path, released: Tensors) -> None:
    torch.save({**released, HEAD: torch.eye(3).to_sparse()}, path)


def _a_flipped_bit(path: Path, released: Tensors) -> None:
    torch.save({"model": released}, path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _a_broken_zip(path: Path, released: Tensors) -> None:
    torch.save({"model": released}, path)
    content = bytearray(path.read_bytes())
    content[-200:] = bytes(200)
    path.write_bytes(content)


def _a_bomb(path: Path, released: Tensors) -> None:
    torch.save({"model": released}, path)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as file:
        file.writestr("file/data/bomb", bytes(1 << 26))


def _all_compressed(path: Path, released: Tensors) -> None:
    torch.save({"model": released}, path)
    with zipfile.ZipFile(path) as file:
        records = {name: file.read(name) for name in file.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in records.items():
            file.writestr(name, content)


def _overlapping_records(path: Path, released: Tensors) -> None:
    """Many records of the same bytes."""
    torch.save({"model": released}, path)
    with zipfile.ZipFile(path, "a") as file:
        largest = max(file.infolist(), key=lambda record: record.file_size)
        for index in range(100):
            again = copy.copy(largest)
            again.filename = f"file/data/again{index}"
            file.filelist.append(again)
            file.NameToInfo[again.filename] = again
        file._didModify = True  # type: ignore[attr-defined]


def _deeply_nested(path: Path, released: Tensors) -> None:
    path.write_bytes(b"\x80\x02" + 100_000 * b"]" + 99_999 * b"a" + b".")


@pytest.mark.parametrize(
    ("write", "told"),
    [
        (_a_bomb, "unpacks to more than its [0-9]+ bytes"),
        (_all_compressed, "unpacks to more than its [0-9]+ bytes"),
        (_overlapping_records, "unpacks to more than its [0-9]+ bytes|cannot be read"),
        (_deeply_nested, "file.pt (cannot be read|is refused)"),
        (_hostile, "holds objects other than tensors, which are never loaded"),
        (_hostile_pickle, "holds objects other than tensors, which are never loaded"),
        (_truncated, "file.pt (cannot be read|is refused)"),
        (_a_broken_zip, "file.pt (cannot be read|is refused)"),
        (_a_flipped_bit, "file.pt is damaged: the checksum of .* in it is wrong"),
        (_a_small_file_of_a_large_tensor, f"holds something other than plain tensors: {HEAD}"),
        (_a_sparse_tensor, f"holds something other than plain tensors: {HEAD}"),
        (_empty, "file.pt cannot be read"),
        (_no_tensors, "holds something other than plain tensors: epoch"),
        (_a_list, "holds no tensors by name"),
        (_another_model, "it is a file of another model; its keys: detector.layer4.conv1.weight"),
    ],
)
def test_a_bad_file_is_refused_by_its_defect_and_leaves_nothing_in_the_store(
    write: Callable[[Path, Tensors], None], told: str, released: Tensors, tmp_path: Path
) -> None:
    path, store = tmp_path / "file.pt", tmp_path / "store"
    write(path, released)
    with pytest.raises(CheckpointError, match=told):
        importing.import_checkpoint("es-ev-s-mc-s0", path, store, lambda *_: None)
    assert not (tmp_path / "executed").exists()
    assert not store.exists()
