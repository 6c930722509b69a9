"""One request's way through the graphs: each timed, and none begun for nobody."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from numpy.typing import NDArray

from service.worker.engines import Engine

Arrays = dict[str, NDArray[Any]]
# Raises when nobody waits for the answer any more; asked before each costly step.
GoOn = Callable[[], None]


class Run:
    """The graphs, run for one request."""

    def __init__(self, engine: Engine, go_on: GoOn) -> None:
        self._engine = engine
        self.go_on = go_on
        # Milliseconds by stage: a name per graph, and those of `stage`; one entered again adds up.
        self.ms: dict[str, float] = {}

    def __call__(self, graph: str, **inputs: NDArray[Any]) -> Arrays:
        """The graph's outputs by name."""
        self.go_on()
        with self.stage(graph):
            return self._engine.run(graph, inputs)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the block's wall time under `name`."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.ms[name] = self.ms.get(name, 0.0) + (time.perf_counter() - started) * 1e3
