"""Graphs on onnxruntime: a CUDA device where there is one, else the processor."""

import ctypes
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnxruntime as ort
from numpy.typing import NDArray

from service.config import Device, Precision
from service.worker.engines import EngineError, Tensors

_CUDA = "CUDAExecutionProvider"
_CPU = "CPUExecutionProvider"


class OnnxRuntimeEngine:
    """One session per graph, in f32."""

    def __init__(
        self, graphs: Mapping[str, Path], asked: Mapping[str, Precision], threads: int, device: Device
    ) -> None:
        """Load every graph. `threads` 0: the processor's cores. Raises EngineError, also where `device` is
        "cuda" and there is none."""
        ort.disable_telemetry_events()
        cuda = device != "cpu" and has_cuda()
        if device == "cuda" and not cuda:
            raise EngineError(f"device cuda: onnxruntime {ort.__version__} {_lack()}")
        if cuda:
            ort.preload_dlls()  # CUDA and cuDNN from their Python packages, where they are installed
        self.name = f"onnxruntime {ort.__version__} on {'CUDA' if cuda else 'the processor'}"
        self.precisions: dict[str, Precision] = {
            graph: _settle(graph, precision) for graph, precision in asked.items()
        }
        self._sessions = {graph: _load(file, cuda, threads) for graph, file in graphs.items()}

    def run(self, graph: str, inputs: Tensors) -> dict[str, NDArray[Any]]:
        """See Engine."""
        session = self._sessions[graph]
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, session.run(names, dict(inputs)), strict=True))

    def close(self) -> None:
        """Drop the sessions."""
        self._sessions.clear()


def has_cuda() -> bool:
    """True when onnxruntime was built with CUDA and the driver shows it a device."""
    if _CUDA not in ort.get_available_providers():
        return False
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    count = ctypes.c_int()
    return driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0


def _lack() -> str:
    """What `has_cuda` misses, for people."""
    if _CUDA not in ort.get_available_providers():
        return "was built without CUDA; onnxruntime-gpu has it"
    return "finds no CUDA device, or no driver for one"


def _settle(graph: str, asked: Precision) -> Precision:
    if asked not in ("auto", "f32"):
        raise EngineError(f"precision {asked} of {graph}: onnxruntime runs these graphs in f32 only")
    return "f32"


def _load(file: Path, cuda: bool, threads: int) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    # f32 is real f32: no TF32 on CUDA.
    providers: list[Any] = [(_CUDA, {"use_tf32": "0"}), _CPU] if cuda else [_CPU]
    try:
        session = ort.InferenceSession(file, options, providers=providers)
    except Exception as error:  # the runtime's exceptions share no base of their own
        raise EngineError(f"onnxruntime cannot load {file}: {str(error).splitlines()[0]}") from error
    if cuda and _CUDA not in session.get_providers():
        raise EngineError("onnxruntime finds a CUDA device but not the CUDA and cuDNN libraries it needs")
    return session
