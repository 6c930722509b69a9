"""What surrounds every HTTP request: its id, its key, its deadline, its body's limit, its record."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, closing

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.config import GatewaySettings
from service.errors import INTERNAL_DETAIL, Kind, ServiceError
from service.gateway.admission import Admission
from service.gateway.body_stream import BodyStream, ReceivingBytes, has_body
from service.gateway.call import Call, recorded
from service.gateway.hosts import PROBES, HostCheck
from service.gateway.load_shedding import check_http_room
from service.gateway.problems import problem
from service.gateway.redaction import loggable
from service.gateway.router import Router
from service.gateway.turns import Turns
from service.rpc import take_request_id
from service.telemetry import Telemetry
from service.tracing import Fact, Span, ending, within

_LOG = logging.getLogger(__name__)
# Up to this size the body of a request that is refused is read, so that its connection can be used again.
_SMALL_BODY_BYTES = 65_536


class Outer:
    """ASGI middleware; `scope["state"]["call"]` is the request's Call for everything inside."""

    def __init__(
        self,
        app: ASGIApp,
        settings: GatewaySettings,
        telemetry: Telemetry,
        admission: Admission,
        router: Router,
        turns: Turns,
    ) -> None:
        self._app = app
        self._router = router
        self._settings = settings
        self._telemetry = telemetry
        self._admission = admission
        self._hosts = HostCheck(settings, keyed=admission.keyed)
        self._receiving = ReceivingBytes(settings.max_receiving_bytes)
        self._turns = turns

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        target = f"{scope['method']} {loggable(scope['path'])}"[:200]
        request_id = take_request_id(headers.get("x-request-id"))
        call = Call(request_id, "http", target, asyncio.get_running_loop().time())
        scope.setdefault("state", {})["call"] = call
        if not _is_api(scope):
            # Probes, scrapes and documents are no requests of anyone's.
            await self._answer(call, headers, scope, receive, send)
            return
        method: str = scope["method"]
        span = self._telemetry.tracing.request(method, headers, {Fact.HTTP_METHOD: method})
        with within(span), ending(span), recorded(call, self._telemetry):
            await self._answer(call, headers, scope, receive, send)
            _tell_route(span, scope)

    async def _answer(self, call: Call, headers: Headers, scope: Scope, receive: Receive, send: Send) -> None:
        reply = _Reply(call, send, headers)
        try:
            if scope["path"] not in PROBES:
                self._hosts.check(headers.get("host"))
            check_origin(headers, self._settings.allowed_origins)
            if _is_api(scope):
                await self._start(call, headers, scope)
            call.deadline += deadline_ms(headers, self._settings) / 1000
            body = BodyStream(headers, receive, self._settings, self._receiving, call.owner, self._turns)
            reply.body_read = lambda: body.complete
            with closing(body):
                if _is_api(scope):
                    await self._check_room(call, headers, scope, body)
                    await reply.place.enter_async_context(self._admission.counted(call))
                await self._app(scope, body, reply)
        except ServiceError as error:
            await self._refuse(call, error, scope, receive, reply)
        except asyncio.CancelledError:
            # Only a server that stops cancels a request, and the request's task ends with this answer.
            stopped = ServiceError(Kind.UNAVAILABLE, "The gateway stopped before the answer was ready.")
            await self._refuse(call, stopped, scope, receive, reply)
        except ClientDisconnect:
            call.kind = "cancelled"
        except Exception:
            _LOG.exception("%s failed, request %s", call.target, call.request_id)
            await self._refuse(call, ServiceError(Kind.INTERNAL, INTERNAL_DETAIL), scope, receive, reply)
        finally:
            await reply.place.aclose()

    async def _start(self, call: Call, headers: Headers, scope: Scope) -> None:
        """Find the call's key and wait for its turn. Raises ServiceError UNAUTHENTICATED, OVERLOADED."""
        try:
            call.key = self._admission.key(headers.get("authorization"))
        finally:
            # Clients without a valid key are told apart by their hosts.
            client = scope.get("client")
            await self._turns.start(call.owner or (client[0] if client else ""))

    async def _check_room(self, call: Call, headers: Headers, scope: Scope, body: BodyStream) -> None:
        """Raise ServiceError OVERLOADED while no variant has room for the request: its body is not parsed."""
        try:
            check_http_room(self._router, scope["method"], scope["path"], call.owner)
        except ServiceError:
            announced = headers.get("content-length", "")
            if announced.isdigit() and int(announced) <= _SMALL_BODY_BYTES:
                # To connect again would cost more than to read it.
                while not body.complete:
                    await body()
            raise

    async def _refuse(
        self, call: Call, error: ServiceError, scope: Scope, receive: Receive, reply: "_Reply"
    ) -> None:
        call.failed(error)
        if not reply.started:
            await problem(error, call.request_id)(scope, receive, reply)


def _is_api(scope: Scope) -> bool:
    path: str = scope["path"]
    return path.startswith("/v1/")


def _tell_route(span: Span, scope: Scope) -> None:
    """What the address stands for, which the framework has found meanwhile; it has not if that is nothing."""
    if route := getattr(scope.get("route"), "path", ""):
        span.rename(f"{scope['method']} {route}")
        span.tell({Fact.HTTP_ROUTE: route})


class _Reply:
    """Adds the request's id to the answer, and knows whether it has begun.

    The request's place is given back before its answer ends: whoever waited for it may ask again at once.
    An answer that comes before the whole body is the connection's last: the rest of the body is not read.
    """

    def __init__(self, call: Call, send: Send, headers: Headers) -> None:
        self.started = False
        self.body_read: Callable[[], bool] = lambda: not has_body(headers)
        self.place = AsyncExitStack()
        self._call = call
        self._send = send

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            headers = MutableHeaders(scope=message)
            headers["X-Request-Id"] = self._call.request_id
            if not self.body_read():
                headers["Connection"] = "close"
        elif not message.get("more_body", False):
            await self.place.aclose()
        await self._send(message)


def check_origin(headers: Headers, allowed: Sequence[str]) -> None:
    """Raise ServiceError FORBIDDEN for a page of another origin: a browser sends it without being asked.

    Only the page's own host is compared with ours: a proxy in front may speak another scheme than we do.
    """
    origin = headers.get("origin")
    if (
        origin is None
        or origin in allowed
        or "*" in allowed
        or origin.partition("://")[2] == headers.get("host")
    ):
        return
    detail = (
        f"Pages of {origin[:200]!r} may not send requests here; the setting allowed_origins can allow it."
    )
    raise ServiceError(Kind.FORBIDDEN, detail)


def deadline_ms(headers: Headers, settings: GatewaySettings) -> int:
    """Milliseconds that a request, or a frame of a stream, may take. Raises ServiceError INVALID_ARGUMENT."""
    asked = headers.get("x-deadline-ms")
    if asked is None:
        return settings.default_deadline_ms
    limit = settings.max_deadline_ms
    if asked.isascii() and asked.isdigit() and len(asked) < 10 and 1 <= int(asked) <= limit:
        return int(asked)
    detail = f"X-Deadline-Ms must be a whole number of milliseconds from 1 to {limit}."
    raise ServiceError(Kind.INVALID_ARGUMENT, detail)
