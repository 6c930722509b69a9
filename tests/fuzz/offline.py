"""Entry points that read what other hosts send, run in this process: artifacts, and images by address."""

import asyncio
import hashlib
import json
import ssl
import tempfile
import threading
from collections.abc import Callable, Sequence
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from model_store import artifact, registry
from model_store.artifact import MANIFEST, PACKAGED, StoreError
from model_store.ready import take
from service.errors import Kind, ServiceError
from service.gateway.fetch import Fetcher
from tests.fuzz.case import Case
from tests.fuzz.mutations import edited_bytes, json_bodies
from tests.fuzz.senders import Outcome, Problem

Row = tuple[str, tuple[str, ...], Callable[[], Sequence[Case]], SearchStrategy[Case]]

_DEMO = PACKAGED / registry.EMBEDDED
_SECONDS = 2.0
# Stands for the artifact's own files.
_ITS_OWN = b"@its own@"

_ANSWERS = (
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nimage",
    b"HTTP/1.1 200 OK\r\n\r\nimage",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nimage\r\n0\r\n\r\n",
    b"HTTP/1.1 302 Found\r\nLocation: /again\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 302 Found\r\nLocation: http://localhost:6666\\@host/\r\n\r\n",
    b"HTTP/1.1 302 Found\r\nLocation: //[::1/\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\nimage",
    b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nimage",
    b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nimage",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx",
    b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 3000 + b"\r\nimage",
    b"HTTP/1.1 200 OK\r\nLocation: " + b"x" * 70000 + b"\r\n\r\nimage",
    b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n",
    b"",
)


def run(case: Case) -> Outcome:
    """What the case makes of the code that it enters; anything but an expected failure is a problem."""
    try:
        return _RUNS[case.entry](case)
    except Exception as error:
        named = f"{type(error).__name__}: {error}"[:300]
        return Outcome("raised", problems=[Problem(str(Kind.INTERNAL), "raised", named)])


def _read_manifest(case: Case) -> Outcome:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / MANIFEST).write_bytes(case.body)
        try:
            artifact.digests(artifact.read(Path(folder)))
        except StoreError as error:
            return Outcome("refused", str(error).encode(errors="replace"))
    return Outcome("OK", answers=1)


def _pull(case: Case) -> Outcome:
    """The artifact from a web server that sends the case's manifest and then the case's answer."""
    manifest, *rest = [
        message if isinstance(message, bytes) else message.encode() for message in case.messages
    ]
    with tempfile.TemporaryDirectory() as folder, _Server(manifest, (rest or [b""])[0]) as address:
        try:
            take(
                registry.EMBEDDED,
                address,
                hashlib.sha256(manifest).hexdigest(),
                Path(folder) / "store",
                _quiet,
            )
        except StoreError as error:
            return Outcome("refused", str(error).encode(errors="replace"))
        finally:
            outside = [path.name for path in Path(folder).iterdir() if path.name != "store"]
        if outside:
            return Outcome(
                "raised", problems=[Problem("", "raised", f"wrote {outside} outside of the store", False)]
            )
    return Outcome("OK", answers=1)


def _quiet(stage: str, fraction: float) -> None:
    pass


class _Server:
    """One folder on a port of loopback; use it as a context manager, which gives the address."""

    def __init__(self, manifest: bytes, answer: bytes) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                name = self.path.rpartition("/")[2]
                own = _DEMO / name
                if name == MANIFEST or (answer == _ITS_OWN and own.is_file()):
                    body = manifest if name == MANIFEST else own.read_bytes()
                    self.send_response(200)
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)
                else:
                    self.wfile.write(answer)
                self.close_connection = True

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True

    def __enter__(self) -> str:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return f"http://127.0.0.1:{self._server.server_port}/demo"

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


@cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()


def _fetch(case: Case) -> Outcome:
    """An image from a host of this machine that answers with the case's bytes."""
    try:
        asyncio.run(asyncio.wait_for(_fetched(case.body), 10 * _SECONDS))
    except ServiceError as error:
        return Outcome("refused", problems=[Problem(str(error.kind), "refused", error.detail)])
    return Outcome("OK", answers=1)


async def _fetched(answer: bytes) -> bytes:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65536)
        writer.write(answer)
        writer.close()

    async def resolve(host: str, port: int) -> Sequence[str]:
        return ["127.0.0.1"]

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    fetcher = Fetcher(100_000, _SECONDS, resolve=resolve, allowed=lambda _: True, ports={port}, tls=_tls())
    async with server:
        deadline = asyncio.get_running_loop().time() + 2 * _SECONDS
        return await fetcher(f"http://host.test:{port}/a.png", deadline)


def _manifest() -> bytes:
    return (_DEMO / MANIFEST).read_bytes()


@st.composite
def _pulls(draw: st.DrawFn) -> Case:
    answer = edited_bytes(draw, draw(st.sampled_from(_ANSWERS)), 3)
    return Case("artifact.pull", "pull --from", messages=(draw(json_bodies(lambda: [_small()], 2)), answer))


def _small() -> dict[str, object]:
    """The embedded artifact's manifest without most of its graphs: edits hit what matters."""
    manifest = json.loads(_manifest())
    name = next(iter(manifest["graphs"]))
    return {**manifest, "graphs": {name: manifest["graphs"][name]}}


def rows() -> tuple[Row, ...]:
    """Name, what it covers, valid seeds, and what is sent instead."""
    whole = lambda name, *more: lambda: [Case(name, name, messages=(_manifest(), *more))]  # noqa: E731
    manifests = st.deferred(
        lambda: st.builds(
            lambda body: Case("artifact.manifest", "read", messages=(body,)),
            json_bodies(lambda: [_small(), json.loads(_manifest())]),
        )
    )
    answers = st.builds(
        lambda case: Case("fetch.host", "GET", messages=(case,)),
        st.composite(lambda draw: edited_bytes(draw, draw(st.sampled_from(_ANSWERS)), 4))(),
    )
    fetched = lambda: [Case("fetch.host", "GET", messages=(each,)) for each in _ANSWERS[:3]]  # noqa: E731
    return (
        ("artifact.manifest", ("artifact.read",), whole("artifact.manifest"), manifests),
        ("artifact.pull", ("ready.take",), whole("artifact.pull", _ITS_OWN), st.deferred(_pulls)),
        ("fetch.host", ("fetch.Fetcher",), fetched, answers),
    )


_RUNS: dict[str, Callable[[Case], Outcome]] = {
    "artifact.manifest": _read_manifest,
    "artifact.pull": _pull,
    "fetch.host": _fetch,
}
