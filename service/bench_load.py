"""Load measured: what the service answers per second beside what its engine could if it did nothing else.

The bare engine runs the very graph calls of the requests, in batches, from memory to memory.
"""

import asyncio
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Literal

import grpc
import grpc.aio
from numpy.typing import NDArray

from model_store import artifact as artifacts
from model_store.artifact import Artifact
from service import processes
from service.bench_clients import Answers, Requests, closed, opened, percentile_ms
from service.config import WorkerSettings
from service.pb.efficientsam3.v1 import segmentation_pb2 as pb
from service.pb.efficientsam3.v1.segmentation_pb2_grpc import SegmentationStub
from service.processes import Served
from service.prompts import image_id
from service.rpc import from_rpc_error
from service.worker.cores import on_cores
from service.worker.engines import Graphs, Tensors, open_engine
from service.worker.merge import Merger
from service.worker.segmenter import Segmenter
from service.worker.tokenizer import TextTokenizer

if TYPE_CHECKING:
    from service.pb.efficientsam3.v1.segmentation_pb2_grpc import SegmentationAsyncStub

Kind = Literal["text", "click"]

BATCHES = (1, 2, 4, 8)
# Requests that are recorded, and played to the bare engine over and over.
_RECORDED = 8
# Found objects of a text: as many on every picture, so that every request is the same work.
_SEGMENTS = 3
_DEADLINE_S = 60.0

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Work:
    """What is asked of which artefact."""

    folder: Path
    kind: Kind
    # An encoded JPEG, and what a text says.
    picture: bytes
    text: str


@dataclass(frozen=True, slots=True)
class Plan:
    """How it is measured."""

    clients: Sequence[int]
    runs: int
    # Of each run.
    seconds: float
    # Then so many times as many requests as can be answered, for so long; 0: not.
    overload: float
    overload_s: float
    # Of the processor, for all but the engine.
    cores: Sequence[int]


@dataclass(frozen=True, slots=True)
class Bare:
    """What the engine does alone."""

    # Requests per second by the size of the batches.
    per_s: dict[int, float]

    @property
    def listed(self) -> str:
        """All of them, in words."""
        return ", ".join(f"{batch}: {per_s:.1f}" for batch, per_s in self.per_s.items())

    @property
    def best(self) -> float:
        """At the best size."""
        return max(self.per_s.values())

    @property
    def best_batch(self) -> int:
        """That size."""
        return max(self.per_s, key=lambda batch: self.per_s[batch])


class _Recorder:
    """Graphs that note what they are asked."""

    def __init__(self, graphs: Graphs) -> None:
        self._graphs = graphs
        self.calls: list[tuple[str, Arrays]] = []

    def run(self, graph: str, inputs: Tensors) -> Arrays:
        self.calls.append((graph, dict(inputs)))
        return self._graphs.run(graph, inputs)


def requests(kind: Kind, picture: bytes, text: str) -> Requests:
    """Texts, each of a picture that nobody has seen; or clicks on a picture that is known."""
    numbers = itertools.count()

    def of_text() -> pb.SegmentRequest:
        # What follows the end of a JPEG is nobody's business, and makes it another file.
        data = picture + next(numbers).to_bytes(8, "big")
        options = pb.SegmentOptions(score_threshold=0.0, max_segments=_SEGMENTS)
        return pb.SegmentRequest(image=pb.Image(data=data), prompts=[pb.Prompt(text=text)], options=options)

    def of_click() -> pb.SegmentRequest:
        step = next(numbers)
        point = pb.Point(x=20 + 7 * (step % 31), y=20 + 5 * (step % 37))
        return pb.SegmentRequest(image=pb.Image(id=image_id(picture)), prompts=[pb.Prompt(points=[point])])

    return of_text if kind == "text" else of_click


def median_of(runs: Sequence[Bare]) -> Bare:
    """By the size of the batches."""
    return Bare({batch: median(each.per_s[batch] for each in runs) for batch in runs[0].per_s})


def stages_of(runs: Sequence[Answers]) -> str:
    """Medians of the stages of a request, in words; `other` is what its client waits for beyond them."""
    timings = [timing for each in runs for timing in each.timings_ms]
    stages = {name: median(timing.get(name, 0.0) for timing in timings) for name in timings[0]}
    total = stages.pop("total")
    whole = median(1e3 * seconds for each in runs for seconds in each.seconds)
    parts = {
        **stages,
        "rest of the worker": total - sum(stages.values()),
        "gateway and transport": whole - total,
    }
    return ", ".join(f"{name} {value:.2f}" for name, value in parts.items())


def resident_mb(served: Served) -> float:
    """Of its gateway and its workers; 0 where the system does not say."""
    return sum(map(processes.resident_bytes, (served.gateway, *served.workers))) / 1e6


async def keep(address: str, picture: bytes) -> None:
    """Have the picture encoded and kept, for clicks. Raises ServiceError."""
    async with grpc.aio.insecure_channel(address) as channel:
        stub: SegmentationAsyncStub = SegmentationStub(channel)
        request = pb.EncodeImageRequest(image=pb.Image(data=picture))
        try:
            await stub.EncodeImage(request, timeout=_DEADLINE_S)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error


