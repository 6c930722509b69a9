"""One server on loopback that plays every host of the internet, and the names that lead to it."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest

from service.errors import Kind, ServiceError
from service.gateway.fetch import Fetcher

# The address that counts as one of the open internet here, and others, which do not.
GLOBAL, PRIVATE = "127.0.0.1", "127.0.0.2"
NAME = "pictures.test"

Page = Callable[[asyncio.StreamWriter], Awaitable[None]]


@dataclass(frozen=True)
class Asked:
    """A request that arrived."""

    path: str
    # By name in lower case.
    headers: dict[str, str]
    # The name the client asked a certificate for; None without TLS.
    server_name: str | None


@dataclass
class Internet:
    """Use it inside an event loop: `async with Internet() as internet`."""

    tls: ssl.SSLContext | None = None
    pages: dict[str, Page] = field(default_factory=dict)
    # What each look-up of a name answers: the last answer again when there are no more.
    names: dict[str, list[list[str]]] = field(default_factory=lambda: {NAME: [[GLOBAL]]})
    asked: list[Asked] = field(default_factory=list)
    looked_up: list[str] = field(default_factory=list)

    async def __aenter__(self) -> "Internet":
        self._tasks: set[asyncio.Task[None]] = set()
        self._server_names: dict[ssl.SSLObject | ssl.SSLSocket, str | None] = {}
        if self.tls:
            self.tls.sni_callback = lambda connection, name, context: self._server_names.update(
                {connection: name}
            )
        self._server = await asyncio.start_server(self._serve, GLOBAL, 0, ssl=self.tls)
        self.port: int = self._server.sockets[0].getsockname()[1]
        self.base = f"{'https' if self.tls else 'http'}://{NAME}:{self.port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def fetcher(self, max_bytes: int = 100_000, max_seconds: float = 30, **changed: Any) -> Fetcher:
        """A fetcher for which this is the internet."""
        given = {"resolve": self._resolve, "allowed": GLOBAL.__eq__, "ports": {self.port}}
        return Fetcher(max_bytes, max_seconds, **{**given, **changed})

    async def _resolve(self, host: str, port: int) -> Sequence[str]:
        self.looked_up.append(host)
        answers = self.names.get(host)
        if not answers:
            raise OSError("no such name")
        return answers.pop(0) if len(answers) > 1 else answers[0]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        try:
            head, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            path = head.split(" ")[1]
            headers = dict(line.lower().split(": ", 1) for line in lines if line)
            name = self._server_names.get(writer.get_extra_info("ssl_object"))
            self.asked.append(Asked(path, headers, name))
            await self.pages[path](writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # The other side left, or the test is over.
        finally:
            self._tasks.discard(task)
            writer.close()


def page(body: bytes = b"an image", status: str = "200 OK", **headers: str) -> Page:
    """A whole answer; `content_length="5"` is the header Content-Length. By default that of the body."""
    given = {"content_length": str(len(body)), **headers}
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in given.items() if value]
    return partial(_write, "\r\n".join((f"HTTP/1.1 {status}", *lines, "", "")).encode() + body)


def redirect(location: str, status: str = "302 Found", **headers: str) -> Page:
    """An answer that sends its reader elsewhere."""
    return page(b"", status, location=location, **headers)


def endless(chunk: bytes, pause_s: float = 0.0, head: str = "Content-Type: image/jpeg") -> Page:
    """An answer whose body never ends."""

    async def write(writer: asyncio.StreamWriter) -> None:
        await _write(f"HTTP/1.1 200 OK\r\n{head}\r\n\r\n".encode(), writer)
        while True:
            await _write(chunk, writer)
            await asyncio.sleep(pause_s)

    return write


async def silence(writer: asyncio.StreamWriter) -> None:
    """No answer at all."""
    await asyncio.Event().wait()


async def _write(data: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(data)
    await writer.drain()


Scenario = Callable[[Internet], Awaitable[None]]


def play(scenario: Scenario, tls: ssl.SSLContext | None = None) -> None:
    """Run a test's coroutine with an internet of its own, for a bounded time."""

    async def whole() -> None:
        async with Internet(tls) as internet:
            await scenario(internet)

    asyncio.run(asyncio.wait_for(whole(), 60))


async def fetch(fetcher: Fetcher, url: str, seconds: float = 60) -> bytes:
    return await fetcher(url, asyncio.get_running_loop().time() + seconds)


async def refused(
    fetcher: Fetcher, url: str, kind: Kind = Kind.INVALID_ARGUMENT, *, seconds: float = 60
) -> str:
    """The detail of the refusal, which must be of that kind and name the field, but no IP address."""
    with pytest.raises(ServiceError) as failure:
        await fetch(fetcher, url, seconds)
    assert failure.value.kind is kind, failure.value.detail
    assert failure.value.detail.startswith("image.url")
    assert "127.0.0" not in failure.value.detail
    return failure.value.detail
