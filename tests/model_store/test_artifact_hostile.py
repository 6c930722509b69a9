"""Artefacts that name files outside themselves are refused before any runtime opens a graph."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from model_store import artifact
from model_store.artifact import MANIFEST, PACKAGED, ArtifactError
from model_store.onnx_file import ExternalData, OnnxFileError, external_data

GRAPH = "concept_masks.onnx"
WEIGHTS = f"{GRAPH}.data"
SIZE = 4096


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the embedded artefact."""
    return Path(shutil.copytree(PACKAGED / "demo", tmp_path / "store" / "demo"))


def _external(**told: str) -> TensorProto:
    tensor = numpy_helper.from_array(np.zeros(SIZE // 4, np.float32), "weights")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in told.items():
        tensor.external_data.add(key=key, value=value)
    return tensor


def _in_initializer(tensor: TensorProto) -> onnx.ModelProto:
    return helper.make_model(helper.make_graph([], "g", [], [], [tensor]))


def _in_constant(tensor: TensorProto) -> onnx.ModelProto:
    node = helper.make_node("Constant", [], ["c"], value=tensor)
    return helper.make_model(helper.make_graph([node], "g", [], []))


def _in_branch(tensor: TensorProto) -> onnx.ModelProto:
    inner = helper.make_graph([helper.make_node("Constant", [], ["c"], value=tensor)], "inner", [], [])
    node = helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=inner)
    return helper.make_model(helper.make_graph([node], "g", [], []))


def _in_function(tensor: TensorProto) -> onnx.ModelProto:
    node = helper.make_node("Constant", [], ["c"], value=tensor)
    function = helper.make_function("d", "F", [], ["c"], [node], [helper.make_opsetid("", 18)])
    return helper.make_model(helper.make_graph([], "g", [], []), functions=[function])


def _in_sparse(tensor: TensorProto) -> onnx.ModelProto:
    model = helper.make_model(helper.make_graph([], "g", [], []))
    model.graph.sparse_initializer.add().values.CopyFrom(tensor)
    return model


def _in_list(tensor: TensorProto) -> onnx.ModelProto:
    node = helper.make_node("Constant", [], ["c"])
    node.attribute.add(name="values", type=onnx.AttributeProto.TENSORS).tensors.append(tensor)
    return helper.make_model(helper.make_graph([node], "g", [], []))


def _in_training(tensor: TensorProto) -> onnx.ModelProto:
    model = helper.make_model(helper.make_graph([], "g", [], []))
    model.training_info.add().algorithm.initializer.append(tensor)
    return model


PLACES = [_in_initializer, _in_constant, _in_branch, _in_function, _in_sparse, _in_list, _in_training]


def _install(folder: Path, model: bytes, weights: bytes | None = None) -> None:
    """Make the graph of these bytes, and of the weights beside it, one that the manifest names."""
    (folder / GRAPH).write_bytes(model)
    if weights is not None:
        (folder / WEIGHTS).write_bytes(weights)

    def change(manifest: dict[str, Any]) -> None:
        manifest["graphs"]["concept_masks"]["sha256"] = hashlib.sha256(model).hexdigest()
        if weights is not None:
            manifest["files"][WEIGHTS] = hashlib.sha256(weights).hexdigest()

    _edit(folder, change)


def _edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    change(manifest)
    (folder / MANIFEST).write_text(json.dumps(manifest))


@pytest.mark.parametrize("place", PLACES)
def test_weights_beside_the_graph_that_the_manifest_lists_are_allowed(
    folder: Path, place: Callable[[TensorProto], onnx.ModelProto]
) -> None:
    model = place(_external(location=WEIGHTS, offset="0", length=str(SIZE)))
    _install(folder, model.SerializeToString(), bytes(SIZE))
    artifact.load(folder)
    found = list(external_data(folder / GRAPH))
    assert found and set(found) == {ExternalData(WEIGHTS, 0, SIZE)}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    "location",
    [
        *(
            "/etc/passwd",
            "../../outside",
            f"../demo/{WEIGHTS}",
            f"./{WEIGHTS}",
            "~/x",
            "C:\\x",
            "..\\outside",
        ),
        *(
            "file:///etc/passwd",
            "*/_ORT_MEM_ADDR_/*",
            "",
            ".",
            "..",
            MANIFEST,
            "image_encoder.onnx",
            "unlisted",
        ),
    ],
)
def test_a_graph_refers_to_no_file_that_the_manifest_does_not_list(
    folder: Path, place: Callable[[TensorProto], onnx.ModelProto], location: str
) -> None:
    (folder / "unlisted").write_bytes(bytes(SIZE))
    (folder.parents[1] / "outside").write_bytes(bytes(SIZE))
    model = place(_external(location=location))
    _install(folder, model.SerializeToString(), bytes(SIZE))
    with pytest.raises(ArtifactError, match="is no file of the artefact"):
        artifact.load(folder)


