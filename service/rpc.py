"""ServiceError <-> gRPC status, and the request's id. Shared by gateway, worker and client.

An error travels as a status whose details hold google.rpc.ErrorInfo{reason: <kind>, domain: efficientsam3}
and, where the error says when to come back, metadata {retry_after_s}; {begun: true} where a worker may have
begun the request when it went away. The request's id travels as metadata
`x-request-id` in both directions. The gateway tells a worker on whose behalf it asks by metadata `x-owner`,
the id that a new session is to have by `x-session`, and how many sessions the owner may have by `x-sessions`.
"""

import asyncio
import functools
import logging
import re
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from contextvars import ContextVar
from typing import Any, NoReturn

import grpc
import grpc.aio
from google.protobuf import any_pb2
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from service.errors import INTERNAL_DETAIL, Kind, ServiceError
from service.pb.efficientsam3.v1 import tracking_pb2
from service.tracing import OFF, Fact, Span, Tracing, ending, within

DOMAIN = "efficientsam3"
REQUEST_ID_KEY = "x-request-id"
AUTHORIZATION_KEY = "authorization"
OWNER_KEY = "x-owner"
SESSION_KEY = "x-session"
SESSIONS_KEY = "x-sessions"
OUR_METHODS = "/efficientsam3."

GIVEN_UP = "The server gave up the call before it was answered."

# The id of the request that the current task works for; empty outside a request.
REQUEST_ID: ContextVar[str] = ContextVar("request_id", default="")

_LOG = logging.getLogger(__name__)
_ACCEPTABLE_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")
_SIZES = re.compile(r"larger than max \((\d+) vs\. (\d+)\)")
# Status and message share the 8 KiB that gRPC allows for trailing metadata.
_MAX_DETAIL_BYTES = 1000

_Handler = Callable[[Any, Any], Awaitable[Any]]
# `Tracing.request` or `Tracing.stream`.
_Begin = Callable[[str, Mapping[str, str], Mapping[str, str]], Span]
# A call's context -> `_telling` of it.
_Telling = Callable[[Any], AbstractAsyncContextManager[None]]


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


async def abort(context: "grpc.aio.ServicerContext[Any, Any]", error: ServiceError) -> NoReturn:
    """End the call with the error's status, its ErrorInfo and the request's id. Always raises."""
    status = rpc_status.to_status(_to_proto(error))
    metadata = (*status.trailing_metadata, (REQUEST_ID_KEY, take_request_id(REQUEST_ID.get())))
    await context.abort(status.code, status.details, trailing_metadata=metadata)


def from_rpc_error(error: grpc.RpcError) -> ServiceError:
    """The ServiceError that the other side meant, or the nearest to a status that gRPC itself made."""
    return told(error) or _guessed(error)


def frame_error(frame: int, error: ServiceError) -> tracking_pb2.FrameError:
    """Why a frame of a stream has no answer."""
    return tracking_pb2.FrameError(frame=frame, kind=error.kind.value, detail=error.detail)


class ErrorsAsStatuses(grpc.aio.ServerInterceptor):
    """Gives every call of ours its request id and its span, and turns what it raises into a status.

    A ServiceError becomes its status; anything unexpected is logged with its traceback under the request's
    id and becomes `internal` with a fixed sentence. No method takes a stream and gives one answer.
    """

    def __init__(self, tracing: Tracing = OFF) -> None:
        self._tracing = tracing

    async def intercept_service(
        self,
        continuation: Callable[
            [grpc.HandlerCallDetails], Awaitable["grpc.RpcMethodHandler[Any, Any] | None"]
        ],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "grpc.RpcMethodHandler[Any, Any] | None":
        """Wrap the handler of one of our methods; others (health, reflection) pass as they are."""
        handler = await continuation(handler_call_details)
        method: str = handler_call_details.method
        if handler is None or not method.startswith(OUR_METHODS):
            return handler
        readers = {
            "request_deserializer": _tolerant(handler.request_deserializer),
            "response_serializer": handler.response_serializer,
        }
        telling = functools.partial(_telling, method, self._tracing.request)
        readable = functools.partial(_readable, method)
        if handler.unary_unary is not None:
            answer = _guarded(telling, handler.unary_unary, readable)
            return grpc.unary_unary_rpc_method_handler(answer, **readers)
        if handler.unary_stream is not None:
            answers = _guarded_answers(telling, handler.unary_stream, readable)
            return grpc.unary_stream_rpc_method_handler(answers, **readers)
        if handler.stream_stream is None:
            raise NotImplementedError(f"{method}: errors of a stream of requests alone are not translated")
        telling = functools.partial(_telling, method, self._tracing.stream)
        answers = _guarded_answers(telling, handler.stream_stream, functools.partial(_all_readable, readable))
        return grpc.stream_stream_rpc_method_handler(answers, **readers)


class _Malformed:
    """Stands for a message that could not be read, until it can be refused within the call."""


def _tolerant(deserialize: Callable[[bytes], Any] | None) -> Callable[[bytes], Any]:
    """A reader that does not raise: gRPC would answer UNKNOWN, without our details, and log a traceback."""
    assert deserialize is not None

    def read(message: bytes) -> Any:
        try:
            return deserialize(message)
        except DecodeError:
            return _Malformed()

    return read


def _guarded(telling: _Telling, behaviour: Any, readable: Callable[[Any], Any]) -> _Handler:
    async def answer(request: Any, context: Any) -> Any:
        async with telling(context):
            return await behaviour(readable(request), context)

    return answer


def _guarded_answers(
    telling: _Telling, behaviour: Any, readable: Callable[[Any], Any]
) -> Callable[[Any, Any], AsyncIterator[Any]]:
    """`readable` makes what the behaviour takes of what gRPC gives: one message, or a stream of them."""

    async def answers(asked: Any, context: Any) -> AsyncIterator[Any]:
        async with telling(context):
            async for response in behaviour(readable(asked), context):
                yield response

    return answers


def _readable(method: str, request: Any) -> Any:
    if isinstance(request, _Malformed):
        raise ServiceError(Kind.INVALID_ARGUMENT, f"The message is not one that {method} takes.")
    return request


async def _all_readable(readable: Callable[[Any], Any], requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for request in requests:
        yield readable(request)


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


def _guessed(error: grpc.RpcError) -> ServiceError:
    """For statuses without ErrorInfo, which come from gRPC itself: what they mean for the request."""
    code = error.code() if isinstance(error, (grpc.Call, grpc.aio.AioRpcError)) else None
    details = error.details() or "" if isinstance(error, (grpc.Call, grpc.aio.AioRpcError)) else ""
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
