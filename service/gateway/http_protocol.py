"""HTTP/1.1 and WebSocket as uvicorn speaks them, with bounds on what a client may keep it busy with.

uvicorn has no timeout for the head of a request, and processes whatever one read of the socket brought, up to
256 KiB, before anything else happens: of one-byte chunks or empty messages those are tens of thousands.
"""

import asyncio
from typing import Any, cast

import h11
import uvicorn
from uvicorn._types import ASGIReceiveEvent, ASGISendEvent
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame

from service.gateway.connections import Connections

# Bytes that are parsed before the bounds are looked at again.
_HTTP_SLICE, _WEBSOCKET_SLICE = 8192, 2048
# The same for a body in chunks. A chunk of any size costs some 25 us.
_CHUNKED_SLICE = 1024
# Pieces that a body may arrive in, and bytes that each further one must have on average.
_MAX_PIECES, _MIN_PIECE_BYTES = 256, 512
_END_OF_HEAD = b"\r\n\r\n"
# Fragments of one WebSocket message, and pings and pongs of one connection per second.
_MAX_FRAGMENTS = 4096
_MAX_CONTROL_PER_S = 100
# Seconds that a client may take to read the answer to a body that it has not ended, or to answer our closing.
_LINGER_S = 1.0
# Bytes that a WebSocket may still send after we have closed it.
_MAX_AFTER_CLOSE = 65_536
_POLICY_VIOLATION = 1008


class BoundedConfig(uvicorn.Config):
    """uvicorn's configuration with the bounds of its connections."""

    def __init__(self, app: Any, connections: Connections, **options: Any) -> None:
        super().__init__(
            app,
            http=BoundedHttp,
            ws=BoundedWebSocket,
            # A few compressed bytes stand for as many as a message may have.
            ws_per_message_deflate=False,
            **options,
        )
        self.bounds = connections


class _PieceCounter(h11.Connection):
    """An h11 connection that refuses a body in too many small pieces."""

    pieces = size = 0
    _chunked = False

    @property
    def in_chunks(self) -> bool:
        """Whether a body arrives, and comes in chunks."""
        return self._chunked and self.their_state is h11.SEND_BODY

    @property
    def in_large_pieces(self) -> bool:
        """Whether the pieces of the body had enough bytes on average."""
        return 0 < self.pieces * _MIN_PIECE_BYTES <= self.size

    def next_event(self) -> Any:
        event = super().next_event()
        if isinstance(event, h11.Data):
            self.pieces += 1
            self.size += len(event.data)
            if self.pieces > _MAX_PIECES + self.size // _MIN_PIECE_BYTES:
                raise h11.RemoteProtocolError("The body arrives in too many small pieces.")
        elif isinstance(event, h11.Request):
            self.pieces = self.size = 0
            self._chunked = any(name == b"transfer-encoding" for name, _ in event.headers)
        return event


class _LingeringTransport:
    """A transport that, closed while the client still sends, first lets it read the answer.

    To close a socket with unread data resets the connection, which may discard what was sent last.
    """

    def __init__(self, transport: asyncio.Transport, protocol: "BoundedHttp") -> None:
        self._transport, self._protocol = transport, protocol

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def is_closing(self) -> bool:
        return self._protocol.lingering or self._transport.is_closing()

    def close(self) -> None:
        if self._protocol.receiving and not self.is_closing():
            self._protocol.linger()
        else:
            self._transport.close()


