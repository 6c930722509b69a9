"""What runs graphs: one protocol, two runtimes, and the choice between them."""

from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from service.config import Device, Precision, WorkerSettings

Tensors = Mapping[str, NDArray[Any]]


class EngineError(Exception):
    """The engine is not there, or cannot do what a setting asks; the message names the setting."""


class Graphs(Protocol):
    """What runs the graphs of one artefact."""

    def run(self, graph: str, inputs: Tensors) -> dict[str, NDArray[Any]]:
        """The graph's outputs by name; they are the caller's own. Raises KeyError for an unknown graph."""


class Engine(Graphs, Protocol):
    """A runtime with the graphs of one artefact. Several threads may run graphs at the same time."""

    @property
    def name(self) -> str:
        """The runtime, its version and its device, for people."""

    @property
    def precisions(self) -> Mapping[str, Precision]:
        """The precision that each graph computes in; inputs and outputs keep the manifest's types."""

    def close(self) -> None:
        """Give back what the runtime holds. Nothing runs meanwhile, and the engine is not used afterwards."""


def open_engine(graphs: Mapping[str, Path], settings: WorkerSettings) -> Engine:
    """Load every graph (name -> ONNX file) into the engine that the settings choose.

    Raises EngineError when the engine is not installed, cannot honour a precision, has no such device or
    cannot load a graph.
    """
    unknown = sorted(settings.graph_precision.keys() - graphs.keys())
    if unknown:
        raise EngineError(f"graph_precision names no graph: {', '.join(unknown)}")
    asked = {graph: settings.graph_precision.get(graph, settings.precision) for graph in graphs}
    name = _choice(settings.device) if settings.engine == "auto" else settings.engine
    return _OPEN[name](graphs, asked, settings)


def _choice(device: Device) -> str:
    """onnxruntime on a CUDA device, else OpenVINO where it is installed, else onnxruntime."""
    if device == "cuda":
        return "onnxruntime"
    if device == "auto" and _installed("onnxruntime-gpu"):
        from service.worker.engines.onnxruntime import has_cuda

        if has_cuda():
            return "onnxruntime"
    return "openvino" if _installed("openvino") else "onnxruntime"


def _installed(name: str) -> bool:
    try:
        return bool(distribution(name))
    except PackageNotFoundError:
        return False


def _open_openvino(
    graphs: Mapping[str, Path], asked: Mapping[str, Precision], settings: WorkerSettings
) -> Engine:
    if settings.device == "cuda":
        raise EngineError("device cuda: engine openvino computes on the processor; onnxruntime is for CUDA")
    try:
        from service.worker.engines.openvino import OpenVinoEngine
    except ImportError as error:
        raise EngineError(f"engine openvino is not installed: {error}") from error
    return OpenVinoEngine(graphs, asked, settings.threads)


def _open_onnxruntime(
    graphs: Mapping[str, Path], asked: Mapping[str, Precision], settings: WorkerSettings
) -> Engine:
    try:
        from service.worker.engines.onnxruntime import OnnxRuntimeEngine
    except ImportError as error:
        raise EngineError(f"engine onnxruntime is not installed: {error}") from error
    return OnnxRuntimeEngine(graphs, asked, settings.threads, settings.device)


_OPEN: dict[str, Callable[[Mapping[str, Path], Mapping[str, Precision], WorkerSettings], Engine]] = {
    "openvino": _open_openvino,
    "onnxruntime": _open_onnxruntime,
}
