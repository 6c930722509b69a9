"""One request's way through the graphs: each timed, and none begun for nobody."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.tracing import current
from service.worker.engines import Graphs

Arrays = dict[str, NDArray[Any]]
# Raises when nobody waits for the answer any more; asked before each costly step.
GoOn = Callable[[], None]


class Run:
    """The graphs, run for one request."""

    def __init__(self, graphs: Graphs, go_on: GoOn) -> None:
        self._graphs = graphs
        self.go_on = go_on
        # Milliseconds by stage: a name per graph, and those of `stage`; one entered again adds up.
        self.ms: dict[str, float] = {}

    def __call__(self, graph: str, **inputs: NDArray[Any]) -> Arrays:
        """The graph's outputs by name."""
        self.go_on()
        with self.stage(graph):
            return self._graphs.run(graph, inputs)

    def rows(self, graph: str, at_once: int, rows: Arrays, **shared: NDArray[Any]) -> Arrays:
        """As a call, for any number of rows >= 1, of which the graph takes at most `at_once` at a time.

        Args:
            rows: inputs with a row each. With `shared`, `image` is added: all are of the first image.
            shared: inputs of the image.
        """
        count = len(next(iter(rows.values())))
        if shared:
            rows = {**rows, "image": np.zeros(count, np.int32)}
        parts = [
            self(graph, **shared, **{name: each[first : first + at_once] for name, each in rows.items()})
            for first in range(0, count, at_once)
        ]
        if len(parts) == 1:
            return parts[0]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the block's wall time under `name`."""
        started = time.perf_counter()
        try:
            yield
        finally:
            ms = (time.perf_counter() - started) * 1e3
            self.ms[name] = self.ms.get(name, 0.0) + ms
            current().took(name, ms)
