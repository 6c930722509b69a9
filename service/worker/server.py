"""A worker's life: load, listen, warm, serve, drain."""

import asyncio
import io
import logging
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass

import grpc.aio
from grpc_health.v1 import health, health_pb2
from PIL import Image

from model_store import artifact as artifacts
from model_store.artifact import Artifact, ArtifactError
from service.config import ConfigurationError, WorkerSettings
from service.memory import bound_allocator, releasing_memory
from service.pb.efficientsam3.v1 import segmentation_pb2 as pb
from service.rpc_server import SERVICES, make_server
from service.sessions.image_store import ImageStore, MemoryImages
from service.sessions.redis_embeddings import RedisEmbeddings
from service.sessions.redis_images import RedisImages
from service.sessions.redis_sessions import RedisSessions
from service.sessions.session_store import MemorySessions, SessionStore
from service.telemetry import WorkerTelemetry, service_version
from service.tls import add_port, of_worker
from service.tracing import Tracing, open_tracing
from service.worker.batcher import Batcher
from service.worker.concepts import VISUAL
from service.worker.cores import on_cores
from service.worker.decoder_process import DecoderProcesses
from service.worker.engines import Engine, EngineError, open_engine
from service.worker.lane import Lane, Ticket
from service.worker.pixel_budget import PixelBudget
from service.worker.segmenter import Segmenter
from service.worker.servicer import SegmentationServicer, VariantsServicer, describe
from service.worker.sessions import Sessions
from service.worker.shared import SharedEmbeddings, origin_of
from service.worker.tokenizer import TextTokenizer
from service.worker.told import tell
from service.worker.tracker.state import Origin
from service.worker.tracker.tracker import Tracker
from service.worker.tracking import TrackingServicer

_LAST_ANSWERS_S = 1.0

_LOG = logging.getLogger(__name__)
_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class StartError(Exception):
    """The worker cannot start; one line says why."""


async def run_worker(settings: WorkerSettings, variant: str, parent_fd: int | None = None) -> None:
    """Serve the variant's artefact as `serve` does.

    Raises StartError when there is no sound artefact, no engine for it, or the address cannot be had.
    """
    try:
        folder = artifacts.folder_of(settings.store, variant) or settings.store / variant
        artifact = artifacts.load(folder)
        # Its own threads begin here, and stay where they begin.
        with on_cores(settings.engine_cores):
            engine = open_engine({name: artifact.path(name) for name in artifact.manifest.graphs}, settings)
    except (ArtifactError, EngineError) as error:
        raise StartError(str(error)) from error
    except ValueError as error:
        raise StartError(f"engine_cores: {error}") from error
    _LOG.info("%s on %s: %s", variant, engine.name, dict(engine.precisions))
    await serve(artifact, engine, settings, parent_fd)


async def serve(
    artifact: Artifact, engine: Engine, settings: WorkerSettings, parent_fd: int | None = None
) -> None:
    """Serve the artefact on the engine until SIGTERM, SIGINT, or end of file on `parent_fd`; then drain.

    Closes the engine. Raises StartError when the address cannot be had.
    """
    bound_allocator()
    # Until here a signal ends the process at once, as by default: there is nothing to finish yet.
    stop = _stop_event(parent_fd)
    worker = await Worker.listen(artifact, engine, settings)
    try:
        warming = asyncio.ensure_future(worker.warm())
        await asyncio.wait({warming, asyncio.ensure_future(stop.wait())}, return_when="FIRST_COMPLETED")
        if warming.done():
            await warming
            _LOG.info("%s is ready on %s", artifact.manifest.variant, settings.listen)
            async with releasing_memory():
                await stop.wait()
    finally:
        await worker.drain()
        engine.close()


