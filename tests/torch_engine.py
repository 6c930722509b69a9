"""A student's graphs before they are exported, run by torch: for full-size students, quick to make."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from model_store.networks.graphs import graphs
from model_store.networks.student import Student
from service.config import Precision

Arrays = dict[str, NDArray[Any]]


class TorchEngine:
    """An engine whose graphs are torch modules."""

    name = "torch"
    precisions: Mapping[str, Precision] = {}

    def __init__(self, student: Student, *, texts: bool = False) -> None:
        self._specs = {spec.name: spec for spec in graphs(student, texts=texts)}
        self._modules = {name: spec.folded(student).eval() for name, spec in self._specs.items()}
        # Of the last run of each graph.
        self.outputs: dict[str, Arrays] = {}

    def run(self, graph: str, inputs: Mapping[str, NDArray[Any]]) -> Arrays:
        """The graph's outputs by name."""
        spec = self._specs[graph]
        tensors = [torch.from_numpy(np.ascontiguousarray(inputs[each.name])) for each in spec.inputs]
        with torch.inference_mode():
            found = self._modules[graph](*tensors)
        found = found if isinstance(found, tuple) else (found,)
        named = zip(spec.outputs, found, strict=True)
        self.outputs[graph] = {each.name: values.numpy() for each, values in named}
        return self.outputs[graph]

    def close(self) -> None:
        """Nothing is open."""
