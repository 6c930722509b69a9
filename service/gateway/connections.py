"""Bounds on the connections of the HTTP listener: how many, how idle, and how much they leave unread."""

import asyncio
from collections import Counter
from typing import Protocol

from service.config import GatewaySettings
from service.gateway.call import note_slow_reader
from service.gateway.turns import Turns

# Unread responses are checked this many times in each `write_timeout_s`.
_CHECKS = 4


class Connection(Protocol):
    """One connection, as its protocol class presents it."""

    transport: asyncio.Transport


class Connections:
    """The open connections of one listener. Used from one event loop."""

    def __init__(self, settings: GatewaySettings) -> None:
        self.settings = settings
        # Bodies in chunks are parsed by turns.
        self.parsing = Turns()
        self._addresses: dict[Connection, str] = {}
        self._per_address: Counter[str] = Counter()
        # Without a complete request, in the order in which they began to wait.
        self._waiting: dict[Connection, None] = {}
        # Whose client does not read: bytes that were unsent at a time in the loop's clock, the oldest first.
        self._stalled: dict[Connection, tuple[int, float]] = {}
        self._check: asyncio.TimerHandle | None = None

    def opened(self, connection: Connection) -> bool:
        """Count a new connection; False: there is no room, and it must be closed."""
        peer = connection.transport.get_extra_info("peername")
        address = str(peer[0]) if isinstance(peer, tuple) else ""
        limit = self.settings.max_connections_per_address
        if limit and self._per_address[address] >= limit:
            return False
        if len(self._addresses) >= self.settings.max_connections and not self._make_room():
            return False
        self._addresses[connection] = address
        self._per_address[address] += 1
        return True

    def closed(self, connection: Connection) -> None:
        """Forget a connection. It may have been refused, or forgotten before."""
        self._waiting.pop(connection, None)
        self._stalled.pop(connection, None)
        address = self._addresses.pop(connection, None)
        if address is None:
            return
        self._per_address[address] -= 1
        if not self._per_address[address]:
            del self._per_address[address]

    def waits(self, connection: Connection) -> None:
        """Note that a connection waits for a request."""
        if connection in self._addresses:
            self._waiting.setdefault(connection)

    def works(self, connection: Connection) -> None:
        """Note that a connection has a request."""
        self._waiting.pop(connection, None)

    def stalls(self, connection: Connection) -> None:
        """Note that a connection's client reads slower than it is answered."""
        loop = asyncio.get_running_loop()
        self._stalled[connection] = (connection.transport.get_write_buffer_size(), loop.time())
        self._bound_unsent()
        if self._check is None:
            self._check = loop.call_later(self._interval_s(), self._abort_slow)

    def flows(self, connection: Connection) -> None:
        """Note that a connection's client has read what it was sent."""
        self._stalled.pop(connection, None)

    def _make_room(self) -> bool:
        oldest = next(iter(self._waiting), None)
        if oldest is None:
            return False
        self.closed(oldest)
        oldest.transport.abort()
        return True

    def _bound_unsent(self) -> None:
        unsent = {each: each.transport.get_write_buffer_size() for each in self._stalled}
        total = sum(unsent.values())
        for connection, size in unsent.items():
            if total <= self.settings.max_unsent_bytes:
                return
            total -= size
            self._abort(connection)

    def _abort_slow(self) -> None:
        """Abort the connections that have read too little for `write_timeout_s`."""
        loop, limit_s = asyncio.get_running_loop(), self.settings.write_timeout_s
        enough = max(1, round(limit_s * self.settings.min_transfer_bytes_per_s))
        for connection, (before, since) in list(self._stalled.items()):
            size = connection.transport.get_write_buffer_size()
            if before - size >= enough:
                self._stalled[connection] = (size, loop.time())
            elif loop.time() - since >= limit_s:
                self._abort(connection)
        self._check = loop.call_later(self._interval_s(), self._abort_slow) if self._stalled else None

    def _abort(self, connection: Connection) -> None:
        self._stalled.pop(connection, None)
        note_slow_reader(getattr(connection, "scope", None))
        connection.transport.abort()

    def _interval_s(self) -> float:
        return self.settings.write_timeout_s / _CHECKS
