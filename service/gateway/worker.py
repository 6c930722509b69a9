"""One worker as the gateway sees it: its channel, its health, and the requests it has."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from contextvars import Context
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeVar, cast

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from service.errors import INTERNAL_DETAIL, Kind, ServiceError
from service.gateway.call import Call
from service.gateway.standing import Standing
from service.pb.efficientsam3.v1 import (
    segmentation_pb2_grpc,
    tracking_pb2_grpc,
    variants_pb2,
    variants_pb2_grpc,
)
from service.rpc import (
    ANNOUNCE_KEY,
    BEGUN_KEY,
    OWNER_KEY,
    REQUEST_ID_KEY,
    SESSION_KEY,
    SESSIONS_KEY,
    from_rpc_error,
    is_broken,
    told,
)
from service.rpc_server import SEGMENTATION
from service.tls import Trust, open_channel
from service.tracing import Span, current, ending

if TYPE_CHECKING:
    from service.pb.efficientsam3.v1.segmentation_pb2_grpc import SegmentationAsyncStub
    from service.pb.efficientsam3.v1.tracking_pb2_grpc import TrackingAsyncStub

_LOG = logging.getLogger(__name__)

Request = TypeVar("Request")
Response = TypeVar("Response")
# Which method is meant: `lambda worker: worker.segmentation.Segment`.
Method = Callable[["Worker"], grpc.aio.UnaryUnaryMultiCallable[Request, Response]]
StreamMethod = Callable[["Worker"], grpc.aio.UnaryStreamMultiCallable[Request, Response]]

# What gRPC says of the calls that a server cuts off when it is stopped in order.
_STOPPED = "Cancelling all calls"

# A watch is opened again after this long, so that a frozen worker is found out. Longer than `_ANSWER_S`, or
# a watch would end before a frozen worker has failed to begin it.
_WATCH_S = 6.0
# A worker that takes longer than this to say how it is, is frozen: far longer than a busy machine delays it,
# since what it has is then computed again elsewhere.
_ANSWER_S = 5.0


class WorkerLostError(ServiceError):
    """The worker went away, or froze, before it answered.

    If it had `begun` to compute the request, the request may be the cause, and must not be sent to another.
    """

    def __init__(self, *, begun: bool) -> None:
        detail = _LOST_WHILE_COMPUTING if begun else _LOST
        super().__init__(Kind.UNAVAILABLE, detail, retry_after_s=1.0, begun=begun)


_LOST = "The worker went away before it computed this request."
_LOST_WHILE_COMPUTING = (
    "The worker stopped while it computed this request. No other worker was asked, since the request may be "
    "the cause. Send it again if it is sound."
)


class State(StrEnum):
    """What the gateway knows of a worker, in words that complete "the worker is ..."."""

    UNREACHABLE = "not reachable"
    STARTING = "starting"
    READY = "ready"
    MISPLACED = "serving another variant"


class Worker:
    """One worker's address: its channel, its health, and the requests it has.

    Whatever process answers at the address is the worker: it may die and come back.
    """

    def __init__(
        self,
        name: str,
        address: str,
        probe_interval_s: float,
        changed: Callable[[], None],
        serves: Callable[[variants_pb2.Variant], bool],
        trust: Trust | None = None,
    ) -> None:
        """`name`: of what it is a worker, for the log; `serves`: whether what it says of itself is that."""
        self.address = address
        self.state = State.UNREACHABLE
        # How often it has become ready; tells a worker from the one that died before it.
        self.life = 0
        # Its own answer to GetVariant, from when it was last ready.
        self.info: variants_pb2.Variant | None = None
        self.standing = Standing()
        self._calls: set[grpc.aio.Call] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._name, self._serves = name, serves
        self._probe_interval_s = probe_interval_s
        self._changed = changed
        self._channel = open_channel(address, _channel_options(probe_interval_s), trust)
        self._health = health_pb2_grpc.HealthStub(self._channel)
        streaming = cast("grpc.aio.Channel", _StreamingChannel(self._channel))
        self.segmentation: SegmentationAsyncStub = segmentation_pb2_grpc.SegmentationStub(streaming)
        self.tracking: TrackingAsyncStub = tracking_pb2_grpc.TrackingStub(streaming)
        self._variants = variants_pb2_grpc.VariantsStub(self._channel)
        self._watch = self._watching()

    @property
    def ready(self) -> bool:
        return self.state is State.READY

    @property
    def outstanding(self) -> int:
        """How many requests it has."""
        return len(self._calls)

    @property
    def load(self) -> float:
        """The same, as many more as it is to have fewer."""
        return len(self._calls) / self.standing.share

    async def ask(self, method: Method[Request, Response], request: Request, call: Call) -> Response:
        """Forward the request, to be answered by the call's deadline.

        Raises the worker's ServiceError, and WorkerLostError when the worker falls silent; cancelling it
        cancels the worker's call.
        """
        with ending(current().asks(self.address)) as span:
            # See `_StreamingChannel`.
            asked = cast(
                "grpc.aio.UnaryStreamCall[Request, Response]", method(self)(request, **_terms(call, span))
            )
            async with self._under_way(asked):
                answer = await asked.read()
                if answer is grpc.aio.EOF:
                    raise ServiceError(Kind.INTERNAL, INTERNAL_DETAIL)
                await asked.code()
                return cast("Response", answer)

    async def ask_for_many(
        self, method: StreamMethod[Request, Response], request: Request, call: Call
    ) -> AsyncGenerator[Response, None]:
        """As `ask`, for answers that come one by one. Closing it cancels the worker's call."""
        with ending(current().asks(self.address)) as span:
            asked = method(self)(request, **_terms(call, span))
            async with self._under_way(asked):
                try:
                    async for answer in asked:
                        yield answer
                finally:
                    asked.cancel()

    @asynccontextmanager
    async def _under_way(self, asked: grpc.aio.Call) -> AsyncIterator[None]:
        """Count the call among the worker's, and raise what it fails with as `ask` says."""
        life = self.life
        self._calls.add(asked)
        self._idle.clear()
        try:
            yield
            self.standing.answered()
        except grpc.aio.AioRpcError as failure:
            error = await _meant(asked, failure)
            if error.kind is Kind.UNAVAILABLE:
                self._suspect(life)
            elif error.kind is Kind.INTERNAL:
                self.standing.failed()
            else:
                self.standing.answered()
            raise error from failure
        except asyncio.CancelledError:
            if (task := asyncio.current_task()) is None or task.cancelling():
                raise
            # Only the call was cancelled: by `_give_up`.
            raise WorkerLostError(begun=await _begun(asked)) from None
        finally:
            self._calls.remove(asked)
            if not self._calls:
                self._idle.set()

    async def leave(self) -> None:
        """Close once it has answered what it has."""
        try:
            await self._idle.wait()
        finally:
            await self.close()

    async def close(self) -> None:
        self._watch.cancel()
        await asyncio.gather(self._watch, return_exceptions=True)
        await self._channel.close()

    def _suspect(self, life: int) -> None:
        """It failed a request: it is not ready until it says so anew."""
        if self.ready and life == self.life:
            self._become(State.UNREACHABLE)
            self._watch.cancel()
            self._watch = self._watching()

    def _give_up(self) -> None:
        """It is frozen: what it has not begun is sent elsewhere rather than left to its deadline."""
        for call in self._calls:
            call.cancel()

    def _become(self, state: State) -> None:
        if state is self.state:
            return
        self.state = state
        if state is State.READY:
            self.life += 1
            self.standing.came_back()
        _LOG.info("worker %s of %s is %s", self.address, self._name, state)
        self._changed()

    def _watching(self) -> asyncio.Task[None]:
        # In a context of its own: it is not the work of the request that begins it.
        return asyncio.create_task(self._keep_watching(), context=Context())

    async def _keep_watching(self) -> None:
        while True:
            await self._follow()
            await asyncio.sleep(self._probe_interval_s)

    async def _follow(self) -> None:
        """Follow its health for a while, or until it is lost or not ready.

        A watch is not left open on a worker that is not ready: it would hold up one that is stopping.
        """
        # The health of this service is the worker's readiness: set when its graphs have been warmed.
        asked = health_pb2.HealthCheckRequest(service=SEGMENTATION)
        watch = self._health.Watch(asked, timeout=_WATCH_S)
        try:
            # A watch begins with the worker's health as it is: only a frozen worker leaves that unsaid.
            async with asyncio.timeout(_ANSWER_S):
                answer = await watch.read()
            while answer is not grpc.aio.EOF:
                await self._hear(answer.status)
                if not self.ready:
                    return
                answer = await watch.read()
        except TimeoutError:
            self._give_up()
        except grpc.aio.AioRpcError as error:
            if self.ready and error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                return
        except Exception:
            _LOG.exception("watching worker %s failed", self.address)
        finally:
            watch.cancel()
        self._become(State.UNREACHABLE)

    async def _hear(self, status: int) -> None:
        if status != health_pb2.HealthCheckResponse.SERVING:
            self._become(State.STARTING)
        elif not self.ready:
            self.info = await self._variants.GetVariant(variants_pb2.GetVariantRequest(), timeout=_ANSWER_S)
            self._become(State.READY if self._serves(self.info) else State.MISPLACED)


