"""A worker with a small engine of numpy, listening on a real socket."""

import asyncio
import io
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc.aio
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from model_store import tokenizer
from model_store.artifact import Artifact, Manifest
from service.config import Precision, WorkerSettings
from service.errors import ServiceError
from service.pb.efficientsam3.v1 import segmentation_pb2 as pb
from service.pb.efficientsam3.v1 import segmentation_pb2_grpc
from service.rpc import from_rpc_error
from service.worker.server import Worker

QUERIES = 6
MASK_SIZE = 8
Arrays = dict[str, NDArray[Any]]


class FakeEngine:
    """Graphs of a few numbers. Query i's mask is the image's first i rows of eighths."""

    name = "fake"
    precisions: Mapping[str, Precision] = {"image_encoder": "f32"}

    def __init__(self) -> None:
        # Each text's logits; a presence of 100 makes a query's score sigmoid(logit), to the last bit.
        self.logits = np.array([-2.0, 3.0, 0.0, 1.0, -1.0, 2.0], np.float32)
        # Of an object's first mask: below 0.1 it is unstable. Its foreground counts `slope` times as much.
        self.clarity = np.float32(1.0)
        self.slope = np.float32(1.0)
        self.calls: list[str] = []
        self.inputs: dict[str, Arrays] = {}
        self.before: Callable[[str], None] = lambda graph: None

    def run(self, graph: str, inputs: Mapping[str, NDArray[Any]]) -> Arrays:
        self.calls.append(graph)
        self.inputs[graph] = dict(inputs)
        self.before(graph)
        outputs: Arrays = getattr(self, graph)(**inputs)
        return outputs

    def close(self) -> None:
        pass

    def image_encoder(self, pixels: NDArray[np.uint8]) -> Arrays:
        return {"embedding": pixels.mean(axis=(1, 2), dtype=np.float32)}

    def concept_features(self, embedding: NDArray[np.float32]) -> Arrays:
        return {f"features_x{level}": embedding * level for level in (1, 2, 4)}

    def text_encoder(self, tokens: NDArray[np.int32]) -> Arrays:
        return {"text_features": tokens[..., np.newaxis].astype(np.float32), "text_valid": tokens != 0}

    def concept_decoder(self, **inputs: NDArray[Any]) -> Arrays:
        boxes = np.linspace([-0.1, 0.0, 0.5, 0.5], [0.1, 0.2, 1.1, 1.2], QUERIES, dtype=np.float32)
        # A longer text lifts every score a little: answers to different prompts differ.
        lift = np.where(inputs["text_valid"].sum(axis=1) == 3, 0, 0.01).astype(np.float32)
        queries = np.arange(QUERIES, dtype=np.float32).reshape(1, QUERIES, 1)
        return {
            "logits": self.logits + lift[:, np.newaxis],
            "presence": np.full((len(lift), 1), 100.0, np.float32),
            "boxes": np.repeat(boxes[np.newaxis], len(lift), axis=0),
            "queries": np.repeat(queries, len(lift), axis=0),
            "encoded": inputs["features_x1"],
            "prompt": inputs["text_features"],
            "prompt_valid": inputs["text_valid"],
        }

    def interactive_features(self, embedding: NDArray[np.float32]) -> Arrays:
        coarse = np.zeros((len(embedding), 2, 2, 2), np.float32) + embedding.mean()
        return {"interactive_x4": embedding, "interactive_x2": embedding, "interactive_x1": coarse}

    def prompt_decoder(self, **inputs: NDArray[Any]) -> Arrays:
        """Mask i of an object covers its first i + 1 rows of eighths; the more tokens, the surer."""
        tokens = (inputs["point_labels"] != -10).sum(axis=1) + 2 * inputs["has_mask"]
        rows = np.arange(MASK_SIZE).reshape(1, 1, MASK_SIZE, 1) + np.zeros(MASK_SIZE)
        logits = (np.arange(4).reshape(1, 4, 1, 1) + 0.5 - rows).astype(np.float32)
        logits = np.repeat(logits, len(tokens), axis=0)
        logits[:, 0] *= self.clarity
        logits[:, 0] = np.where(logits[:, 0] > 0, self.slope * logits[:, 0], logits[:, 0])
        iou = np.array([0.4, 0.5, 0.7, 0.6]) + 0.01 * tokens[:, np.newaxis]
        return {
            "mask_logits": logits,
            "iou": iou.astype(np.float32),
            "object_score": np.ones((len(tokens), 1), np.float32),
        }

    def concept_masks(self, queries: NDArray[np.float32], **inputs: NDArray[Any]) -> Arrays:
        rows = np.arange(MASK_SIZE).reshape(1, 1, MASK_SIZE, 1) + np.zeros(MASK_SIZE)
        return {"mask_logits": (queries[..., np.newaxis] - rows - 0.5).astype(np.float32)}


