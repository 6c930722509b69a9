"""Weights of a graph kept as f16 in its file: half the bytes, and f32 arithmetic as before."""

from pathlib import Path

import numpy as np
import onnx_ir as ir

from model_store.artifact import StoreError

# Smaller tensors stay as they are: they are mostly gains, biases and tables of positions.
_FEW = 64


def halve(path: Path) -> None:
    """Rewrites the ONNX file: each large f32 weight as f16, with a cast to f32 after it, which runtimes fold.

    Raises:
        StoreError: a weight is too large for f16.
    """
    model = ir.load(path)
    graph = model.graph
    for name, value in list(graph.initializers.items()):
        weights = value.const_value
        if weights is None or weights.dtype != ir.DataType.FLOAT or weights.size < _FEW:
            continue
        # What a graph gives out as it is, nothing computes with.
        if value.is_graph_output():
            continue
        with np.errstate(over="ignore"):
            half = weights.numpy().astype(np.float16)
        if not np.isfinite(half).all():
            raise StoreError(f"{path.name}: the weight {name} does not fit into f16")
        kept = ir.Value(name=f"{name}.f16", const_value=ir.tensor(half, name=f"{name}.f16"))
        kept.dtype, kept.shape = ir.DataType.FLOAT16, ir.Shape(half.shape)
        cast = ir.node("Cast", [kept], attributes={"to": ir.DataType.FLOAT.value}, name=f"{name}.f32")
        value.replace_all_uses_with(cast.outputs[0])
        cast.outputs[0].name = name
        cast.outputs[0].dtype, cast.outputs[0].shape = ir.DataType.FLOAT, value.shape
        del graph.initializers[name]
        graph.register_initializer(kept)
        graph.insert_before(graph[0], cast)
    ir.save(model, path)
