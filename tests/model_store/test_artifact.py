import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from model_store import artifact
from model_store.artifact import ArtifactError


@pytest.fixture
def copied(artefact: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(artefact, tmp_path / "copy"))


def test_what_was_written_is_read_back(artefact: Path, tmp_path: Path) -> None:
    loaded = artifact.load(artefact)
    artifact.write(tmp_path, loaded.manifest)
    assert artifact.read(tmp_path) == loaded.manifest
    assert (tmp_path / artifact.MANIFEST).read_bytes() == (artefact / artifact.MANIFEST).read_bytes()


def test_the_digest_changes_with_the_manifest(copied: Path, artefact: Path) -> None:
    assert artifact.load(copied).digest == artifact.load(artefact).digest
    _edit(copied, lambda manifest: manifest.update(score_threshold=0.25))
    assert artifact.load(copied).digest != artifact.load(artefact).digest


@pytest.mark.parametrize("name", ["concept_masks.onnx", "tokenizer.json"])
def test_a_changed_file_is_noticed(copied: Path, name: str) -> None:
    content = bytearray((copied / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copied / name).write_bytes(content)
    with pytest.raises(ArtifactError, match=rf"{name} is not the file its manifest names"):
        artifact.load(copied)


def test_every_file_beside_the_graphs_is_noticed(copied: Path) -> None:
    (copied / "text_encoder.onnx.data").write_bytes(b"weights")
    manifest = artifact.read(copied)
    (copied / artifact.MANIFEST).unlink()
    files = artifact.others(copied, manifest.graphs)
    assert files.keys() == {"text_encoder.onnx.data", "tokenizer.json"}
    artifact.write(copied, replace(manifest, files=files))
    artifact.load(copied)
    (copied / "text_encoder.onnx.data").write_bytes(b"heights")
    with pytest.raises(ArtifactError, match=r"text_encoder\.onnx\.data is not the file"):
        artifact.load(copied)


def test_a_missing_file_is_named(copied: Path) -> None:
    (copied / "text_encoder.onnx").unlink()
    with pytest.raises(ArtifactError, match=r"text_encoder\.onnx is missing"):
        artifact.load(copied)


def _edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    manifest = json.loads((folder / artifact.MANIFEST).read_text())
    change(manifest)
    (folder / artifact.MANIFEST).write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda m: m.update(schema=1), "is of schema 1; this version reads schema 3"),
        (lambda m: m.pop("schema"), "is of schema None"),
        (lambda m: m.pop("licence"), "missing licence"),
        (lambda m: m.update(colour="blue"), "unknown colour"),
        (lambda m: m.update(image_size="large"), "image_size is 'large'"),
        (lambda m: m.update(synthetic=1), "synthetic is 1"),
        (lambda m: m["graphs"]["concept_masks"].pop("sha256"), r"graphs\.concept_masks: missing sha256"),
        (lambda m: m["graphs"]["concept_masks"]["inputs"][1].update(shape=[1.5]), r"inputs\[1\]\.shape\[0\]"),
        (lambda m: m["graphs"]["concept_masks"].update(file="../x.onnx"), "no plain file name"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(
    copied: Path, change: Callable[[dict[str, Any]], object], told: str
) -> None:
    _edit(copied, change)
    with pytest.raises(ArtifactError, match=told):
        artifact.load(copied)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff\xfe"])
def test_a_manifest_that_is_no_json_object_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / artifact.MANIFEST).write_bytes(content)
    with pytest.raises(ArtifactError, match=r"manifest\.json"):
        artifact.read(tmp_path)


def test_a_folder_without_a_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="there is no"):
        artifact.read(tmp_path)


def test_the_store_comes_before_what_the_package_brings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, packaged = tmp_path / "store", tmp_path / "packaged"
    monkeypatch.setattr(artifact, "PACKAGED", packaged)
    assert artifact.folder_of(store, "demo") is None
    for place in (packaged, store):
        (place / "demo").mkdir(parents=True)
        # A folder without a manifest is none.
        assert artifact.folder_of(store, "demo") in (None, packaged / "demo")
        (place / "demo" / artifact.MANIFEST).write_text("{}")
        assert artifact.folder_of(store, "demo") == place / "demo"
