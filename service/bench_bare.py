"""The bare engine: what the machine could answer per second if nothing but graphs ran.

It runs the very graph calls of the requests, in batches, from memory to memory.
"""

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal

from numpy.typing import NDArray

from model_store import artifact as artifacts
from model_store.artifact import Artifact
from service.bench_clients import Requests
from service.config import WorkerSettings
from service.pb.efficientsam3.v1 import segmentation_pb2 as pb
from service.prompts import image_id
from service.worker.cores import on_cores
from service.worker.engines import Graphs, Tensors, open_engine
from service.worker.merge import Merger
from service.worker.segmenter import Segmenter
from service.worker.tokenizer import TextTokenizer

Kind = Literal["text", "click"]

BATCHES = (1, 2, 4, 8)
# Requests that are recorded, and played over and over.
_RECORDED = 8
# Found objects of a text: as many on every picture, so that every request is the same work.
_SEGMENTS = 3

Arrays = dict[str, NDArray[Any]]
# Graphs and their inputs, in the order of a request.
Steps = list[tuple[str, Arrays]]


@dataclass(frozen=True, slots=True)
class Work:
    """What is asked of which artefact."""

    folder: Path
    kind: Kind
    # An encoded JPEG, and what a text says.
    picture: bytes
    text: str


@dataclass(frozen=True, slots=True)
class Bare:
    """What the engine does alone."""

    # Requests per second by the size of the batches.
    per_s: dict[int, float]

    @property
    def listed(self) -> str:
        """All of them, in words."""
        return ", ".join(f"{batch}: {shown(per_s)}" for batch, per_s in self.per_s.items())

    @property
    def best(self) -> float:
        """At the best size."""
        return max(self.per_s.values())

    @property
    def best_batch(self) -> int:
        """That size."""
        return max(self.per_s, key=lambda batch: self.per_s[batch])


def shown(per_s: float) -> str:
    """A rate with the digits that tell it from the next."""
    return f"{per_s:.1f}" if per_s >= 10 else f"{per_s:.3f}"


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


class BareEngine:
    """The engine and the recorded graph calls of requests, on the settings' cores; `close` it."""

    def __init__(self, work: Work, settings: WorkerSettings, batches: Sequence[int] = BATCHES) -> None:
        """Load, record, and run each size of batches once, so that the engine has prepared for them.

        Raises EngineError, ArtifactError.
        """
        self._cores = settings.engine_cores
        artifact = artifacts.load(work.folder)
        with on_cores(self._cores):
            graphs = {name: artifact.path(name) for name in artifact.manifest.graphs}
            self._engine = open_engine(graphs, settings)
            recorded = _recorded(artifact, self._engine, settings, work)
            self._parts = {batch: _merged(artifact, recorded, batch) for batch in batches}
            for steps, *_ in self._parts.values():
                self._play(steps)

    @property
    def name(self) -> str:
        """What it is, on which processor, and how it computes."""
        return f"{self._engine.name}, {' and '.join(sorted(set(self._engine.precisions.values())))}"

    def per_s(self, batch: int, seconds: float) -> float:
        """Requests per second in batches of so many, over and over, for so long and at least one batch."""
        parts, done = self._parts[batch], 0
        with on_cores(self._cores):
            started = time.perf_counter()
            while not done or time.perf_counter() - started < seconds:
                self._play(parts[done % len(parts)])
                done += 1
        return done * batch / (time.perf_counter() - started)

    def rates(self, runs: int, seconds: float) -> Bare:
        """Medians of `runs`, in each of which every size of batches has its `seconds`."""
        rates = [{batch: self.per_s(batch, seconds) for batch in self._parts} for _ in range(runs)]
        return Bare({batch: median(each[batch] for each in rates) for batch in self._parts})

    def close(self) -> None:
        """Drop the engine."""
        self._engine.close()

    def _play(self, steps: Steps) -> None:
        for graph, inputs in steps:
            self._engine.run(graph, inputs)


class _Recorder:
    """Graphs that note what they are asked."""

    def __init__(self, graphs: Graphs) -> None:
        self._graphs = graphs
        self.calls: Steps = []

    def run(self, graph: str, inputs: Tensors) -> Arrays:
        self.calls.append((graph, dict(inputs)))
        return self._graphs.run(graph, inputs)


def _recorded(artifact: Artifact, engine: Graphs, settings: WorkerSettings, work: Work) -> list[Steps]:
    """The graph calls of some requests, when what can be known before is known."""
    manifest = artifact.manifest
    tokenize = TextTokenizer(artifact.folder / artifacts.TOKENIZER, manifest.context_length, manifest.tokens)
    recorder = _Recorder(engine)
    segmenter = Segmenter(manifest, recorder, tokenize, settings)
    asked = requests(work.kind, work.picture, work.text)

    def answer() -> Steps:
        request = asked()
        if request.image.HasField("id"):
            request.image.data = work.picture
        recorder.calls = []
        segmenter.segment(request)
        return recorder.calls

    answer()
    return [answer() for _ in range(_RECORDED)]


def _merged(artifact: Artifact, recorded: Sequence[Steps], batch: int) -> list[Steps]:
    """The calls of every `batch` requests as one call of each graph."""
    return [
        [_together(artifact, calls) for calls in zip(*recorded[first : first + batch], strict=True)]
        for first in range(0, len(recorded), batch)
    ]


def _together(artifact: Artifact, calls: Sequence[tuple[str, Arrays]]) -> tuple[str, Arrays]:
    graph, inputs = calls[0]
    if len(calls) == 1:
        return graph, inputs
    return graph, Merger(artifact.manifest.graphs[graph]).merged([each for _, each in calls])[0]
