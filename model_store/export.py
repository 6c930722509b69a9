"""A student -> its graphs as ONNX, each compared with the torch module it was made from."""

# mypy: allow-untyped-calls

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir
import onnx_ir.passes.common as passes
import onnxruntime
import torch
from numpy.typing import NDArray
from onnxscript import optimizer, rewriter
from onnxscript.rewriter.rules.common import fuse_batchnorm_into_conv_rule
from torch import nn

from model_store import sample
from model_store.artifact import Graph, StoreError, Tensor, sha256_of
from model_store.halves import halve
from model_store.networks.graph_spec import GraphSpec
from model_store.networks.graphs import graphs
from model_store.networks.roi import translations
from model_store.networks.student import Student

_OPSET = 20
# Sizes given to the dynamic axes while tracing: unlike one another and unlike 0 and 1, which the exporter
# would take for constants.
_TRACED = {"N": 2, "B": 3, "J": 6, "K": 4, "P": 21, "Q": 5, "F": 8, "G": 9}

Report = Callable[[str, float], None]
Arrays = dict[str, NDArray[Any]]


class ExportError(StoreError):
    """A graph could not be exported, or does not agree with its torch module."""


def export(
    student: Student, folder: Path, report: Report, *, texts: bool = True, halves: bool = False
) -> dict[str, Graph]:
    """Writes `<graph>.onnx` for every graph of the student into the folder.

    Each is run by onnxruntime on what the sample picture and text give it, and compared with torch.

    Args:
        report: called with ("export <graph>" or "check <graph>", fraction 0..1).
        texts: False leaves the text encoder out.
        halves: True keeps the weights as f16 in the files. The bounds are those of the graphs before, what is
            recorded is how far they are off afterwards.

    Raises:
        ExportError: a graph differs from its module by more than its bound.
    """
    values = _sample_inputs(student)
    made: dict[str, Graph] = {}
    for spec in graphs(student, texts=texts):
        report(f"export {spec.name}", 0.0)
        path = folder / f"{spec.name}.onnx"
        write_graph(spec, spec.folded(student), path)
        report(f"export {spec.name}", 1.0)
        report(f"check {spec.name}", 0.0)
        difference, bound = _compare(spec, student, path, values)
        if halves:
            halve(path)
            difference = _difference(spec, path, values)
        values.update(_following(student, spec.name, values))
        report(f"check {spec.name}", 1.0)
        made[spec.name] = Graph(
            file=path.name,
            sha256=sha256_of(path),
            bytes=sum(each.stat().st_size for each in folder.glob(f"{path.name}*")),
            inputs=spec.inputs,
            outputs=spec.outputs,
            difference=difference,
            bound=bound,
        )
    return made


def write_graph(spec: GraphSpec, module: nn.Module, path: Path) -> None:
    """Exports the module as the graph that `spec` describes."""
    with _quiet():
        program = torch.onnx.export(
            module,
            tuple(_traced(tensor) for tensor in spec.inputs),
            dynamo=True,
            opset_version=_OPSET,
            input_names=[tensor.name for tensor in spec.inputs],
            output_names=[tensor.name for tensor in spec.outputs],
            dynamic_shapes=tuple(_dynamic(tensor) for tensor in spec.inputs),
            custom_translation_table=translations(),
            external_data=False,
            optimize=False,
            verbose=False,
        )
        assert program is not None
        _simplify(program.model)
    program.save(path)


def _simplify(model: onnx_ir.Model) -> None:
    """Folds constants and batch normalisations.

    The exporter's own optimisation does that too, but tries every rule it knows on every node, which takes
    most of an export's time and leaves the graph as fast as this does.
    """
    optimizer.inline(model)
    optimizer.fold_constants(model, onnx_shape_inference=True)
    rewriter.RewritePass([fuse_batchnorm_into_conv_rule])(model)
    tidy = (
        passes.RemoveUnusedNodesPass(),
        passes.RemoveUnusedFunctionsPass(),
        passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        passes.DeduplicateInitializersPass(),
        passes.CommonSubexpressionEliminationPass(),
        passes.RemoveUnusedNodesPass(),
        # Stack traces, with the paths of this machine.
        passes.ClearMetadataAndDocStringPass(),
    )
    onnx_ir.passes.Sequential(*tidy)(model)


