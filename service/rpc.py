"""ServiceError <-> gRPC status, and the request's id. Shared by gateway, worker and client.

An error travels as a status whose details hold google.rpc.ErrorInfo{reason: <kind>, domain: efficientsam3}
and, where the error says when to come back, metadata {retry_after_s}; {begun: true} where a worker may have
begun the request when it went away. The request's id travels as metadata
`x-request-id` in both directions. The gateway tells a worker on whose behalf it asks by metadata `x-owner`,
the id that a new session is to have by `x-session`, and how many sessions the owner may have by `x-sessions`.
By `x-announce` it asks to be informed when the worker begins to compute: the worker sends `x-begun` as
initial metadata, and for each frame of a video a message. What had begun is not sent to another worker.
"""

import asyncio
import functools
import inspect
import logging
import re
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, NoReturn

import grpc
import grpc.aio
from google.protobuf import any_pb2, descriptor_pool
from google.protobuf.descriptor import Descriptor
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from service.errors import INTERNAL_DETAIL, Kind, ServiceError, SlowReaderError
from service.message_reader import Incoming, MessageReader
from service.pb.efficientsam3.v1 import tracking_pb2
from service.rpc_methods import METHODS, Access
from service.tracing import OFF, Fact, Span, Tracing, ending, within

DOMAIN = "efficientsam3"
REQUEST_ID_KEY = "x-request-id"
AUTHORIZATION_KEY = "authorization"
OWNER_KEY = "x-owner"
SESSION_KEY = "x-session"
SESSIONS_KEY = "x-sessions"
ANNOUNCE_KEY = "x-announce"
BEGUN_KEY = "x-begun"

_BROKEN = "Internal error from Core"

GIVEN_UP = "The server gave up the call before it was answered."

# The id of the request that the current task works for; empty outside a request.
REQUEST_ID: ContextVar[str] = ContextVar("request_id", default="")

_LOG = logging.getLogger(__name__)
_ACCEPTABLE_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")
_SIZES = re.compile(r"larger than max \((\d+) vs\. (\d+)\)")
# Health and reflection calls under way, in all and of one connection.
_PUBLIC_CALLS, _PUBLIC_CALLS_PER_CONNECTION = 256, 8
# Status and message share the 8 KiB that gRPC allows for trailing metadata.
_MAX_DETAIL_BYTES = 1000
# A large answer may take longer than `write_timeout_s`, as long as the client reads at this rate.
_MIN_READ_BYTES_PER_S = 65_536

# `Tracing.request` or `Tracing.stream`.
_Begin = Callable[[str, Mapping[str, str], Mapping[str, str]], Span]
# (method, the call's context) -> entered before the call's message is received. Yields the owner of its
# messages, and raises ServiceError.
Admit = Callable[[str, Any], AbstractAsyncContextManager[str]]
# Informs the caller that computing begins. A second call does nothing.
Announce = Callable[[], Awaitable[None]]


def take_request_id(offered: str | None) -> str:
    """The id a caller offered if it is 1 to 128 plain characters, else a new one."""
    return offered if offered and _ACCEPTABLE_ID.fullmatch(offered) else uuid.uuid4().hex


def authorization_of(context: "grpc.aio.ServicerContext[Any, Any]") -> str | None:
    """What the caller brought to be let in; None: nothing."""
    told = dict(context.invocation_metadata() or ()).get(AUTHORIZATION_KEY)
    return None if told is None else str(told)


def owner_of(context: "grpc.aio.ServicerContext[Any, Any]") -> str:
    """On whose behalf the gateway asks; empty: nobody's in particular. Only workers may believe it."""
    return str(dict(context.invocation_metadata() or ()).get(OWNER_KEY, ""))


def session_of(context: "grpc.aio.ServicerContext[Any, Any]") -> str:
    """The id that the gateway chose for a new session; empty: none. Only workers may believe it."""
    return str(dict(context.invocation_metadata() or ()).get(SESSION_KEY, ""))


def sessions_of(context: "grpc.aio.ServicerContext[Any, Any]", limit: int) -> int:
    """How many sessions the owner may have at once: as the gateway says, and no more than `limit`."""
    told = str(dict(context.invocation_metadata() or ()).get(SESSIONS_KEY, ""))
    return min(int(told), limit) if told.isascii() and told.isdigit() else limit