@dataclass(slots=True)
class Worker:
    """A listening server, its health, and what computes for it."""

    server: grpc.aio.Server
    health: "health.aio.HealthServicer"
    lane: Lane
    batcher: Batcher
    segmenter: Segmenter
    tracker: Tracker
    images: ImageStore
    shared: SharedEmbeddings | None
    sessions: Sessions
    decoders: DecoderProcesses
    tracing: Tracing
    # Kinds that are served.
    prompts: tuple[str, ...]
    drain_s: float
    # The port where `listen` was host:port, else meaningless.
    port: int
    ready: bool = False
    stop_telling: Callable[[], None] = lambda: None

    @classmethod
    async def listen(cls, artifact: Artifact, engine: Engine, settings: WorkerSettings) -> "Worker":
        """Take calls at `settings.listen`, NOT_SERVING as yet. Raises StartError, and ConfigurationError."""
        manifest = artifact.manifest
        try:
            tokenize = TextTokenizer(
                artifact.folder / artifacts.TOKENIZER, manifest.context_length, manifest.tokens
            )
        except ValueError as error:
            raise StartError(str(error)) from error
        tracing = open_tracing(settings, "worker", service_version(), manifest.variant)
        telemetry = WorkerTelemetry(manifest.variant)
        batcher = _open_batcher(engine, artifact, settings, telemetry)
        shared = _open_shared(artifact, engine, settings)
        segmenter = Segmenter(manifest, batcher, tokenize, settings, shared)
        lane = Lane(settings.max_queued, settings.concurrency, telemetry)
        pixels = PixelBudget(
            settings.max_pixels_at_once, settings.concurrency, settings.max_queued, telemetry
        )
        images = _open_images(settings)
        origin = Origin(manifest.variant, artifact.digest)
        sessions = Sessions(_open_sessions(settings), origin, settings)
        decoders = DecoderProcesses(settings.max_video_decoders, telemetry.decoder_failed)
        tracker = Tracker(manifest, batcher, tokenize, settings)
        state = health.aio.HealthServicer()
        server = make_server(
            SegmentationServicer(manifest.variant, segmenter, lane, images, pixels, settings),
            TrackingServicer(manifest.variant, tracker, lane, (sessions, images), pixels, decoders, settings),
            VariantsServicer(describe(artifact, settings.max_queued + settings.concurrency)),
            state,
            settings,
            tracing,
        )
        worker = cls(
            server,
            state,
            lane,
            batcher,
            segmenter,
            tracker,
            images,
            shared,
            sessions,
            decoders,
            tracing,
            manifest.prompts,
            settings.drain_s,
            0,
        )
        await worker._say(_NOT_SERVING)
        worker._tell(telemetry, pixels, settings.metrics_listen)
        try:
            worker.port = add_port(server, settings.listen, of_worker(settings))
            await server.start()
        except ConfigurationError as error:
            raise StartError(str(error)) from error
        except RuntimeError as error:
            raise StartError(f"cannot listen on {settings.listen}: {error}") from error
        return worker

    def _tell(self, telemetry: WorkerTelemetry, pixels: PixelBudget, address: str) -> None:
        """Tell metrics, and whether it is ready, at the address, if it is any. Raises StartError."""
        lane, hot, decoders = self.lane, self.sessions.hot, self.decoders
        for name, meaning, read in (
            ("worker_waiting_requests", "Requests whose turn has not come", lambda: lane.waiting),
            ("worker_running_requests", "Requests that are worked on", lambda: lane.running),
            (
                "worker_inflight_requests",
                "Requests that came and are not answered yet: those above, and who waits for a frame before",
                lambda: lane.requests,
            ),
            ("decoder_processes", "Decoder processes that are running", lambda: decoders.running),
            (
                "pixels_at_once",
                "Pixels of the large images and masks that are worked on",
                lambda: pixels.reserved,
            ),
            ("hot_sessions", "Sessions that are at hand", lambda: len(hot)),
            ("hot_session_bytes", "What is kept of their objects", lambda: hot.nbytes),
        ):
            telemetry.watch(name, meaning, read)
        telemetry.watch_caches(self.segmenter.caches(), self.shared.counts if self.shared else None)
        if address:
            try:
                self.stop_telling = tell(address, telemetry.registry, lambda: self.ready)
            except OSError as error:
                raise StartError(f"cannot tell metrics at {address}: {error.strerror}") from error

    async def warm(self) -> None:
        """Run every graph once, so that no client pays for a first time; then SERVING."""
        request = pb.SegmentRequest(
            image=pb.Image(data=_grey_picture()),
            prompts=_one_of_each(self.prompts),
            options=pb.SegmentOptions(score_threshold=0.0, max_segments=1),
        )
        await self.lane.run(lambda: self.segmenter.segment(request), Ticket(None))
        await self.lane.run(lambda: self.tracker.warm(request.image.data), Ticket(None))
        if self.shared:
            # Not before: the warming picture was encoded here, whoever encoded it elsewhere.
            self.shared.begin()
        await self._say(_SERVING)

    async def drain(self) -> None:
        """NOT_SERVING, no new calls, `drain_s` for those that are here; then everything is closed."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self.drain_s
        self.ready = False
        await self.health.enter_graceful_shutdown()
        stopping = asyncio.ensure_future(self.server.stop(self.drain_s))
        # The last answers get a moment to leave.
        idle = asyncio.ensure_future(self.lane.idle(_LAST_ANSWERS_S))
        await asyncio.wait({stopping, idle}, return_when="FIRST_COMPLETED")
        idle.cancel()
        # Whoever watches our health never hangs up.
        await self.server.stop(None)
        await stopping
        await self.decoders.close()
        self.lane.close()
        self.batcher.close()
        self.stop_telling()
        await self.images.close()
        if self.shared:
            await self.shared.close()
        await self.sessions.close()
        await asyncio.to_thread(self.tracing.close, until - loop.time())

    async def _say(self, state: "health_pb2.HealthCheckResponse.ServingStatus") -> None:
        self.ready = state == _SERVING
        for service in ("", *SERVICES):
            await self.health.set(service, state)


def _open_batcher(
    engine: Engine, artifact: Artifact, settings: WorkerSettings, telemetry: WorkerTelemetry
) -> Batcher:
    return Batcher(
        engine,
        artifact.manifest.graphs,
        batching=settings.batching,
        max_rows=settings.max_batch,
        infer_requests=settings.infer_requests,
        cores=settings.engine_cores,
        ran=telemetry.ran,
    )


def _open_images(settings: WorkerSettings) -> ImageStore:
    if settings.redis_url:
        return RedisImages(settings.redis_url, settings.image_ttl_s)
    return MemoryImages(settings.image_ttl_s, settings.max_kept_image_bytes)


def _open_shared(artifact: Artifact, engine: Engine, settings: WorkerSettings) -> SharedEmbeddings | None:
    if not settings.shared_embedding_ttl_s:
        return None
    if not settings.redis_url:
        raise StartError("shared_embedding_ttl_s: there is no redis_url to share image embeddings by")
    origin = origin_of(artifact, engine, settings)
    store = RedisEmbeddings(settings.redis_url, origin, settings.shared_embedding_ttl_s)
    (embedding,) = artifact.manifest.graphs["image_encoder"].outputs
    return SharedEmbeddings(store, (1, *embedding.shape[1:]))


def _open_sessions(settings: WorkerSettings) -> SessionStore:
    return RedisSessions(settings.redis_url) if settings.redis_url else MemorySessions()


def _stop_event(parent_fd: int | None) -> asyncio.Event:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if parent_fd is not None:

        def read() -> None:
            if not os.read(parent_fd, 1):
                loop.remove_reader(parent_fd)
                stop.set()

        loop.add_reader(parent_fd, read)
    return stop


def _one_of_each(kinds: tuple[str, ...]) -> list[pb.Prompt]:
    """A prompt for each side of the graphs that the kinds belong to."""
    prompts = []
    if "text" in kinds:
        prompts.append(pb.Prompt(text=VISUAL))
    elif "exemplar_box" in kinds:
        prompts.append(pb.Prompt(exemplars=[pb.Exemplar(box=pb.Box(x1=32, y1=32))]))
    if "points" in kinds:
        prompts.append(pb.Prompt(points=[pb.Point(x=16, y=16)]))
    return prompts


def _grey_picture() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (64, 48), "grey").save(file, "PNG")
    return file.getvalue()
