"""The engine's one thread. Graph calls that wait for it at the same time run as one."""

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from model_store.artifact import Graph
from service.config import Batching
from service.worker.cores import on_cores
from service.worker.engines import Engine, Tensors
from service.worker.merge import Merger
from service.worker.worth import Worth

Arrays = dict[str, NDArray[Any]]
# Told of each batch: the graph, its rows, and seconds.
Ran = Callable[[str, int, float], None]

# Inputs of a call that is merged are copied into it: of more bytes than this the copies cost more than a
# call of more rows saves.
_MOST_BYTES = 32 << 20


@dataclass(frozen=True, slots=True, eq=False)
class _Call:
    """One graph call that somebody waits for."""

    graph: str
    inputs: Tensors
    # The outputs, and whether they are parts of what other calls have parts of as well.
    answer: "Future[tuple[Arrays, bool]]" = field(default_factory=Future)

    @property
    def nbytes(self) -> int:
        return sum(each.nbytes for each in self.inputs.values())


class Batcher:
    """Graphs that many threads may run at once, on an engine that one thread may use.

    Its thread takes the call that has waited longest, and with it those of the same graph that wait behind
    it, up to `max_rows`, where that has been worth it. It never waits for more to come. With `fixed` batching
    it takes one call at a time, so that what a call gives does not depend on others.
    """

    def __init__(
        self,
        engine: Engine,
        graphs: Mapping[str, Graph],
        *,
        batching: Batching,
        max_rows: int,
        cores: Sequence[int] = (),
        ran: Ran = lambda *_: None,
        now: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._engine, self._cores, self._ran, self._now = engine, cores, ran, now
        self._mergers = {name: Merger(graph) for name, graph in graphs.items() if graph.inputs}
        self._worth = {name: Worth() for name in self._mergers}
        self._max_rows = max_rows if batching == "dynamic" else 0
        self._calls: deque[_Call] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Calls that the engine has not begun."""
        return len(self._calls)

    def run(self, graph: str, inputs: Tensors) -> Arrays:
        """As `Graphs`, from any thread. Raises RuntimeError once it is closed."""
        call = _Call(graph, inputs)
        with self._changed:
            if self._closed:
                raise RuntimeError("the engine is closed")
            self._calls.append(call)
            self._changed.notify()
        outputs, shared = call.answer.result()
        # A part keeps the whole in memory. It is copied here, since the engine's thread has no time for it.
        return {name: each.copy() for name, each in outputs.items()} if shared else outputs

    def close(self) -> None:
        """Finish what waits, and end the thread. The engine stays open."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        with on_cores(self._cores):
            while first := self._first():
                self._answer(first)

    def _answer(self, first: _Call) -> None:
        """Run the call, and those that join it. Whatever fails, the thread goes on."""
        batch = [first]
        try:
            batch = self._joined(first)
            answers = self._answers(batch)
        except BaseException as error:
            for call in batch:
                call.answer.set_exception(error)
        else:
            for call, outputs in zip(batch, answers, strict=True):
                call.answer.set_result((outputs, len(batch) > 1))

    def _first(self) -> _Call | None:
        """The call that has waited longest; None when it is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._calls or self._closed)
            return self._calls.popleft() if self._calls else None

    def _joined(self, first: _Call) -> list[_Call]:
        """The call, and those behind it that run with it, which wait no more."""
        batch = [first]
        merger = self._mergers.get(first.graph)
        if not self._max_rows or merger is None:
            return batch
        rows, size, likeness = merger.rows(first.inputs), first.nbytes, merger.likeness(first.inputs)
        with self._changed:
            others = any(call.graph == first.graph for call in self._calls)
        if not others or not self._worth[first.graph].pays():
            return batch
        with self._changed:
            for call in self._calls:
                if call.graph != first.graph or merger.likeness(call.inputs) != likeness:
                    continue
                rows, size = rows + merger.rows(call.inputs), size + call.nbytes
                if rows > self._max_rows or size > _MOST_BYTES:
                    break
                batch.append(call)
            for call in batch[1:]:
                self._calls.remove(call)
        return batch

    def _answers(self, batch: Sequence[_Call]) -> list[Arrays]:
        graph, calls = batch[0].graph, [call.inputs for call in batch]
        merger = self._mergers.get(graph)
        started = self._now()
        if merger is None or len(calls) == 1:
            return [self._timed(graph, calls[0], 1, started)]
        inputs, parts = merger.merged(calls)
        return list(merger.split(self._timed(graph, inputs, len(calls), started), calls, parts))

    def _timed(self, graph: str, inputs: Tensors, calls: int, since: float) -> Arrays:
        """The outputs; `since` is when the calls began to be put together."""
        started = self._now()
        outputs = self._engine.run(graph, inputs)
        rows, ended = len(next(iter(outputs.values()))), self._now()
        self._ran(graph, rows, ended - started)
        if graph in self._worth:
            self._worth[graph].took(calls, rows, ended - since)
        return outputs
