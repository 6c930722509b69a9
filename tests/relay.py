"""A TCP relay between a client and gateways, as a balancer is, whose connections a test can cut."""

import socket
import threading
from contextlib import suppress
from types import TracebackType

_CHUNK = 65536


class Relay:
    """Listens on loopback and passes bytes to and from one of several ports. Use it as a context manager."""

    def __init__(self, ports: list[int], way: str = "http") -> None:
        self._ports = list(ports)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"{way}://127.0.0.1:{self._listener.getsockname()[1]}"
        self._lock = threading.Lock()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        # Bytes of answers that are let through before everything is cut; None: all.
        self._left: int | None = None
        # How often it was cut, and how many connections there were.
        self.cuts, self.connections = 0, 0

    def __enter__(self) -> "Relay":
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            self._break()

    def cut(self, after_bytes: int) -> None:
        """Let so many more bytes of answers through; then every connection breaks, and new ones lead to the
        next port."""
        with self._lock:
            self._left = after_bytes

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                server = socket.create_connection(("127.0.0.1", self._ports[0]))
                self._pairs.append((client, server))
                self.connections += 1
            threading.Thread(target=self._pass, args=(client, server, False), daemon=True).start()
            threading.Thread(target=self._pass, args=(server, client, True), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, answers: bool) -> None:
        with suppress(OSError):
            while data := source.recv(_CHUNK):
                target.sendall(self._allowed(data) if answers else data)
                self._cut_if_due()
            target.shutdown(socket.SHUT_WR)

    def _allowed(self, data: bytes) -> bytes:
        with self._lock:
            if self._left is not None:
                data = data[: self._left]
                self._left -= len(data)
            return data

    def _cut_if_due(self) -> None:
        with self._lock:
            if self._left == 0:
                self._left, self.cuts = None, self.cuts + 1
                self._ports.append(self._ports.pop(0))
                self._break()

    def _break(self) -> None:
        for each in (end for pair in self._pairs for end in pair):
            with suppress(OSError):
                # Wakes who waits for it, which closing alone does not.
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        self._pairs.clear()
