"""TCP relays in the runner's event loop that can be blocked, slowed down, cut, or led elsewhere."""

import asyncio
import random
from contextlib import suppress
from types import TracebackType

_CHUNK = 65536


class Link:
    """A relay on loopback to one of several ports. Use it as an asynchronous context manager.

    Each connection leads to a target of its own, drawn at random; the next one is tried where none listens.
    """

    def __init__(self, *targets: int) -> None:
        """`targets` are ports on loopback."""
        self._targets = list(targets)
        self._open = asyncio.Event()
        self._open.set()
        self._delay_s = 0.0
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.port = 0

    async def __aenter__(self) -> "Link":
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def block(self) -> None:
        """Let nothing through: both sides wait, as behind a network that drops every packet."""
        self._open.clear()

    def unblock(self) -> None:
        """Let everything through again, including what waited."""
        self._open.set()

    def slow_down(self, delay_s: float) -> None:
        """Delay everything by this much; 0 ends it."""
        self._delay_s = delay_s

    def cut(self) -> None:
        """Reset every connection. New ones are accepted."""
        for writer in list(self._writers):
            writer.transport.abort()

    def point_at(self, *targets: int) -> None:
        """Lead to other ports from now on; existing connections are reset."""
        self._targets = list(targets)
        self.cut()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        with suppress(OSError, asyncio.CancelledError):
            await self._relay(reader, writer)
        writer.transport.abort()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        target = None
        try:
            await self._open.wait()
            other, target = await self._connect()
            self._writers.add(target)
            # One side's end does not end the other: a half-closed connection still carries answers.
            await asyncio.gather(self._pump(reader, target), self._pump(other, writer))
        finally:
            for each in (writer, target):
                if each is not None:
                    self._writers.discard(each)
                    each.transport.abort()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        *others, last = random.sample(self._targets, len(self._targets))
        for port in others:
            with suppress(OSError):
                return await asyncio.open_connection("127.0.0.1", port)
        return await asyncio.open_connection("127.0.0.1", last)

    async def _pump(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while data := await source.read(_CHUNK):
            if self._delay_s:
                await asyncio.sleep(self._delay_s)
            await self._open.wait()
            target.write(data)
            await target.drain()
        target.write_eof()