def _traced(tensor: Tensor) -> torch.Tensor:
    shape = [axis if isinstance(axis, int) else _TRACED[axis] for axis in tensor.shape]
    return torch.zeros(shape, dtype=getattr(torch, tensor.dtype))


def _dynamic(tensor: Tensor) -> dict[int, Any]:
    return {i: torch.export.Dim(axis) for i, axis in enumerate(tensor.shape) if isinstance(axis, str)}


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's notes on how it names axes and constants; its errors are exceptions."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _sample_inputs(student: Student) -> Arrays:
    """What no graph gives."""
    return {
        "pixels": sample.picture(student.sizes.image_size)[None],
        "tokens": sample.tokens(student.sizes.text.context, student.sizes.text.vocabulary),
        **sample.exemplars(),
        **sample.objects(student.sizes.mask_size),
    }


def _compare(
    spec: GraphSpec, student: Student, path: Path, values: Arrays
) -> tuple[Mapping[str, float], Mapping[str, float]]:
    """Largest absolute difference per output, and the bound on it.

    Adds torch's outputs to `values` for the graphs that follow.
    """
    names = [tensor.name for tensor in spec.outputs]
    expected = run_torch(spec.reference(student), [values[tensor.name] for tensor in spec.inputs])
    values.update(zip(names, expected, strict=True))
    difference = _difference(spec, path, values)
    bound = {name: spec.bound * _scale(values[name]) for name in names}
    beyond = [name for name, value in difference.items() if not value <= bound[name]]
    if beyond:
        listed = ", ".join(f"{name} by {difference[name]:.1e} (bound {bound[name]:.0e})" for name in beyond)
        raise ExportError(f"the graph {spec.name} differs from its module: {listed}")
    return difference, bound


def _difference(spec: GraphSpec, path: Path, values: Arrays) -> dict[str, float]:
    """The largest, by output, between what the file gives and what torch gave, which `values` has."""
    names = [tensor.name for tensor in spec.outputs]
    found = _run_onnx(path, names, {tensor.name: values[tensor.name] for tensor in spec.inputs})
    return {name: _largest(values[name], array) for name, array in zip(names, found, strict=True)}


def _scale(expected: NDArray[Any]) -> float:
    """What the bound is multiplied with: f32 keeps seven digits, so beyond 10 it grows with the values."""
    return max(1.0, float(np.abs(expected).max()) / 10) if expected.dtype != np.bool_ else 1.0


def _following(student: Student, graph: str, values: Arrays) -> Arrays:
    """What the sample's objects need after a graph and no graph gives."""
    if graph == "interactive_features":
        no_memory = student.objects.no_memory.numpy().reshape(1, -1, 1, 1)
        return {"conditioned": (values["interactive_x1"] + no_memory)[values["image"]]}
    if graph == "prompt_decoder" and student.abilities.memory:
        logits = torch.from_numpy(values["mask_logits"][:, 0])
        with torch.inference_mode():
            levels = student.memory.encoder.level(logits, torch.tensor([True, False]))
        return {"mask_levels": levels.numpy()}
    if graph == "memory_encoder":
        return sample.past(values["memory"])
    return {}


def _run_onnx(path: Path, names: Sequence[str], feeds: Arrays) -> list[NDArray[Any]]:
    options = onnxruntime.SessionOptions()
    # One run needs no arena, which would keep several attention matrices (860 MB each) beside the one in use.
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    found: list[NDArray[Any]] = session.run(list(names), feeds)
    return found


def run_torch(module: nn.Module, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
    """The module's outputs on these inputs, as arrays."""
    with torch.inference_mode():
        outputs = module(*(torch.from_numpy(array) for array in inputs))
    return [tensor.numpy() for tensor in (outputs if isinstance(outputs, tuple) else (outputs,))]


def _largest(expected: NDArray[Any], found: NDArray[Any]) -> float:
    if expected.dtype == np.bool_:
        return float((expected != found).max())
    return float(np.abs(expected.astype(np.float64) - found).max())