def announcing(context: "grpc.aio.ServicerContext[Any, Any]") -> Announce:
    """Return what informs the gateway that computing has begun; nothing is sent to others."""
    metadata = ((BEGUN_KEY, "1"),)
    wanted = ANNOUNCE_KEY in dict(context.invocation_metadata() or ())

    async def announce() -> None:
        nonlocal wanted
        if wanted:
            wanted = False
            await context.send_initial_metadata(metadata)

    return announce


def announcing_frame(context: "grpc.aio.ServicerContext[Any, Any]", frame: int) -> Announce:
    """Return what informs the gateway that computing this frame of a video has begun."""
    wanted = ANNOUNCE_KEY in dict(context.invocation_metadata() or ())

    async def announce() -> None:
        nonlocal wanted
        if wanted:
            wanted = False
            begun = tracking_pb2.FrameBegun(frame=frame)
            await context.write(tracking_pb2.TrackResponse(begun=begun))

    return announce


async def abort(context: "grpc.aio.ServicerContext[Any, Any]", error: ServiceError) -> NoReturn:
    """End the call with the error's status, its ErrorInfo and the request's id. Always raises."""
    status = _status(error.kind, error.detail, error.retry_after_s)
    metadata = (*status.trailing_metadata, (REQUEST_ID_KEY, take_request_id(REQUEST_ID.get())))
    await context.abort(status.code, status.details, trailing_metadata=metadata)


# Under overload the same few are sent over and over.
@functools.lru_cache(maxsize=64)
def _status(kind: Kind, detail: str, retry_after_s: float | None) -> Any:
    return rpc_status.to_status(_to_proto(ServiceError(kind, detail, retry_after_s=retry_after_s)))


def from_rpc_error(error: grpc.RpcError) -> ServiceError:
    """The ServiceError that the other side meant, or the nearest to a status that gRPC itself made."""
    return told(error) or _guessed(error)


def frame_error(frame: int, error: ServiceError) -> tracking_pb2.FrameError:
    """Why a frame of a stream has no answer."""
    return tracking_pb2.FrameError(frame=frame, kind=error.kind.value, detail=error.detail)


@asynccontextmanager
async def trusted(method: str, context: Any) -> AsyncIterator[str]:
    """Admit every call, as a worker does: it is reached by gateways alone."""
    yield ""


class PublicCalls:
    """The public calls under way, bounded in all and for each connection."""

    def __init__(self) -> None:
        self._calls: Counter[str] = Counter()

    @contextmanager
    def counted(self, peer: str) -> Iterator[None]:
        """Count one more. Raises ServiceError `overloaded`."""
        # Gateways on the same machine share the name of a Unix socket.
        limit = _PUBLIC_CALLS if peer.startswith("unix:") else _PUBLIC_CALLS_PER_CONNECTION
        if self._calls[peer] >= limit or self._calls.total() >= _PUBLIC_CALLS:
            detail = f"{limit} health and reflection calls are open at once, which is the limit: close some."
            raise ServiceError(Kind.OVERLOADED, detail, retry_after_s=1.0)
        self._calls[peer] += 1
        try:
            yield
        finally:
            self._calls[peer] -= 1
            if not self._calls[peer]:
                del self._calls[peer]