def measure_bare(
    work: Work, settings: WorkerSettings, seconds: float, batches: Sequence[int] = BATCHES
) -> Bare:
    """The engine's best on the settings' cores. Raises EngineError, ArtifactError."""
    artifact = artifacts.load(work.folder)
    with on_cores(settings.engine_cores):
        graphs = {name: artifact.path(name) for name in artifact.manifest.graphs}
        engine = open_engine(graphs, settings)
        try:
            recorded = _recorded(artifact, engine, settings, work)
            return Bare({batch: _rate(engine, artifact, recorded, batch, seconds) for batch in batches})
        finally:
            engine.close()


def _recorded(
    artifact: Artifact, engine: Graphs, settings: WorkerSettings, work: Work
) -> list[list[tuple[str, Arrays]]]:
    """The graph calls of some requests, when what can be known before is known."""
    manifest = artifact.manifest
    tokenize = TextTokenizer(artifact.folder / artifacts.TOKENIZER, manifest.context_length, manifest.tokens)
    recorder = _Recorder(engine)
    segmenter = Segmenter(manifest, recorder, tokenize, settings)
    asked = requests(work.kind, work.picture, work.text)

    def answer() -> list[tuple[str, Arrays]]:
        request = asked()
        if request.image.HasField("id"):
            request.image.data = work.picture
        recorder.calls = []
        segmenter.segment(request)
        return recorder.calls

    answer()
    return [answer() for _ in range(_RECORDED)]


def _rate(
    engine: Graphs,
    artifact: Artifact,
    recorded: Sequence[Sequence[tuple[str, Arrays]]],
    batch: int,
    seconds: float,
) -> float:
    """Requests per second in batches of `batch` requests: every graph is run for all of them at once."""
    steps = list(_merged(artifact, recorded, batch))
    done, started = 0, 0.0
    # The first time is for the engine to prepare for the shapes.
    while not done or time.perf_counter() - started < seconds:
        for graph, inputs in steps:
            engine.run(graph, inputs)
        if not started:
            started = time.perf_counter()
            continue
        done += len(recorded)
    return done / (time.perf_counter() - started)


def _merged(
    artifact: Artifact, recorded: Sequence[Sequence[tuple[str, Arrays]]], batch: int
) -> Iterator[tuple[str, Arrays]]:
    for first in range(0, len(recorded), batch):
        for calls in zip(*recorded[first : first + batch], strict=True):
            graph = calls[0][0]
            inputs = [each for _, each in calls]
            merger = Merger(artifact.manifest.graphs[graph])
            yield graph, inputs[0] if len(inputs) == 1 else merger.merged(inputs)[0]


def run(work: Work, plan: Plan, settings: WorkerSettings, say: Callable[[str], None]) -> None:
    """Measure, and say what was found as it is found. Raises CommandError."""
    with on_cores(plan.cores):
        bare = median_of([measure_bare(work, settings, plan.seconds) for _ in range(plan.runs)])
        say(f"bare engine: {bare.best:.1f} requests/s in batches of {bare.best_batch} ({bare.listed})")
        with processes.counting(plan.cores):
            beside = measure_bare(work, settings, plan.seconds, [bare.best_batch]).best
        say(f"  {beside:.1f} ({beside / bare.best:.2f}) while the other cores do nothing but count")
        engine = {
            "engine": settings.engine,
            "precision": settings.precision,
            "threads": settings.threads,
            "engine_cores": settings.engine_cores,
            "image_ttl_s": 86_400,
        }
        with processes.service(work.folder, plan.cores, **engine) as served:
            asyncio.run(_measure_service(served, work, plan, bare, say))


async def _measure_service(
    served: Served, work: Work, plan: Plan, bare: Bare, say: Callable[[str], None]
) -> None:
    address = served.grpc
    asked = requests(work.kind, work.picture, work.text)
    await keep(address, work.picture)
    # Once for the engine to prepare for the shapes.
    await closed(address, asked, max(plan.clients), plan.seconds, _DEADLINE_S)
    best = 0.0
    for clients in plan.clients:
        runs = [await closed(address, asked, clients, plan.seconds, _DEADLINE_S) for _ in range(plan.runs)]
        per_s = median(each.per_s for each in runs)
        best = max(best, per_s)
        p50, p99 = (median(percentile_ms(each.seconds, percent) for each in runs) for percent in (50, 99))
        say(
            f"{clients} clients: {per_s:.1f} requests/s ({per_s / bare.best:.2f} of the bare engine), "
            f"p50 {p50:.1f} ms, p99 {p99:.1f} ms"
        )
        if clients == 1:
            say(f"  of one request, ms: {stages_of(runs)}")
    if plan.overload:
        before = resident_mb(served)
        over = await opened(address, asked, plan.overload * best, plan.overload_s, _DEADLINE_S)
        say(
            f"{plan.overload:g} times as many for {plan.overload_s:g} s: {over.per_s:.1f} answered/s "
            f"({over.per_s / best:.2f} of the best), p99 {percentile_ms(over.seconds, 99):.0f} ms; "
            f"how they ended: {dict(over.kinds)}"
        )
        p50, p99 = (percentile_ms(over.refused_seconds, percent) for percent in (50, 99))
        say(
            f"  {len(over.refused_seconds)} refused, p50 {p50:.1f} ms, p99 {p99:.1f} ms; "
            f"{over.told_when} of them told when to come back"
        )
        say(f"  resident, MB: {before:.0f} before, {resident_mb(served):.0f} after")
        after = await closed(address, asked, max(plan.clients), plan.seconds, _DEADLINE_S)
        say(f"  afterwards: {after.per_s:.1f} requests/s ({after.per_s / best:.2f} of the best)")
