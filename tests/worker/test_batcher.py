"""Calls of several threads run as one, and each has what it would have had alone."""

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model_store import artifact as artifacts
from model_store.artifact import Artifact, Tensor
from service.config import Batching, WorkerSettings
from service.worker.batcher import Batcher
from service.worker.engines import Engine, Tensors, open_engine

Arrays = dict[str, Any]
# Lengths of the axes that calls may differ in, of four calls.
_LENGTHS = {"J": (1, 2, 1, 3), "K": (1, 1, 4, 2), "P": (2, 3, 2, 2), "Q": (1, 4, 2, 3)}
# Of those that they may not, and rows of a call.
_MEMORIES, _ROWS = {"F": 2, "G": 3}, (1, 2, 1, 3)


class Watched:
    """An engine that can be held, and counts its calls by their graph and rows."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.calls: list[tuple[str, int]] = []
        # Calls that it has been given while it was held.
        self.waiting = 0
        self.free = threading.Event()

    def run(self, graph: str, inputs: Tensors) -> Arrays:
        self.waiting += 1
        assert self.free.wait(30)
        outputs = self._engine.run(graph, inputs)
        self.calls.append((graph, len(next(iter(outputs.values())))))
        return outputs

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)


@pytest.fixture(scope="module")
def loaded(artefact: Path) -> Artifact:
    return artifacts.load(artefact)


@pytest.fixture(scope="module")
def engine(loaded: Artifact) -> Iterator[Engine]:
    graphs = {graph: loaded.path(graph) for graph in loaded.manifest.graphs}
    engine = open_engine(graphs, WorkerSettings(precision="f32", threads=1))
    yield engine
    engine.close()


def _values(tensor: Tensor, sizes: dict[str, int], random: np.random.Generator) -> Any:
    shape = [sizes[axis] if isinstance(axis, str) else axis for axis in tensor.shape]
    if tensor.name == "image":
        return random.integers(0, sizes["N"], shape, np.int32)
    if tensor.dtype == "bool":
        return np.ones(shape, np.bool_)
    if tensor.dtype in ("int32", "uint8"):
        return random.integers(0, 2, shape).astype(tensor.dtype)
    if tensor.name == "exemplar_boxes":
        return np.broadcast_to(np.array([0.2, 0.3, 0.6, 0.8], np.float32), shape).copy()
    return random.random(shape, np.float32)


def _inputs(loaded: Artifact, graph: str, call: int) -> Arrays:
    random = np.random.default_rng(call)
    lengths = {axis: each[call] for axis, each in _LENGTHS.items()}
    sizes = {**_MEMORIES, **lengths, "B": _ROWS[call], "N": 1}
    tensors = loaded.manifest.graphs[graph].inputs
    return {tensor.name: _values(tensor, sizes, random) for tensor in tensors}


def _together(batcher: Batcher, watched: Watched, graph: str, calls: Sequence[Arrays]) -> list[Arrays]:
    """What calls give that are made while the engine is busy with another."""
    with ThreadPoolExecutor(len(calls) + 1) as threads:
        futures: list[Future[Arrays]] = []
        for inputs in (calls[0], *calls):
            futures.append(threads.submit(batcher.run, graph, inputs))
            # The first is with the engine, and the others are in a row.
            threading.Event().wait(0.1)
        watched.free.set()
        return [future.result(60) for future in futures[1:]]


@pytest.mark.parametrize(
    "graph",
    [
        "image_encoder", "concept_features", "interactive_features", "text_encoder", "concept_decoder",
        "concept_masks", "prompt_decoder", "memory_encoder", "memory_attention",
    ],
)  # fmt: skip
def test_what_waits_runs_as_one_and_each_has_its_own(loaded: Artifact, engine: Engine, graph: str) -> None:
    calls = [_inputs(loaded, graph, call) for call in range(4)]
    alone = [engine.run(graph, inputs) for inputs in calls]
    watched = Watched(engine)
    batcher = Batcher(watched, loaded.manifest.graphs, batching="dynamic", max_rows=8)
    found = _together(batcher, watched, graph, calls)
    batcher.close()
    rows = [len(next(iter(each.values()))) for each in alone]
    assert watched.calls == [(graph, rows[0]), (graph, sum(rows))]
    for mine, other in zip(found, alone, strict=True):
        assert mine.keys() == other.keys()
        for name, expected in other.items():
            if name in ("prompt", "prompt_valid"):
                # Tokens of the longest call: the others' are followed by some that are not valid.
                assert mine["prompt_valid"].sum() == other["prompt_valid"].sum()
                continue
            assert mine[name].base is None, "a part of a batch keeps the whole of it"
            np.testing.assert_allclose(mine[name], expected, atol=2e-4, rtol=2e-3)


@pytest.mark.parametrize(("batching", "rows"), [("fixed", [1, 1, 1, 1, 1]), ("dynamic", [1, 2, 2])])
def test_batches_are_as_large_as_the_setting_says(
    loaded: Artifact, engine: Engine, batching: Batching, rows: list[int]
) -> None:
    calls = [_inputs(loaded, "image_encoder", 0) for _ in range(4)]
    watched = Watched(engine)
    batcher = Batcher(watched, loaded.manifest.graphs, batching=batching, max_rows=2)
    found = _together(batcher, watched, "image_encoder", calls)
    batcher.close()
    assert [count for _, count in watched.calls] == rows
    for each in found:
        np.testing.assert_allclose(each["embedding"], found[0]["embedding"], atol=1e-4)


def test_objects_of_one_image_share_it(loaded: Artifact, engine: Engine) -> None:
    calls = [_inputs(loaded, "prompt_decoder", call) for call in (0, 1, 2)]
    shared = {name: calls[0][name] for name in ("interactive_x2", "interactive_x4")}
    calls = [{**each, **shared} for each in calls[:2]] + calls[2:]
    alone = [engine.run("prompt_decoder", inputs) for inputs in calls]
    images: list[int] = []

    class Counting(Watched):
        def run(self, graph: str, inputs: Tensors) -> Arrays:
            images.append(len(inputs["interactive_x2"]))
            return super().run(graph, inputs)

    watched = Counting(engine)
    batcher = Batcher(watched, loaded.manifest.graphs, batching="dynamic", max_rows=8)
    found = _together(batcher, watched, "prompt_decoder", calls)
    batcher.close()
    assert images == [1, 2]
    for mine, other in zip(found, alone, strict=True):
        np.testing.assert_allclose(mine["mask_logits"], other["mask_logits"], atol=2e-4, rtol=2e-3)


def test_what_fails_fails_for_all_that_were_in_it_and_the_next_is_computed(
    loaded: Artifact, engine: Engine
) -> None:
    watched = Watched(engine)
    watched.free.set()
    batcher = Batcher(watched, loaded.manifest.graphs, batching="dynamic", max_rows=8)
    for graph in ("no graph", "text_encoder"):
        with pytest.raises(KeyError):
            batcher.run(graph, {})
    assert batcher.run("text_encoder", _inputs(loaded, "text_encoder", 0))
    batcher.close()
    with pytest.raises(RuntimeError, match="closed"):
        batcher.run("text_encoder", {})


def test_two_calls_are_with_the_engine_at_once(loaded: Artifact, engine: Engine) -> None:
    """The next waits in the engine, each has its own outputs, and no moment is counted twice."""
    graphs = ("text_encoder", "prompt_decoder")
    asked = [(graph, _inputs(loaded, graph, call)) for call in range(4) for graph in graphs] * 4
    alone = [engine.run(graph, inputs) for graph, inputs in asked]
    watched, took = Watched(engine), list[float]()
    batcher = Batcher(
        watched,
        loaded.manifest.graphs,
        batching="dynamic",
        max_rows=8,
        infer_requests=2,
        ran=lambda graph, rows, seconds: took.append(seconds),
    )
    with ThreadPoolExecutor(8) as threads:
        first = [threads.submit(batcher.run, *asked[index]) for index in range(2)]
        while batcher.waiting or watched.waiting < 2:
            threading.Event().wait(0.001)
        started = time.perf_counter()
        watched.free.set()
        found = [each.result(60) for each in first]
        found += threads.map(lambda each: batcher.run(*each), asked[2:])
        elapsed = time.perf_counter() - started
    batcher.close()
    # The first began before the clock did.
    assert sum(took) - max(took[:2]) <= elapsed
    for mine, other in zip(found, alone, strict=True):
        for name, expected in other.items():
            np.testing.assert_allclose(mine[name], expected, atol=2e-4, rtol=2e-3)


class Priced:
    """Calls of one row each that take as long as it is told, by a clock that it moves itself."""

    def __init__(self, row_s: float, batch_s: float) -> None:
        """Each row takes `row_s`, and a batch of several `batch_s` beside."""
        self.row_s, self.batch_s, self.now_s = row_s, batch_s, 0.0
        self.rows: list[int] = []
        self.begun, self.free = threading.Semaphore(0), threading.Semaphore(0)

    def now(self) -> float:
        return self.now_s

    def run(self, graph: str, inputs: Tensors) -> Arrays:
        count = len(inputs["pixels"])
        self.begun.release()
        assert self.free.acquire(timeout=30)
        self.now_s += self.row_s * count + self.batch_s * (count > 1)
        self.rows.append(count)
        return {"embedding": np.zeros((count, 1, 1, 1), np.float32)}

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)


def _rounds(batcher: Batcher, priced: Priced, inputs: Arrays, rounds: int) -> list[int]:
    """The rows of each batch. In every round one call is with the engine while two others come."""
    priced.rows.clear()
    with ThreadPoolExecutor(3) as threads:
        for _ in range(rounds):
            calls = [threads.submit(batcher.run, "image_encoder", inputs)]
            assert priced.begun.acquire(timeout=30)
            calls += [threads.submit(batcher.run, "image_encoder", inputs) for _ in range(2)]
            while batcher.waiting < 2:
                threading.Event().wait(0.001)
            for _ in calls:
                priced.free.release()
            assert [call.result(30) for call in calls]
            while priced.begun.acquire(blocking=False) or priced.free.acquire(blocking=False):
                pass
    return list(priced.rows)


def test_what_is_not_worth_merging_is_run_by_itself_until_it_is(loaded: Artifact) -> None:
    inputs = _inputs(loaded, "image_encoder", 0)
    priced = Priced(row_s=1.0, batch_s=5.0)
    graphs: Any = priced
    batcher = Batcher(graphs, loaded.manifest.graphs, batching="dynamic", max_rows=8, now=priced.now)
    # What it costs is not known at first.
    assert _rounds(batcher, priced, inputs, 3) == [1, 2] * 3
    assert _rounds(batcher, priced, inputs, 9) == [1, 1, 1] * 9
    # It is tried again now and then, and found to be worth it.
    priced.batch_s = -0.5
    found = _rounds(batcher, priced, inputs, 200)
    assert found[:3] == [1, 1, 1] and found[-6:] == [1, 2] * 3
    batcher.close()