class Gate:
    """Holds the engine before a graph until it is opened."""

    def __init__(self, graph: str) -> None:
        self._graph = graph
        self._reached = threading.Event()
        self._open = threading.Event()

    def __call__(self, graph: str) -> None:
        if graph == self._graph:
            self._reached.set()
            assert self._open.wait(30)

    async def reached(self) -> None:
        assert await asyncio.to_thread(self._reached.wait, 30)

    def open(self) -> None:
        self._open.set()


class Client:
    """Calls one worker; failures come as ServiceErrors."""

    def __init__(self, worker: Worker, engine: FakeEngine, channel: grpc.aio.Channel) -> None:
        self.worker = worker
        self.engine = engine
        self.channel = channel
        self._stub = segmentation_pb2_grpc.SegmentationStub(channel)

    async def segment(self, request: pb.SegmentRequest, deadline_s: float = 30) -> pb.SegmentResponse:
        try:
            return await self._stub.Segment(request, timeout=deadline_s)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error

    async def refused(self, request: pb.SegmentRequest, deadline_s: float = 30) -> ServiceError:
        with pytest.raises(ServiceError) as refused:
            await self.segment(request, deadline_s)
        return refused.value


Start = Callable[..., Any]


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with CLIP's tokenizer.json."""
    folder = tmp_path_factory.mktemp("artefact")
    tokenizer.build().save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture
def artifact(tokenizer_folder: Path) -> Artifact:
    """An artefact without graphs, since the engine brings its own."""
    manifest = Manifest(
        variant="tiny",
        image_encoder="grey",
        text_encoder="counter",
        context_length=16,
        image_size=32,
        mask_size=MASK_SIZE,
        prompts=("text", "exemplar_box", "exemplar_point", "points", "box", "mask"),
        unserved={},
        score_threshold=0.5,
        parameters={"trunk": 7},
        synthetic=True,
        licence="Apache-2.0",
        source={"recipe": "by hand"},
        audit={"keys": 0, "used": 0},
        preprocessing={},
        graphs={},
        constants={"no_memory": (0.25, -0.25)},
        memory=None,
    )
    return Artifact(tokenizer_folder, manifest, "0" * 64)


@pytest.fixture
def start(artifact: Artifact, tmp_path: Path) -> Start:
    """`async with start(**settings) as client`: a warmed worker on a Unix socket, drained at the end.

    `manifest` changes fields of the artefact's.
    """

    @asynccontextmanager
    async def started(
        warm: bool = True, manifest: Mapping[str, Any] | None = None, **settings: Any
    ) -> AsyncIterator[Client]:
        address = f"unix:{tmp_path}/worker.sock"
        engine = FakeEngine()
        served = replace(artifact, manifest=replace(artifact.manifest, **(manifest or {})))
        # Nothing is remembered from the warming picture or from one request to the next, and requests are
        # worked on one by one.
        without = {"drain_s": 5.0, "embedding_cache_bytes": 0, "feature_cache_bytes": 0, "concurrency": 1}
        worker = await Worker.listen(
            served, engine, WorkerSettings(**{"listen": address, **without, **settings})
        )
        if warm:
            await worker.warm()
            engine.calls.clear()
        async with grpc.aio.insecure_channel(address) as channel:
            try:
                yield Client(worker, engine, channel)
            finally:
                await worker.drain()

    return started


def run(scenario: Coroutine[Any, Any, None]) -> None:
    """Run a test's coroutine, for a bounded time."""
    asyncio.run(asyncio.wait_for(scenario, 60))


def picture(width: int = 80, height: int = 40, file_format: str = "PNG", mode: str = "RGB") -> bytes:
    """A file of a smooth picture."""
    file = io.BytesIO()
    Image.linear_gradient("L").resize((width, height)).convert(mode).save(file, file_format)
    return file.getvalue()


def blank(width: int, height: int) -> bytes:
    """A one-bit PNG: many pixels in few bytes."""
    file = io.BytesIO()
    Image.new("1", (width, height)).save(file, "PNG")
    return file.getvalue()


def asking(*prompts: pb.Prompt, data: bytes | None = None, **options: Any) -> pb.SegmentRequest:
    """A request with a picture; without prompts, for a dog."""
    return pb.SegmentRequest(
        image=pb.Image(data=picture() if data is None else data),
        prompts=prompts or [pb.Prompt(text="dog")],
        options=pb.SegmentOptions(**options),
    )
