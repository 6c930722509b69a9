"""Ends answers that clients leave unread, so that an unread answer holds no place for long."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from service.gateway.call import Call

SLOW_READER = "slow_reader"
"""How the request log and the metrics name a request that was ended for this reason."""


@contextmanager
def evicting(call: Call | None, timeout_s: float) -> Iterator[None]:
    """Cancel the current task if the block, which hands one message to a client, takes longer.

    gRPC resets the stream of a canceled handler, which works although no status would get through.
    """
    task = asyncio.current_task()
    assert task is not None

    def evict() -> None:
        if call:
            call.kind = SLOW_READER
        task.cancel()

    timer = asyncio.get_running_loop().call_later(timeout_s, evict)
    try:
        yield
    finally:
        timer.cancel()


class _Watch:
    """Aborts a connection whose write buffer stays full for `timeout_s`."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, transport: asyncio.Transport, scope: object) -> None:
        """The buffer is full. `scope` is the request's, if there is one."""
        self.end()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._timeout_s, _abort, transport, scope)

    def end(self) -> None:
        """The buffer has room again, or the connection is lost."""
        if self._timer:
            self._timer.cancel()
            self._timer = None


def _abort(transport: asyncio.Transport, scope: object) -> None:
    call = scope.get("state", {}).get("call") if isinstance(scope, dict) else None
    if isinstance(call, Call):
        call.kind = SLOW_READER
    # Closing would wait until the client has read what is written.
    transport.abort()


def http_protocol(timeout_s: float) -> type[H11Protocol]:
    """uvicorn's HTTP protocol, which ends connections whose client does not read for `timeout_s`."""

    class Protocol(H11Protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            self._slow_reader = _Watch(timeout_s)
            super().connection_made(transport)

        def pause_writing(self) -> None:
            super().pause_writing()
            self._slow_reader.begin(self.transport, self.scope)

        def resume_writing(self) -> None:
            self._slow_reader.end()
            super().resume_writing()

        def connection_lost(self, exc: Exception | None) -> None:
            self._slow_reader.end()
            super().connection_lost(exc)

    return Protocol


def websocket_protocol(timeout_s: float) -> type[WebSocketsSansIOProtocol]:
    """uvicorn's WebSocket protocol, which ends connections whose client does not read for `timeout_s`."""

    class Protocol(WebSocketsSansIOProtocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self._slow_reader = _Watch(timeout_s)
            super().connection_made(transport)

        def pause_writing(self) -> None:
            super().pause_writing()
            self._slow_reader.begin(self.transport, None)

        def resume_writing(self) -> None:
            self._slow_reader.end()
            super().resume_writing()

        def connection_lost(self, exc: Exception | None) -> None:
            self._slow_reader.end()
            super().connection_lost(exc)

    return Protocol
