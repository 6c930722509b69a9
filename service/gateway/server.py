"""The gateway's process: one event loop, an HTTP and a gRPC listener, started and stopped together."""

import asyncio
import signal
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from grpc_health.v1 import health, health_pb2

from service import tls
from service.config import GatewaySettings
from service.gateway import grpc_api
from service.gateway.admission import Admission
from service.gateway.app import make_app
from service.gateway.connections import Connections
from service.gateway.fetch import Fetcher
from service.gateway.http_protocol import BoundedConfig, BoundedHttp
from service.gateway.router import Describe, Fetch, Router
from service.gateway.session_router import SessionRouter
from service.gateway.turns import Turns
from service.gateway.video_router import VideoRouter
from service.memory import bound_allocator, releasing_memory
from service.open_files import allow_many
from service.rpc_server import SERVICES
from service.sessions.redis_store import RedisStore
from service.telemetry import Telemetry, service_version
from service.tls import Listener
from service.tracing import open_tracing

_BACKLOG = 2048


class ListenError(OSError):
    """A listener's address cannot be had; the message says which and why."""


@dataclass(frozen=True, slots=True)
class Stop:
    """What signals ask of the process."""

    # Finish and go.
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    # Go, finished or not.
    hurry: asyncio.Event = field(default_factory=asyncio.Event)

    @classmethod
    def on_signals(cls) -> "Stop":
        """The first SIGINT or SIGTERM sets `asked`, the second `hurry`. Call it inside the event loop."""
        stop = cls()

        def told() -> None:
            (stop.hurry if stop.asked.is_set() else stop.asked).set()

        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, told)
        return stop


class _HttpServer(uvicorn.Server):
    """uvicorn without its signal handlers: the process has its own. Its TLS handshakes have a timeout."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        config, loop = self.config, asyncio.get_running_loop()
        assert sockets and isinstance(config, BoundedConfig)
        await self.lifespan.startup()

        def protocol() -> asyncio.Protocol:
            return BoundedHttp(config, self.server_state, self.lifespan.state)

        self.servers = []
        for each in sockets:
            timeout_s = config.bounds.settings.header_timeout_s if config.ssl else None
            self.servers.append(
                await loop.create_server(
                    protocol,
                    sock=each,
                    ssl=config.ssl,
                    backlog=config.backlog,
                    ssl_handshake_timeout=timeout_s,
                )
            )
        self.started = True

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Gateway:
    """A gateway that is listening. Make one with `start`, inside the event loop; end it with `stop`."""

    def __init__(
        self,
        settings: GatewaySettings,
        router: Router,
        telemetry: Telemetry,
        admission: Admission,
        listener: Listener | None,
    ) -> None:
        self.router = router
        self.telemetry = telemetry
        self._admission, self._listener = admission, listener
        self._settings = settings
        self._store = RedisStore(settings.redis_url) if settings.redis_url else None
        self._socket = _listen(settings.host, settings.http_port)
        self.http_port: int = self._socket.getsockname()[1]
        self.grpc_port = 0
        self._health = health.aio.HealthServicer()
        sessions = SessionRouter(router, settings, telemetry)
        videos = VideoRouter(router, sessions, admission, settings, telemetry)
        tracking = sessions, videos
        turns = Turns()
        self._grpc = grpc_api.make_server(settings, router, tracking, telemetry, admission, self._health)
        config = BoundedConfig(
            make_app(settings, router, tracking, telemetry, admission, self._store, turns),
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            connections=Connections(settings),
            ws_max_size=settings.max_body_bytes,
            # Messages are read one by one: an answered ping lies behind the frames that were sent before it.
            ws_ping_timeout=settings.max_deadline_ms / 1000,
            timeout_graceful_shutdown=max(1, round(settings.drain_s)),
            **_tls(listener),
        )
        self._http = _HttpServer(config)

    @classmethod
    async def start(
        cls, settings: GatewaySettings, describe: Describe, fetch: Fetch | None = None
    ) -> "Gateway":
        """Listen and begin to admit. Raises ListenError and ConfigurationError.

        `fetch` gets images by address, in the place of what the settings say.
        """
        admission, listener = Admission.of(settings), tls.of_gateway(settings)
        telemetry = Telemetry(open_tracing(settings, "gateway", service_version()))
        if fetch is None and settings.allow_image_urls:
            fetch = Fetcher(settings.max_body_bytes, settings.max_image_url_seconds)
        router = Router(settings, telemetry, describe, fetch)
        try:
            gateway = cls(settings, router, telemetry, admission, listener)
            await gateway._open()
        except BaseException:
            await router.close()
            raise
        return gateway

    @property
    def url(self) -> str:
        """Where HTTP listens."""
        scheme = "https" if self._listener else "http"
        return f"{scheme}://{_bracketed(self._settings.host)}:{self.http_port}"

    @property
    def grpc_address(self) -> str:
        """Where gRPC listens."""
        return f"{_bracketed(self._settings.host)}:{self.grpc_port}"

    async def stop(self, hurry: asyncio.Event) -> None:
        """Admit nothing more, let what is admitted finish for `drain_s` or until `hurry`, then close."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self._settings.drain_s
        self.router.draining = True
        await self._health.enter_graceful_shutdown()
        self._http.should_exit = True
        hurrying = asyncio.create_task(self._hurry(hurry))
        await asyncio.gather(self._grpc.stop(self._settings.drain_s), self._serving)
        hurrying.cancel()
        await self.router.close()
        await self._admission.close()
        if self._store:
            await self._store.close()
        left_s = 0.0 if hurry.is_set() else until - loop.time()
        await asyncio.to_thread(self.telemetry.tracing.close, left_s)

    async def _hurry(self, hurry: asyncio.Event) -> None:
        await hurry.wait()
        self._http.force_exit = True
        await self._grpc.stop(None)

    async def _open(self) -> None:
        address = f"{_bracketed(self._settings.host)}:{self._settings.grpc_port}"
        try:
            self.grpc_port = tls.add_port(self._grpc, address, self._listener)
        except RuntimeError as error:
            self._socket.close()
            raise ListenError(f"cannot listen on {address} for gRPC: {error}") from error
        for service in SERVICES:
            await self._health.set(service, health_pb2.HealthCheckResponse.SERVING)
        await self._grpc.start()
        self._serving = asyncio.create_task(self._http.serve(sockets=[self._socket]))


def _tls(listener: Listener | None) -> dict[str, Any]:
    """What uvicorn calls it."""
    if listener is None:
        return {}
    return {
        "ssl_certfile": listener.certificate,
        "ssl_keyfile": listener.key,
        "ssl_ca_certs": listener.client_ca,
        "ssl_cert_reqs": ssl.CERT_REQUIRED if listener.client_ca else ssl.CERT_NONE,
    }


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.create_server((host, port), family=family, backlog=_BACKLOG)
        # Its connections inherit it. asyncio does not set it on them, and without it an answer's body waits
        # for the client to acknowledge its headers: 40 ms.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener
    except OSError as error:
        message = f"cannot listen on {_bracketed(host)}:{port} for HTTP: {error.strerror or error}"
        raise ListenError(message) from error


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


async def run(settings: GatewaySettings, describe: Describe, say: Callable[[str], None]) -> None:
    """Be a gateway until SIGINT or SIGTERM. Raises ListenError, and ConfigurationError."""
    allow_many()
    bound_allocator()
    stop = Stop.on_signals()
    gateway = await Gateway.start(settings, describe)
    say(f"Listening: HTTP {gateway.url}, gRPC {gateway.grpc_address}.")
    async with releasing_memory():
        await stop.asked.wait()
    await gateway.stop(stop.hurry)