class BoundedHttp(H11Protocol):
    """One HTTP connection."""

    def __init__(self, config: BoundedConfig, *arguments: Any, **options: Any) -> None:
        super().__init__(config, *arguments, **options)
        self._bounds = config.bounds
        self.timeout_keep_alive = cast(int, config.bounds.settings.idle_timeout_s)
        self.conn = self._pieces = _PieceCounter(h11.SERVER)
        self.lingering = False
        # What was received and waits for its turn to be parsed: at most two reads of the socket.
        self._unparsed = bytearray()
        self._head_timer: asyncio.TimerHandle | None = None

    @property
    def receiving(self) -> bool:
        """Whether the client may be sending still: a body that has not ended, or what is no HTTP."""
        return self.conn.their_state in (h11.SEND_BODY, h11.ERROR)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._socket = transport
        super().connection_made(cast(asyncio.Transport, _LingeringTransport(transport, self)))
        if self._bounds.opened(self):
            self._await_head()
        else:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_head_timer()
        self._bounds.closed(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        waits = bool(self._unparsed)
        self._unparsed += data
        if waits:
            self._socket.pause_reading()
        else:
            self._parse()

    def handle_events(self) -> None:
        super().handle_events()
        if self.transport is self._socket:
            # A WebSocket has taken over.
            return
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_head_timer()
            self._bounds.works(self)
        elif not self.transport.is_closing() and self.timeout_keep_alive_task is None:
            self._await_head()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing() or not self.cycle.response_complete:
            return
        if self.receiving:
            # The rest of a body that is not needed is not read either.
            self.transport.close()
        else:
            self._bounds.waits(self)

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        self._stop_head_timer()
        self._bounds.closed(self)
        self.transport = self._socket
        super().handle_websocket_upgrade(event)

    def send_400_response(self, msg: str) -> None:
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            super().send_400_response(msg)
        else:
            # The answer has begun, or the connection is unusable.
            self.transport.close()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._bounds.stalls(self)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._bounds.flows(self)

    def linger(self) -> None:
        """Close the connection soon, and drop what arrives until then."""
        self.lingering = True
        self._stop_head_timer()
        self._unset_keepalive_if_required()
        self._bounds.waits(self)
        self._socket.resume_reading()
        self.loop.call_later(_LINGER_S, self._socket.close)

    def _parse(self) -> None:
        """Parse what was received; of a body in chunks one slice, and the next in a later iteration."""
        while self._unparsed:
            if self.lingering or self.transport.is_closing() or self.transport is self._socket:
                self._unparsed.clear()
                return
            size = self._slice_bytes()
            piece = bytes(self._unparsed[:size])
            del self._unparsed[:size]
            super().data_received(piece)
            if self._unparsed and self._pieces.in_chunks:
                self._socket.pause_reading()
                self._bounds.parsing.run(self, self._parse)
                return
        if not self.flow.read_paused:
            self._socket.resume_reading()

    def _slice_bytes(self) -> int:
        if self._pieces.in_chunks:
            return _HTTP_SLICE if self._pieces.in_large_pieces else _CHUNKED_SLICE
        if self.conn.their_state is h11.IDLE:
            end = self._unparsed.find(_END_OF_HEAD, 0, _HTTP_SLICE)
            return end + len(_END_OF_HEAD) if end >= 0 else _HTTP_SLICE
        return _HTTP_SLICE

    def _await_head(self) -> None:
        if self._head_timer is None:
            limit_s = self._bounds.settings.header_timeout_s
            self._head_timer = self.loop.call_later(limit_s, self.transport.close)
            self._bounds.waits(self)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


class BoundedWebSocket(WebSocketsSansIOProtocol):
    """One WebSocket: its messages are parsed a few at a time, and no faster than they are answered."""

    def __init__(self, config: BoundedConfig, *arguments: Any, **options: Any) -> None:
        super().__init__(config, *arguments, **options)
        self._bounds = config.bounds
        self.close_timeout = _LINGER_S
        # What was received and not parsed: at most one read of the socket.
        self._unparsed = bytearray()
        # Bytes since we closed, and pings and pongs since a time in the loop's clock.
        self._after_close, self._control, self._since = 0, 0, 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._bounds.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._bounds.closed(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.close_sent:
            self._after_close += len(data)
            if self._after_close > _MAX_AFTER_CLOSE:
                self.transport.abort()
                return
        self._unparsed += data
        self._parse()

    async def receive(self) -> ASGIReceiveEvent:
        """Return the next message. Other connections take their turn before each."""
        await asyncio.sleep(0)
        message = await self.queue.get()
        if self.read_paused and self.queue.empty():
            self.read_paused = False
            self._parse()
            if not self.read_paused:
                self.transport.resume_reading()
        return message

    async def send(self, message: ASGISendEvent) -> None:
        await super().send(message)
        if self.close_sent:
            # It is not read any more; the answer to our closing frame comes behind it.
            self._unparsed.clear()

    def handle_cont(self, event: Frame) -> None:
        super().handle_cont(event)
        if len(self.frames) > _MAX_FRAGMENTS:
            self._refuse(f"A message may have at most {_MAX_FRAGMENTS:,} fragments.")

    def handle_ping(self) -> None:
        super().handle_ping()
        self._count_control()

    def handle_pong(self, event: Frame) -> None:
        super().handle_pong(event)
        self._count_control()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._bounds.stalls(self)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._bounds.flows(self)

    def _parse(self) -> None:
        """Parse what was received, up to the next message."""
        while self._unparsed and not self.read_paused and not self.transport.is_closing():
            piece = bytes(self._unparsed[:_WEBSOCKET_SLICE])
            del self._unparsed[:_WEBSOCKET_SLICE]
            super().data_received(piece)

    def _count_control(self) -> None:
        now = self.loop.time()
        if now - self._since > 1.0:
            self._control, self._since = 0, now
        self._control += 1
        if self._control > _MAX_CONTROL_PER_S:
            self._refuse(f"At most {_MAX_CONTROL_PER_S} pings and pongs per second are allowed.")

    def _refuse(self, reason: str) -> None:
        if not self.close_sent:
            self.frames = []
            self.conn.fail(_POLICY_VIOLATION, reason)
            self.handle_parser_exception()