class ErrorsAsStatuses(grpc.aio.ServerInterceptor):
    """Admits every call before its message is received, and turns what its method raises into a status.

    RPCs that `rpc_methods` does not declare are refused. A ServiceError becomes its status; anything else is
    logged with its traceback under the request's id and becomes `internal` with a fixed sentence. No method
    takes a stream and gives one answer.
    """

    def __init__(
        self,
        tracing: Tracing = OFF,
        admit: Admit = trusted,
        reader: MessageReader | None = None,
        write_timeout_s: float | None = None,
    ) -> None:
        """`admit` is entered for each call of a method that needs a key; it yields the messages' owner.

        A call whose client reads nothing for `write_timeout_s` is ended. None: it may take until its
        deadline.
        """
        self._write_timeout_s = write_timeout_s
        self._tracing = tracing
        self._admit = admit
        self._reader = reader or MessageReader()
        self._public = PublicCalls()

    async def intercept_service(
        self,
        continuation: Callable[
            [grpc.HandlerCallDetails], Awaitable["grpc.RpcMethodHandler[Any, Any] | None"]
        ],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "grpc.RpcMethodHandler[Any, Any] | None":
        """Wrap the method in a handler that receives messages itself, once the call is admitted."""
        handler = await continuation(handler_call_details)
        method: str = handler_call_details.method
        if handler is None:
            return None
        access = METHODS.get(method)
        if access is None:
            return _streaming(functools.partial(_refuse, method), None)
        behavior = handler.unary_unary or handler.unary_stream or handler.stream_stream
        if behavior is None or handler.request_deserializer is None:
            raise NotImplementedError(
                f"{method}: methods that take a stream and give one answer are not served"
            )
        incoming = Incoming(method, _request_kind(method), handler.request_deserializer)
        takes_stream = handler.stream_stream is not None
        calls = _Calls(behavior, incoming, takes_stream, self._write_timeout_s)
        if access is Access.PUBLIC:
            serve = functools.partial(calls.serve_publicly, self._reader, self._public)
        else:
            serve = functools.partial(calls.serve, self._reader, self._tracing, self._admit)
        return _streaming(serve, handler.response_serializer)


@dataclass(frozen=True, slots=True)
class _Calls:
    """The calls of one method."""

    behavior: Any
    incoming: Incoming
    takes_stream: bool
    write_timeout_s: float | None

    async def serve(self, reader: MessageReader, tracing: Tracing, admit: Admit, context: Any) -> None:
        """Answer a call that needs to be admitted."""
        method = self.incoming.method
        begin = tracing.stream if self.takes_stream else tracing.request
        async with _telling(method, begin, context), admit(method, context) as owner:
            if self.takes_stream:
                await self._answer(reader.each(context, owner, self.incoming), context)
            else:
                await self._answer(await reader.only(context, owner, self.incoming), context)

    async def serve_publicly(self, reader: MessageReader, public: PublicCalls, context: Any) -> None:
        """Answer a call by anybody, which has no span of its own."""
        peer = context.peer()
        async with _telling(self.incoming.method, OFF.request, context):
            with public.counted(peer):
                messages = reader.public(context, peer.rpartition(":")[0], self.incoming)
                async with aclosing(messages):
                    if self.takes_stream:
                        await self._answer(messages, context)
                        return
                    async for message in messages:
                        await self._answer(message, context)
                        return
                raise ServiceError(Kind.INVALID_ARGUMENT, "The call has no message: send one.")

    async def _answer(self, asked: Any, context: Any) -> None:
        """Send what the behavior answers, which may also write to the context itself."""
        answer = self.behavior(asked, context)
        if inspect.isasyncgen(answer):
            async with aclosing(answer):
                async for each in answer:
                    try:
                        await self._write(each, context)
                    except SlowReaderError as error:
                        # The behavior ends where it handed the answer over, as if it had failed there.
                        await answer.athrow(error)
        elif (response := await answer) is not None:
            await self._write(response, context)

    async def _write(self, answer: Any, context: Any) -> None:
        """Send an answer, which gRPC takes when the client has read most of those before it."""
        limit_s = self.write_timeout_s
        if limit_s is not None:
            limit_s += answer.ByteSize() / _MIN_READ_BYTES_PER_S
        try:
            async with asyncio.timeout(limit_s) as limit:
                await context.write(answer)
        except TimeoutError:
            if not limit.expired():
                raise
            assert limit_s is not None
            raise SlowReaderError(limit_s) from None


def _streaming(
    serve: Callable[[Any], Awaitable[None]], serialize: Callable[[Any], bytes] | None
) -> "grpc.RpcMethodHandler[Any, Any]":
    """Return a handler that gRPC starts before it receives a message; callers see no difference."""

    async def handle(_: Any, context: Any) -> None:
        await serve(context)

    return grpc.stream_stream_rpc_method_handler(handle, None, serialize)


async def _refuse(method: str, context: Any) -> None:
    _LOG.error("%s is not declared in service.rpc_methods, so that its calls are refused", method)
    await abort(context, ServiceError(Kind.METHOD_NOT_ALLOWED, "This method is not served here."))


@functools.cache
def _request_kind(method: str) -> Descriptor:
    service, _, name = method.removeprefix("/").rpartition("/")
    return descriptor_pool.Default().FindServiceByName(service).methods_by_name[name].input_type


@asynccontextmanager
async def _telling(method: str, begin: _Begin, context: Any) -> AsyncIterator[None]:
    """Gives the call its request id and its span, and ends it with the status of what the block raises."""
    metadata = dict(context.invocation_metadata() or ())
    REQUEST_ID.set(take_request_id(metadata.get(REQUEST_ID_KEY)))
    context.set_trailing_metadata(((REQUEST_ID_KEY, REQUEST_ID.get()),))
    name = method.removeprefix("/")
    span = begin(name, metadata, {Fact.RPC_METHOD: name, Fact.REQUEST_ID: REQUEST_ID.get()})
    with within(span):
        try:
            with ending(span):
                yield
        except ServiceError as error:
            await abort(context, error)
        except grpc.aio.AbortError:
            raise
        except asyncio.CancelledError:
            if (task := asyncio.current_task()) is None or task.cancelling():
                raise
            # Only something awaited was cancelled: gRPC would leave the caller without any answer.
            await abort(context, ServiceError(Kind.UNAVAILABLE, GIVEN_UP))
        except grpc.aio.InternalError:
            # gRPC could not send: the peer went away in the middle of a message.
            await abort(context, ServiceError(Kind.UNAVAILABLE, GIVEN_UP))
        except Exception:
            _LOG.exception("%s failed, request %s", method, REQUEST_ID.get())
            await abort(context, ServiceError(Kind.INTERNAL, INTERNAL_DETAIL))


def _to_proto(error: ServiceError) -> status_pb2.Status:
    info = error_details_pb2.ErrorInfo(reason=error.kind.value, domain=DOMAIN)
    if error.retry_after_s is not None:
        info.metadata["retry_after_s"] = f"{error.retry_after_s:g}"
    if error.begun:
        info.metadata["begun"] = "true"
    packed = any_pb2.Any()
    packed.Pack(info)
    message = error.detail.encode()[:_MAX_DETAIL_BYTES].decode(errors="ignore")
    return status_pb2.Status(code=error.row.grpc_code.value[0], message=message, details=[packed])


def told(error: grpc.RpcError) -> ServiceError | None:
    """What ErrorInfo of our domain says, or None."""
    if not isinstance(error, (grpc.Call, grpc.aio.AioRpcError)):
        return None
    try:
        status = rpc_status.from_call(error)
    except ValueError:  # status and details contradict each other: not ours
        return None
    info = error_details_pb2.ErrorInfo()
    for packed in status.details if status else ():
        if packed.Unpack(info) and info.domain == DOMAIN and info.reason in set(Kind):
            kind, begun = Kind(info.reason), info.metadata.get("begun") == "true"
            return ServiceError(kind, status.message, retry_after_s=_retry_after_s(info), begun=begun)
    return None


def _retry_after_s(info: error_details_pb2.ErrorInfo) -> float | None:
    try:
        return float(info.metadata["retry_after_s"]) if "retry_after_s" in info.metadata else None
    except ValueError:
        return None


def is_broken(error: grpc.aio.AioRpcError) -> bool:
    """Return whether gRPC itself ended the call, since the connection broke while it sent a message."""
    return error.code() is grpc.StatusCode.INTERNAL and error.details() == _BROKEN


def _guessed(error: grpc.RpcError) -> ServiceError:
    """For statuses without ErrorInfo, which come from gRPC itself: what they mean for the request."""
    code = error.code() if isinstance(error, (grpc.Call, grpc.aio.AioRpcError)) else None
    details = error.details() or "" if isinstance(error, (grpc.Call, grpc.aio.AioRpcError)) else ""
    if isinstance(error, grpc.aio.AioRpcError) and is_broken(error):
        code = grpc.StatusCode.UNAVAILABLE
    match code:
        case grpc.StatusCode.UNAVAILABLE:
            return ServiceError(Kind.UNAVAILABLE, "The server cannot be reached, or went away.")
        # By gRPC's own hand: of a server that stops, or that has more calls than it can look at.
        case grpc.StatusCode.CANCELLED:
            return ServiceError(Kind.UNAVAILABLE, GIVEN_UP, retry_after_s=1.0)
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return ServiceError(Kind.DEADLINE_EXCEEDED, "The deadline passed before the answer was ready.")
        case grpc.StatusCode.RESOURCE_EXHAUSTED if sizes := _SIZES.search(details):
            sentence = f"The message has {sizes[1]} bytes; the limit is {sizes[2]} bytes."
            return ServiceError(Kind.PAYLOAD_TOO_LARGE, sentence)
        case grpc.StatusCode.RESOURCE_EXHAUSTED:
            return ServiceError(Kind.OVERLOADED, "The server takes no more calls now.", retry_after_s=1.0)
        case _:
            _LOG.error("unexpected status %s: %s", code, details)
            return ServiceError(Kind.INTERNAL, INTERNAL_DETAIL)
