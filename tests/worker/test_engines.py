"""Both engines on small graphs: names, dynamic axes, real f32, and what is refused at start."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
from numpy.typing import NDArray

from service.config import EngineName, WorkerSettings
from service.worker.engines import EngineError, open_engine
from service.worker.engines.onnxruntime import has_cuda

PRODUCT = """
<ir_version: 8, opset_import: ["" : 18]>
product (float[N, 64] left, float[64, M] right) => (float[N, M] out, float[N, 64] twice) {
    out = MatMul(left, right)
    twice = Add(left, left)
}
"""
NEGATION = """
<ir_version: 8, opset_import: ["" : 18]>
negation (bool[N] yes, int32[N] number) => (bool[N] no, int32[N] same) {
    no = Not(yes)
    same = Identity(number)
}
"""
ENGINES: list[EngineName] = ["openvino", "onnxruntime"]
both = pytest.mark.parametrize("engine", ENGINES)


@pytest.fixture
def graphs(tmp_path: Path) -> dict[str, Path]:
    files = {}
    for name, text in (("product", PRODUCT), ("negation", NEGATION)):
        files[name] = tmp_path / f"{name}.onnx"
        onnx.save(onnx.parser.parse_model(text), files[name])
    return files


def _inputs(rows: int, columns: int) -> dict[str, NDArray[Any]]:
    random = np.random.default_rng(5)
    return {
        "left": random.standard_normal((rows, 64), np.float32),
        "right": random.standard_normal((64, columns), np.float32),
    }


@both
def test_outputs_come_by_name_for_any_size_of_a_dynamic_axis(
    graphs: dict[str, Path], engine: EngineName
) -> None:
    opened = open_engine(graphs, WorkerSettings(engine=engine, precision="f32", threads=1))
    for rows, columns in ((1, 3), (4, 1), (1, 3)):
        inputs = _inputs(rows, columns)
        outputs = opened.run("product", inputs)
        assert outputs.keys() == {"out", "twice"}
        assert np.abs(outputs["out"] - inputs["left"] @ inputs["right"]).max() < 1e-5
        assert np.array_equal(outputs["twice"], 2 * inputs["left"])
    outputs = opened.run("negation", {"yes": np.array([True, False]), "number": np.array([3, -10], np.int32)})
    assert outputs["no"].tolist() == [False, True] and outputs["no"].dtype == np.bool_
    assert outputs["same"].tolist() == [3, -10] and outputs["same"].dtype == np.int32
    opened.close()


@both
def test_outputs_are_the_callers_own(graphs: dict[str, Path], engine: EngineName) -> None:
    opened = open_engine(graphs, WorkerSettings(engine=engine, threads=1))
    first = opened.run("product", _inputs(2, 2))["twice"]
    kept = first.copy()
    opened.run("product", {name: 3 * values for name, values in _inputs(2, 2).items()})
    opened.close()
    assert np.array_equal(first, kept)


def test_precision_is_chosen_graph_by_graph(graphs: dict[str, Path]) -> None:
    probe = open_engine(graphs, WorkerSettings(engine="openvino", threads=1))
    best = set(probe.precisions.values())
    assert len(best) == 1 and best <= {"bf16", "f32"}
    assert probe.name.startswith("OpenVINO 20")
    mixed = open_engine(
        graphs, WorkerSettings(engine="openvino", graph_precision={"product": "f32"}, threads=1)
    )
    assert mixed.precisions == {"product": "f32", "negation": next(iter(best))}


def test_auto_on_openvino_is_bf16_where_the_processor_has_it(graphs: dict[str, Path]) -> None:
    auto = open_engine(graphs, WorkerSettings(engine="openvino", threads=1))
    inputs = _inputs(64, 64)
    error = np.abs(auto.run("product", inputs)["out"] - inputs["left"] @ inputs["right"]).max()
    assert (error > 1e-3) == (auto.precisions["product"] == "bf16")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"engine": "onnxruntime", "precision": "bf16"}, "precision bf16 of product: onnxruntime"),
        (
            {"engine": "onnxruntime", "graph_precision": {"negation": "f16"}},
            "precision f16 of negation: onnxruntime",
        ),
        ({"engine": "openvino", "device": "cuda"}, "device cuda: engine openvino computes on the processor"),
        (
            {"engine": "auto", "graph_precision": {"nothing": "f32"}},
            "graph_precision names no graph: nothing",
        ),
    ],
)
def test_what_an_engine_cannot_honour_is_refused_by_name(
    graphs: dict[str, Path], settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(EngineError, match=words):
        open_engine(graphs, WorkerSettings(threads=1, **settings))


@pytest.mark.parametrize("engine", ["auto", "onnxruntime"])
def test_a_worker_that_needs_a_gpu_does_not_go_on_without(
    graphs: dict[str, Path], engine: EngineName
) -> None:
    if has_cuda():
        opened = open_engine(graphs, WorkerSettings(engine=engine, device="cuda", threads=1))
        assert opened.name.endswith("on CUDA")
        opened.close()
    else:
        with pytest.raises(
            EngineError, match=r"device cuda: onnxruntime 1\..* (no CUDA device|without CUDA)"
        ):
            open_engine(graphs, WorkerSettings(engine=engine, device="cuda", threads=1))
    processor = open_engine(graphs, WorkerSettings(engine="onnxruntime", device="cpu", threads=1))
    assert processor.name.endswith("on the processor")


def test_openvino_is_imported_without_its_usage_reports() -> None:
    program = (
        "import sys, service.worker.engines.openvino as engine; "
        "assert engine.OpenVinoEngine and sys.modules['openvino_telemetry'] is None; "
        "assert not [name for name in sys.modules if name.startswith('openvino_telemetry.')]"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@both
def test_a_graph_that_cannot_be_loaded_is_named(graphs: dict[str, Path], engine: EngineName) -> None:
    graphs["product"].write_bytes(b"no graph")
    with pytest.raises(EngineError, match=r"cannot load .*product\.onnx"):
        open_engine(graphs, WorkerSettings(engine=engine, threads=1))
