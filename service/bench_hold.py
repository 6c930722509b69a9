"""What is kept for those who wait: memory of idle sessions, of open streams and of open HTTP connections."""

import asyncio
import tempfile
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, fields
from pathlib import Path
from urllib.parse import urlsplit

from service import processes
from service.client import AsyncClient
from service.client.sessions import AsyncSession
from service.open_files import allow_many
from service.processes import Served
from service.sessions.redis_store import RedisStore

# Sessions that are opened before the first that counts: what a process takes once is taken then.
_WARMING = 20
# Requests under way at once while something is made ready.
_AT_ONCE = 4
_ASKED = b"GET /v1/variants HTTP/1.1\r\nHost: localhost\r\n\r\n"
# By which an answer of ours ends.
_LENGTH = b"content-length:"

# An object, by a box in pixels. What it holds is all the same.
_BOX = {"box": [20, 20, 120, 120]}

# Passes numbers on, and shows how far it is with what.
Shown = Callable[[range, str], Iterable[int]]


@dataclass(frozen=True, slots=True)
class Plan:
    """How many of each; none of what is 0."""

    sessions: int
    # Over each way, HTTP and gRPC; each of another session.
    streams: int
    connections: int


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes, or bytes for each of something."""

    gateway: float
    worker: float
    redis: float

    def beyond(self, before: "Memory", count: int) -> "Memory":
        """What has come since, shared among `count`."""
        return Memory(*((getattr(self, each) - getattr(before, each)) / count for each in _NAMES))

    def __str__(self) -> str:
        return ", ".join(f"{getattr(self, each) / 1000:.1f} KB of the {each}" for each in _NAMES)


_NAMES = [field.name for field in fields(Memory)]


class Holding:
    """A service whose memory is read while more and more is open."""

    def __init__(self, served: Served, redis_url: str, picture: bytes, say: Callable[[str], None]) -> None:
        """`picture` is an encoded file: every frame's."""
        self._served, self._store = served, RedisStore(redis_url)
        self._picture, self._say = picture, say

    async def measure(self, plan: Plan, shown: Shown) -> None:
        """Say what each costs. Raises ServiceError."""
        ways = {"http": self._served.url, "grpc": f"grpc://{self._served.grpc}"}
        async with AsyncExitStack() as stack:
            clients = {
                way: await stack.enter_async_context(AsyncClient(address)) for way, address in ways.items()
            }
            opened = await self._sessions(clients["http"], plan.sessions, shown)
            for way, client in clients.items():
                streams = await self._streams(way, client, opened[: plan.streams], shown)
                await stack.enter_async_context(streams)
            if plan.connections:
                await self._connections(plan.connections, shown)
        await self._store.close()

    async def _sessions(self, client: AsyncClient, count: int, shown: Shown) -> list[AsyncSession]:
        """Sessions of one object each, after one frame."""
        opened: list[AsyncSession] = []

        async def one(_: int) -> None:
            session = await client.open_session()
            await session.add(self._picture, [_BOX])
            opened.append(session)

        await _each(shown(range(_WARMING), "warming"), one)
        before = await self._memory()
        await _each(shown(range(count), "idle sessions"), one)
        if count:
            self._tell(f"{count} idle sessions of one object", before, await self._memory(), count)
        return opened

    async def _streams(
        self, way: str, client: AsyncClient, sessions: Sequence[AsyncSession], shown: Shown
    ) -> AsyncExitStack:
        """Streams, each after a frame over it; they stay open until what is returned is closed."""
        before, stack = await self._memory(), AsyncExitStack()

        async def one(index: int) -> None:
            flow = (await client.session(sessions[index].id)).flow(1)
            stack.push_async_callback(flow.close)
            flow.put(self._picture, [])
            await flow.answer()

        await _each(shown(range(len(sessions)), f"streams over {way}"), one)
        if sessions:
            self._tell(
                f"{len(sessions)} open streams over {way}", before, await self._memory(), len(sessions)
            )
        return stack

    async def _connections(self, count: int, shown: Shown) -> None:
        """Connections that ask, wait, and ask again: every one must be answered both times."""
        address = urlsplit(self._served.url)
        before = await self._memory()
        lines = [
            await asyncio.open_connection(address.hostname, address.port)
            for _ in shown(range(count), "HTTP connections")
        ]
        await asyncio.gather(*(_ask(*line) for line in lines))
        self._tell(f"{count} open HTTP connections", before, await self._memory(), count)
        await asyncio.gather(*(_ask(*line) for line in lines))
        self._say(f"  all {count} were answered, and answered again")
        for _, writer in lines:
            writer.close()

    async def _memory(self) -> Memory:
        worker = sum(map(processes.resident_bytes, self._served.workers))
        gateway = processes.resident_bytes(self._served.gateway)
        return Memory(gateway, worker, await self._store.used_bytes())

    def _tell(self, what: str, before: Memory, after: Memory, count: int) -> None:
        self._say(f"{what}; each: {after.beyond(before, count)}")


async def _each(indices: Iterable[int], work: Callable[[int], Awaitable[None]]) -> None:
    """Some at a time."""
    left = iter(indices)

    async def hand() -> None:
        for index in left:
            await work(index)

    await asyncio.gather(*(hand() for _ in range(_AT_ONCE)))


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Ask, and read the whole answer. Raises EOFError where none comes, and ValueError for a refusal."""
    writer.write(_ASKED)
    head = await reader.readuntil(b"\r\n\r\n")
    if b" 200 " not in head.split(b"\r\n", 1)[0]:
        raise ValueError(head.decode())
    (length,) = (line for line in head.lower().split(b"\r\n") if line.startswith(_LENGTH))
    await reader.readexactly(int(length.removeprefix(_LENGTH)))


def run(folder: Path, picture: bytes, plan: Plan, shown: Shown, say: Callable[[str], None]) -> None:
    """Serve the artefact, measure, and say what was found as it is found. Raises CommandError."""
    allow_many()
    with (
        tempfile.TemporaryDirectory(prefix="efficientsam3-") as scratch,
        processes.redis_server(Path(scratch), "everysec") as url,
        processes.service(folder, redis_url=url, max_sessions=_WARMING + plan.sessions) as served,
    ):
        asyncio.run(Holding(served, url, picture, say).measure(plan, shown))
