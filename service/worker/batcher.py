"""The engine's threads. Graph calls that wait for them at the same time run as one."""

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
    """Graphs that many threads may run at once, on an engine that is given few calls at a time.

    A thread of its own takes the call that has waited longest, and with it those of the same graph that wait
    behind it, up to `max_rows`, where that has been worth it. It never waits for more to come. With `fixed`
    batching it takes one call at a time, so that what a call gives does not depend on others.

    There are as many such threads as `infer_requests`. With two the engine has the next call when one ends:
    otherwise it rests until Python, which a process's other threads want as well, has handed it over.
    """

    def __init__(
        self,
        engine: Engine,
        graphs: Mapping[str, Graph],
        *,
        batching: Batching,
        max_rows: int,
        infer_requests: int = 1,
        cores: Sequence[int] = (),
        ran: Ran = lambda *_: None,
        now: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._engine, self._cores, self._ran, self._now = engine, cores, ran, now
        self._graphs = {name: graph for name, graph in graphs.items() if graph.inputs}
        self._worth = {name: Worth() for name in self._graphs}
        self._max_rows = max_rows if batching == "dynamic" else 0
        self._calls: deque[_Call] = deque()
        self._changed = threading.Condition()
        self._closed = False
        # When a call ended last.
        self._ended = 0.0
        self._threads = [
            threading.Thread(target=self._work, name=f"engine-{number}", daemon=True)
            for number in range(infer_requests)
        ]
        for thread in self._threads:
            thread.start()

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
        # A part keeps the whole in memory. It is copied here, since the engine's threads have no time for it.
        return {name: each.copy() for name, each in outputs.items()} if shared else outputs

    def close(self) -> None:
        """Finish what waits, and end the threads. The engine stays open."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        # What a merger puts together is in memory of its own, until it merges again.
        mergers = {name: Merger(graph) for name, graph in self._graphs.items()}
        with on_cores(self._cores):
            while first := self._first():
                self._answer(first, mergers.get(first.graph))

    def _answer(self, first: _Call, merger: Merger | None) -> None:
        """Run the call, and those that join it. Whatever fails, the thread goes on."""
        batch = [first]
        try:
            batch = self._joined(first, merger)
            answers = self._answers(batch, merger)
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

    def _joined(self, first: _Call, merger: Merger | None) -> list[_Call]:
        """The call, and those behind it that run with it, which wait no more."""
        batch = [first]
        if not self._max_rows or merger is None:
            return batch
        rows, size, likeness = merger.rows(first.inputs), first.nbytes, merger.likeness(first.inputs)
        with self._changed:
            others = any(call.graph == first.graph for call in self._calls)
            if not others or not self._worth[first.graph].pays():
                return batch
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

    def _answers(self, batch: Sequence[_Call], merger: Merger | None) -> list[Arrays]:
        graph, calls = batch[0].graph, [call.inputs for call in batch]
        started = self._now()
        if merger is None or len(calls) == 1:
            return [self._timed(graph, calls[0], 1, started)]
        inputs, parts = merger.merged(calls)
        return list(merger.split(self._timed(graph, inputs, len(calls), started), calls, parts))

    def _timed(self, graph: str, inputs: Tensors, calls: int, since: float) -> Arrays:
        """The outputs; `since` is when the calls began to be put together."""
        started = self._now()
        outputs = self._engine.run(graph, inputs)
        rows = len(next(iter(outputs.values())))
        with self._changed:
            ended = self._now()
            # The engine was another thread's until then.
            before, self._ended = self._ended, ended
            if graph in self._worth:
                self._worth[graph].took(calls, rows, ended - max(since, before))
        self._ran(graph, rows, ended - max(started, before))
        return outputs