async def _meant(asked: grpc.aio.Call, failure: grpc.aio.AioRpcError) -> ServiceError:
    """Return what a failed call means for its request."""
    stopped = _STOPPED in (failure.details() or "")
    lost = failure.code() is grpc.StatusCode.UNAVAILABLE or is_broken(failure)
    if lost and told(failure) is None and not stopped:
        return WorkerLostError(begun=await _begun(asked))
    return from_rpc_error(failure)


async def _begun(asked: grpc.aio.Call) -> bool:
    """Return whether the worker had announced that it computes the request. The call has ended."""
    return BEGUN_KEY in dict(await asked.initial_metadata() or ())


class _StreamingChannel:
    """A channel whose unary calls are streams of one answer.

    gRPC gives the initial metadata of a canceled call only if it is a stream.
    """

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel
        self.unary_stream = self.unary_unary = channel.unary_stream
        self.stream_stream = channel.stream_stream


def _terms(call: Call, span: Span) -> dict[str, Any]:
    """The deadline and the metadata that a worker is asked with. `span`: of the asking."""
    sessions = call.key.sessions if call.key else None
    metadata = (
        (REQUEST_ID_KEY, call.request_id),
        (OWNER_KEY, call.owner),
        (SESSION_KEY, call.new_session),
        (SESSIONS_KEY, str(sessions or "")),
        (ANNOUNCE_KEY, "1"),
        *span.headers(),
    )
    return {"timeout": call.deadline - asyncio.get_running_loop().time(), "metadata": metadata}


def _channel_options(probe_interval_s: float) -> list[tuple[str, int]]:
    return [
        # Workers are ours: their answers are bounded by what they were asked.
        ("grpc.max_receive_message_length", -1),
        ("grpc.max_send_message_length", -1),
        # By default gRPC waits up to two minutes before it looks for a lost worker again.
        ("grpc.initial_reconnect_backoff_ms", 100),
        # It bounds an attempt to connect, a TLS handshake included.
        ("grpc.min_reconnect_backoff_ms", int(_ANSWER_S * 1000)),
        ("grpc.max_reconnect_backoff_ms", max(100, int(probe_interval_s * 1000))),
        # Channels to the same address would share a connection, and its failures.
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.enable_http_proxy", 0),
    ]
