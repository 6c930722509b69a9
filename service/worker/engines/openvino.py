"""Graphs on OpenVINO's CPU plugin."""

import sys
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from service.config import Precision
from service.worker.engines import EngineError, Tensors

# Importing openvino sends a usage report unless its telemetry is missing; it then does without.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

import openvino as ov  # noqa: E402
import openvino.properties as props  # noqa: E402
import openvino.properties.hint as hint  # noqa: E402

_TYPES: dict[Precision, ov.Type] = {"f32": ov.Type.f32, "bf16": ov.Type.bf16, "f16": ov.Type.f16}
# Each holds a graph's weights twice while it is compiled.
_COMPILED_AT_ONCE = 2
_CAPABILITIES: dict[str, Precision] = {"FP32": "f32", "BF16": "bf16", "FP16": "f16"}


class OpenVinoEngine:
    """One compiled model per graph, and one infer request of it per thread.

    A compiled model runs one request at a time: another thread's waits in OpenVINO, and begins without Python
    when that ends.
    """

    def __init__(self, graphs: Mapping[str, Path], asked: Mapping[str, Precision], threads: int) -> None:
        """Read and compile every graph. `threads` 0: the processor's cores. Raises EngineError."""
        core = ov.Core()
        capable = core.get_property("CPU", props.device.capabilities)
        self._able = {precision for name, precision in _CAPABILITIES.items() if name in capable}
        self.name = f"OpenVINO {ov.get_version()} on {core.get_property('CPU', props.device.full_name)}"
        self.precisions: dict[str, Precision] = {
            graph: self._settle(graph, precision) for graph, precision in asked.items()
        }
        # Compiling is one thread's work for each graph, so two at a time take half as long.
        with ThreadPoolExecutor(_COMPILED_AT_ONCE) as pool:
            compiled = {
                graph: pool.submit(self._load, core, graph, file, threads) for graph, file in graphs.items()
            }
        self._compiled = {graph: model.result() for graph, model in compiled.items()}
        self._requests = threading.local()

    def run(self, graph: str, inputs: Tensors) -> dict[str, NDArray[Any]]:
        """See Engine. Inputs are read in place; outputs are copies."""
        requests: dict[str, ov.InferRequest] = vars(self._requests)
        if graph not in requests:
            requests[graph] = self._compiled[graph].create_infer_request()
        results = requests[graph].infer(dict(inputs), share_inputs=True)
        return {output.any_name: values for output, values in results.items()}

    def close(self) -> None:
        """Drop the compiled models."""
        self._requests = threading.local()
        self._compiled.clear()

    def _settle(self, graph: str, asked: Precision) -> Precision:
        if asked == "auto":
            return "bf16" if "bf16" in self._able else "f32"
        if asked not in self._able:
            able = ", ".join(sorted(self._able))
            raise EngineError(f"precision {asked} of {graph}: OpenVINO on this processor can do {able}")
        return asked

    def _load(self, core: ov.Core, graph: str, file: Path, threads: int) -> ov.CompiledModel:
        config: dict[str, Any] = {
            hint.inference_precision: _TYPES[self.precisions[graph]],
            hint.performance_mode: hint.PerformanceMode.LATENCY,
            hint.num_requests: 1,
            props.inference_num_threads: threads,
        }
        try:
            return core.compile_model(file, "CPU", config)
        except RuntimeError as error:
            raise EngineError(f"OpenVINO cannot load {file}: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    """The cause; lines that begin "Exception from" or "Check" tell where in OpenVINO it was raised."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    causes = [line for line in lines if not line.startswith(("Exception from", "Check "))]
    return (causes or lines or [type(error).__name__])[0]