@pytest.mark.parametrize(
    "told",
    [
        {"offset": "-1"},
        {"length": "-1"},
        {"offset": str(SIZE + 1)},
        {"offset": "0", "length": str(SIZE + 1)},
        {"offset": str(SIZE), "length": "1"},
        {"offset": str(2**63), "length": "8"},
        {"offset": "1e3"},
        {"offset": "0x10"},
        {"offset": "٣"},
        {"length": 5000 * "9"},
        {"basepath": "/etc"},
    ],
)
def test_numbers_that_are_not_within_the_file_are_refused(folder: Path, told: dict[str, str]) -> None:
    model = _in_initializer(_external(location=WEIGHTS, **told))
    _install(folder, model.SerializeToString(), bytes(SIZE))
    with pytest.raises(ArtifactError) as failure:
        artifact.load(folder)
    assert GRAPH in str(failure.value) and len(str(failure.value)) < 400


def test_a_location_that_is_there_twice_is_refused(folder: Path) -> None:
    tensor = _external(location=WEIGHTS)
    tensor.external_data.add(key="location", value="/etc/passwd")
    _install(folder, _in_initializer(tensor).SerializeToString(), bytes(SIZE))
    with pytest.raises(ArtifactError, match="is not described by a location"):
        artifact.load(folder)


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"\x00", b"\xff" * 100, b"ORTM" + bytes(100), b"<?xml version='1.0'?><net/>", b"\x08\x07"),
        b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
        b"\x3a\x05abc",
    ],
)
def test_what_is_no_onnx_model_is_refused(folder: Path, content: bytes) -> None:
    _install(folder, content)
    with pytest.raises(ArtifactError, match="cannot be read as an ONNX model"):
        artifact.load(folder)


def test_graphs_within_graphs_have_an_end(tmp_path: Path) -> None:
    # A length in front of what it holds, again and again: Model -> Graph -> Node -> Attribute -> Graph ...
    content = b""
    for tag in [0x32, 0x2A, 0x0A] * 200:
        size = len(content)
        length = bytearray()
        while size > 0x7F:
            length.append(size & 0x7F | 0x80)
            size >>= 7
        content = bytes([tag, *length, size]) + content
    (tmp_path / GRAPH).write_bytes(b"\x3a" + _varint(len(content)) + content)
    with pytest.raises(OnnxFileError, match="nested more than 64 levels deep"):
        list(external_data(tmp_path / GRAPH))


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


@pytest.mark.parametrize("name", [GRAPH, WEIGHTS, "tokenizer.json", MANIFEST])
@pytest.mark.parametrize("kind", ["symlink", "hard link", "folder", "pipe"])
def test_links_and_devices_are_refused(folder: Path, name: str, kind: str) -> None:
    _install(folder, _in_initializer(_external(location=WEIGHTS)).SerializeToString(), bytes(SIZE))
    outside = folder.parents[1] / "outside"
    (folder / name).rename(outside)
    match kind:
        case "symlink":
            (folder / name).symlink_to(outside)
        case "hard link":
            os.link(outside, folder / name)
        case "folder":
            (folder / name).mkdir()
        case "pipe" if name != MANIFEST:
            os.mkfifo(folder / name)
        case _:
            return
    with pytest.raises(ArtifactError) as failure:
        artifact.load(folder)
    assert name in str(failure.value) and str(failure.value).isprintable()


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
@pytest.mark.parametrize(
    "change",
    [
        lambda folder: _install(
            folder, _in_initializer(_external(location="/etc/passwd")).SerializeToString()
        ),
        lambda folder: (folder / MANIFEST).write_bytes(100_000 * b"["),
    ],
)
def test_a_worker_says_in_one_line_what_is_wrong(
    folder: Path, engine: str, change: Callable[[Path], object]
) -> None:
    change(folder)
    command = [sys.executable, "-m", "service.cli", "worker", "demo", "--store", str(folder.parent)]
    listen = ["--listen", f"unix:{folder.parent}/socket", "--engine", engine]
    done = subprocess.run([*command, *listen], capture_output=True, text=True, timeout=300)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("efficientsam3: ")
    assert str(folder) in done.stderr.replace("\n", "")
