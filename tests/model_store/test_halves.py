from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from model_store.artifact import StoreError
from model_store.halves import halve


def _graph(path: Path, weights: np.ndarray) -> None:
    """y = x W + b"""
    nodes = [helper.make_node("Gemm", ["x", "w", "b"], ["y"])]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", weights.shape[0]])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", weights.shape[1]])]
    bias = numpy_helper.from_array(np.full(weights.shape[1], 1 / 3, np.float32), "b")
    graph = helper.make_graph(nodes, "g", inputs, outputs, [numpy_helper.from_array(weights, "w"), bias])
    opset = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), path)


def test_large_weights_are_rounded_to_f16_and_small_ones_kept(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    weights = generator.standard_normal((64, 48)).astype(np.float32)
    x = generator.standard_normal((3, 64)).astype(np.float32)
    path = tmp_path / "g.onnx"
    _graph(path, weights)
    before = path.stat().st_size
    halve(path)
    assert path.stat().st_size < 0.6 * before
    (y,) = onnxruntime.InferenceSession(path).run(None, {"x": x})
    expected = x @ weights.astype(np.float16).astype(np.float32) + np.float32(1 / 3)
    assert np.abs(y - expected).max() < 1e-5


def test_a_weight_beyond_f16_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "g.onnx"
    _graph(path, np.full((64, 48), 1e5, np.float32))
    with pytest.raises(StoreError, match="the weight w does not fit into f16"):
        halve(path)
