"""Image embeddings that workers share: asked for where this one has none, and never waited for long.

What is shared is rounded to half floats before its first use, so that an answer is the same whoever encoded
the image.
"""

import asyncio
import hashlib
import logging
import math
import os
import platform
import threading
import time
from collections import Counter
from collections.abc import Callable

import numpy as np
import PIL
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from model_store.artifact import Artifact
from service.config import WorkerSettings
from service.errors import ServiceError
from service.pb.efficientsam3.state.v1 import embedding_pb2 as state_pb
from service.sessions.checksum import seal, unseal
from service.sessions.embedding_store import EmbeddingStore
from service.telemetry import SharedCounts, service_version
from service.worker.engines import Engine
from service.worker.tensors import message_of, tensor_of

SCHEMA = 1

# The most that a request waits for the store, seconds, and how long the store is left alone then: all would
# wait for it.
_PATIENCE_S, _REST_S = 0.25, 10.0
# The most that writing one may take, and how many may be written at once.
_WRITE_S = 2.0
_MOST_WRITES = 8

_ASKED = ("hit", "miss", "error", "damaged", "skipped")
_WRITES = ("written", "failed", "dropped")

_LOG = logging.getLogger(__name__)


class SharedEmbeddings:
    """Embeddings of one artefact in a store. Build it in the event loop, whose threads may use it then."""

    def __init__(
        self,
        store: EmbeddingStore,
        shape: tuple[int | str, ...],
        *,
        patience_s: float = _PATIENCE_S,
        rest_s: float = _REST_S,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """Nothing is shared before `begin`.

        Args:
            shape: of an embedding of one image.
            now: tells the time in seconds.
        """
        self._store, self._shape = store, shape
        self._patience_s, self._rest_s, self._now = patience_s, rest_s, now
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        # When the store is asked again, in `now`'s time; 0: it is in reach.
        self._again = math.inf
        self._counts = Counter[str]()
        self._writes: set[asyncio.Task[None]] = set()

    def counts(self) -> SharedCounts:
        """Since it was made."""
        with self._lock:
            counts = self._counts.copy()
        asked, writes = ({outcome: counts[outcome] for outcome in group} for group in (_ASKED, _WRITES))
        return SharedCounts(asked, writes, counts["bytes"])

    def begin(self) -> None:
        """Share from now on."""
        self._again = 0.0

    def get(self, image: str, owner: str = "") -> NDArray[np.float32] | None:
        """The embedding of an image if the store has it and says so soon. From any thread but the loop's.

        `owner`: whose it is in the store; empty: nobody's in particular.
        """
        if not self._may_ask():
            self._count("skipped")
            return None
        asking = asyncio.run_coroutine_threadsafe(self._store.get(_name(image, owner)), self._loop)
        try:
            data = asking.result(self._patience_s)
        except (ServiceError, TimeoutError) as error:
            asking.cancel()
            self._lose(error)
            return None
        self._have()
        if data is None:
            self._count("miss")
            return None
        embedding = unpacked(data, image, self._shape)
        self._count("damaged" if embedding is None else "hit")
        return embedding

    def put(self, image: str, embedding: NDArray[np.float32], owner: str = "") -> NDArray[np.float32]:
        """Have it written meanwhile, and get it as the others will: rounded. From any thread.

        What has numbers too large for half floats is not shared, and stays as it is.
        """
        try:
            with np.errstate(over="raise"):
                half = embedding.astype(np.float16)
        except FloatingPointError:
            return embedding
        rounded = half.astype(np.float32)
        self._loop.call_soon_threadsafe(self._begin_write, image, half, owner)
        return rounded

    async def close(self) -> None:
        """Finish what is being written, and share no more."""
        self._again = math.inf
        if self._writes:
            await asyncio.wait(self._writes)
        await self._store.close()

    def _begin_write(self, image: str, half: NDArray[np.float16], owner: str) -> None:
        if self._again:
            return
        if len(self._writes) >= _MOST_WRITES:
            self._count("dropped")
            return
        task = self._loop.create_task(self._write(image, half, owner))
        self._writes.add(task)
        task.add_done_callback(self._writes.discard)

    async def _write(self, image: str, half: NDArray[np.float16], owner: str) -> None:
        data = packed(image, half)
        try:
            async with asyncio.timeout(_WRITE_S):
                await self._store.put(_name(image, owner), data)
        except (ServiceError, TimeoutError):
            # Whoever asks next finds out whether it is in reach: one that is full still answers.
            self._count("failed")
        else:
            self._count("written")
            self._count("bytes", len(data))

    def _may_ask(self) -> bool:
        with self._lock:
            now = self._now()
            if now < self._again:
                return False
            if self._again:
                # One finds out for all.
                self._again = now + self._rest_s
            return True

    def _have(self) -> None:
        """The store answered."""
        with self._lock:
            lost, self._again = self._again, 0.0
        if lost:
            _LOG.info("Image embeddings are shared again")

    def _lose(self, error: ServiceError | TimeoutError) -> None:
        """The store did not answer."""
        with self._lock:
            lost, self._again = self._again, self._now() + self._rest_s
        self._count("error")
        if not lost:
            why = str(error) or "The store of embeddings does not answer in time."
            _LOG.warning("%s Image embeddings are not shared meanwhile", why)

    def _count(self, what: str, by: int = 1) -> None:
        with self._lock:
            self._counts[what] += by


def _name(image: str, owner: str) -> str:
    """What the store knows it by."""
    return f"{owner}/{image}" if owner else image


def packed(image: str, embedding: NDArray[np.float16]) -> bytes:
    """An embedding as the store keeps it."""
    kept = state_pb.Embedding(schema=SCHEMA, image=image, tensor=message_of(embedding))
    return seal(image, kept.SerializeToString())


def unpacked(data: bytes, image: str, shape: tuple[int | str, ...]) -> NDArray[np.float32] | None:
    """The embedding; None where it is none of that image and shape, or any byte of it is damaged."""
    if (message := unseal(image, data)) is None:
        return None
    try:
        kept = state_pb.Embedding.FromString(message)
        tensor = tensor_of(kept.tensor)
    except (DecodeError, ValueError):
        return None
    if (kept.schema, kept.image, tensor.shape) != (SCHEMA, image, shape):
        return None
    return tensor.astype(np.float32)


def origin_of(artifact: Artifact, engine: Engine, settings: WorkerSettings) -> str:
    """Digest of what an embedding depends on beside its image: workers that differ in it share nothing."""
    parts = (
        artifact.digest,
        engine.name,
        engine.precisions["image_encoder"],
        platform.machine(),
        settings.threads or os.cpu_count(),
        # Beside others an image may be encoded in a batch.
        settings.batching,
        # What made pixels of the image's bytes.
        service_version(),
        PIL.__version__,
    )
    return hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()
