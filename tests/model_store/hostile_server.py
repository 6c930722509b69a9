"""A web server that plays tricks on whoever takes an artefact from it: raw bytes over real connections."""

import socket
import threading
from collections.abc import Callable
from types import TracebackType

# What a trick does with a connection whose request for (file) was read. The connection is closed behind it.
Trick = Callable[["HostileServer", socket.socket, str], None]


def answer(connection: socket.socket, body: bytes, status: str = "200 OK", **headers: str) -> None:
    """A plain answer, with `content_length` as given or right."""
    told = {"content-length": str(len(body)), "connection": "close"}
    told |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = "".join(f"{name}: {value}\r\n" for name, value in told.items() if value)
    connection.sendall(f"HTTP/1.1 {status}\r\n{lines}\r\n".encode() + body)


class HostileServer:
    """Listens on loopback while it is entered. `files` are served as they are, unless a trick is played."""

    def __init__(self, files: dict[str, bytes], trick: Trick | None = None, on: str = "") -> None:
        """`trick` is played on requests for the file `on`, or for every file."""
        self.files, self._trick, self._on = files, trick, on
        self.asked: list[str] = []
        self.requests: list[bytes] = []
        self._ended = threading.Event()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._socket.getsockname()[1])
        self.address = f"http://127.0.0.1:{self.port}/demo"
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> "HostileServer":
        self._accepting = threading.Thread(target=self._accept)
        self._accepting.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for thread in (self._accepting, *self._threads):
            thread.join()

    def pause(self, seconds: float) -> bool:
        """Wait; false at the end of the test."""
        return not self._ended.wait(seconds)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self._threads.append(threading.Thread(target=self._serve, args=(connection,)))
            self._threads[-1].start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            connection.settimeout(30)
            try:
                request = b""
                while b"\r\n\r\n" not in request:
                    if not (more := connection.recv(65536)):
                        return
                    request += more
                self.requests.append(request)
                path = request.split(b" ")[1].decode()
                file = path.rpartition("/")[2]
                self.asked.append(path)
                if self._trick is not None and self._on in ("", file):
                    self._trick(self, connection, file)
                elif file in self.files:
                    answer(connection, self.files[file])
                else:
                    answer(connection, b"", "404 Not Found")
            except OSError:
                # The client had enough.
                return
