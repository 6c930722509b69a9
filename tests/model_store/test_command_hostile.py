"""`efficientsam3 variants pull --from` a hostile address or server: one line, and nothing in the store."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from model_store.artifact import MANIFEST, PACKAGED
from tests.model_store.hostile_server import HostileServer

FILES = {file.name: file.read_bytes() for file in (PACKAGED / "demo").iterdir()}
GRAPH = "concept_masks.onnx"


def pull(store: Path, address: str, manifest: bytes) -> str:
    """Run the command, which must fail; return its one line of complaint."""
    digest = hashlib.sha256(manifest).hexdigest()
    options = ["--store", str(store), "--from", address, "--digest", digest]
    command = [sys.executable, "-m", "service.cli", "variants", "pull", "demo", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert not store.exists() or list(store.iterdir()) == []
    return done.stderr.replace("\n", "")


def referring(location: str) -> dict[str, bytes]:
    """Return the files of an artifact whose graph has its weights in another file, rightly announced."""
    tensor = numpy_helper.from_array(np.zeros(8, np.float32), "weights")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    model = helper.make_model(helper.make_graph([], "g", [], [], [tensor])).SerializeToString()
    manifest: dict[str, Any] = json.loads(FILES[MANIFEST])
    manifest["graphs"]["concept_masks"].update(sha256=hashlib.sha256(model).hexdigest(), bytes=len(model))
    return {**FILES, GRAPH: model, MANIFEST: json.dumps(manifest).encode()}


@pytest.mark.parametrize("location", ["/etc/passwd", "../../outside", "tokenizer.json/../../x", MANIFEST])
def test_a_graph_that_refers_to_another_file_stays_out(tmp_path: Path, location: str) -> None:
    files = referring(location)
    with HostileServer(files) as server:
        complaint = pull(tmp_path / "store", server.address, files[MANIFEST])
    assert GRAPH in complaint and "is no file of the artefact" in complaint


@pytest.mark.parametrize(
    "manifest", [b'{"schema": 3, "x": ' + 100_000 * b"[", 100_000 * b'{"a":', b"\xff\xfe"]
)
def test_a_manifest_that_cannot_be_read_is_one_line(tmp_path: Path, manifest: bytes) -> None:
    with HostileServer({**FILES, MANIFEST: manifest}) as server:
        complaint = pull(tmp_path / "store", server.address, manifest)
    assert MANIFEST in complaint


@pytest.mark.parametrize(
    "address",
    [
        "http://127.0.0.1:{port}\\@host/demo",
        "https://localhost:{port}\\@host/demo",
        "http://host\\@127.0.0.1:{port}/demo",
        "http://user:hunter2@127.0.0.1:{port}/demo",
        "http://127.0.0.1:{port}#@host/demo",
        "http://127.0.0.1:{port}?@host/demo",
        "http:127.0.0.1:{port}/demo",
        "http://127.0.0.1:{port}\t/demo",
        "file:///etc",
        "",
    ],
)
def test_an_address_that_can_be_read_in_two_ways_is_refused(tmp_path: Path, address: str) -> None:
    with HostileServer(FILES) as server:
        port = server.address.rpartition(":")[2].partition("/")[0]
        complaint = pull(tmp_path / "store", address.replace("{port}", port), FILES[MANIFEST])
        assert not server.asked
    assert "efficientsam3: " in complaint and "hunter2" not in complaint
