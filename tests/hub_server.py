"""A server that speaks the Hugging Face hub's protocol, as far as fetching a file needs it.

As on the hub, the address of a large file answers with its commit, digest and size, and sends whoever wants
the bytes to another host that knows nothing of tokens.
"""

import hashlib
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Fault:
    """What goes wrong with one request for bytes, after `after` of them were sent."""

    after: int
    # "close": the connection ends; "reset": it is reset; "wait": no more comes until the server stops.
    how: str


@dataclass
class HubFile:
    content: bytes
    # What the hub announces; by default, what is true.
    digest: str = ""
    size: int = -1

    def __post_init__(self) -> None:
        self.digest = self.digest or hashlib.sha256(self.content).hexdigest()
        self.size = len(self.content) if self.size < 0 else self.size


@dataclass
class Hub:
    """What the hub holds, what it does wrong, and what it was asked."""

    url: str = ""
    # By repository and path inside it.
    files: dict[tuple[str, str], HubFile] = field(default_factory=dict)
    revisions: tuple[str, ...] = ("main", COMMIT)
    # Repositories that are shown to a bearer of this token alone; with `gated`, known to everybody.
    private: str = ""
    gated: bool = False
    # The answer to any question about a file: status and headers.
    trouble: tuple[int, dict[str, str]] | None = None
    # Faults of the next requests for bytes, one each.
    faults: list[Fault] = field(default_factory=list)
    # Every request: method, path, Range, whether it brought a token.
    asked: list[tuple[str, str, str, bool]] = field(default_factory=list)
    waiting: threading.Event = field(default_factory=threading.Event)
    stopped: threading.Event = field(default_factory=threading.Event)

    def ranges(self) -> list[str]:
        """The Range of every request for bytes, in order; "" where there was none."""
        return [asked[2] for asked in self.asked if asked[1].startswith("/cdn/")]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _answer(self) -> None:
        path, token = unquote(self.path), self.headers.get("Authorization", "")
        self.hub.asked.append((self.command, path, self.headers.get("Range", ""), bool(token)))
        if path.startswith("/cdn/"):
            self._send_bytes(next(f for f in self.hub.files.values() if f.digest == path.split("/")[2]))
        else:
            self._resolve(path, token.removeprefix("Bearer "))

    def _resolve(self, path: str, token: str) -> None:
        repository, _, rest = path[1:].partition("/resolve/")
        revision, _, name = rest.partition("/")
        hub = self.hub
        if hub.trouble:
            self._refuse(*hub.trouble)
        elif hub.private and token != hub.private and hub.gated:
            self._refuse(403 if token else 401, {"X-Error-Code": "GatedRepo"})
        elif token and token != hub.private:
            self._refuse(401, {"X-Error-Message": "Invalid credentials in Authorization header"})
        elif repository not in {owner for owner, _ in hub.files} or (hub.private and not token):
            self._refuse(404 if token else 401, {"X-Error-Code": "RepoNotFound"})
        elif revision not in hub.revisions:
            self._refuse(404, {"X-Error-Code": "RevisionNotFound"})
        elif (repository, name) not in hub.files:
            self._refuse(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
        else:
            self._announce(hub.files[repository, name])

    def _announce(self, file: HubFile) -> None:
        self.send_response(302)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("X-Linked-Etag", f'"{file.digest}"')
        self.send_header("X-Linked-Size", str(file.size))
        # Another name of this machine: to an HTTP client, another host.
        port = self.server.server_address[1]
        self.send_header("Location", f"http://localhost:{port}/cdn/{file.digest}")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _refuse(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send_bytes(self, file: HubFile) -> None:
        asked = self.headers.get("Range", "")
        start = int(asked.removeprefix("bytes=").removesuffix("-") or 0)
        body = file.content[start:]
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{len(file.content) - 1}/{len(file.content)}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if not self.hub.faults:
            self.wfile.write(body)
            return
        fault = self.hub.faults.pop(0)
        self.wfile.write(body[: fault.after])
        self._break(fault.how)

    def _break(self, how: str) -> None:
        if how == "wait":
            self.hub.waiting.set()
            self.hub.stopped.wait()
        elif how == "reset":
            # To linger for no time is to end with a reset.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        self.close_connection = True


@contextmanager
def serve_hub(hub: Hub) -> Iterator[Hub]:
    """Serve the hub on a free port of loopback; its `url` is what HF_ENDPOINT has to be."""
    handler = type("Handler", (_Handler,), {"hub": hub})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        hub.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield hub
        finally:
            hub.stopped.set()
            server.shutdown()
            thread.join()
