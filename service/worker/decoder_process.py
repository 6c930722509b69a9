"""Runs decoding functions in child processes with limits, so that hostile input cannot harm the worker.

A decoding function takes the input's bytes and options of JSON, and yields results as bytes. The child is a
fresh Python process (`decoder_child`), never a fork: it has none of the worker's memory, files, sockets or
environment. Its messages are a tag, a size and a payload; it blocks while the parent does not read, so that
no more than about two results are in memory.
"""

import asyncio
import json
import logging
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Literal

from service.worker import decoder_child as child
from service.worker.decoder_child import DecodeRejected as DecodeRejected

__all__ = [
    "DecodeRejected",
    "DecoderError",
    "DecoderLimits",
    "DecoderProcesses",
    "DecoderStartError",
    "Results",
]

_LOG = logging.getLogger(__name__)

Reason = Literal["crashed", "cpu", "memory", "time"]

# Seconds that starting a child may take; imports on a busy machine take a while.
_START_S = 60.0
_CHUNK_BYTES = 2**20
# Not `-m`, which would import the module under a second name.
_PROGRAM = f"from {child.__name__} import main; main()"
# Variables that the interpreter or its libraries may need; none of them holds a secret.
_KEPT_VARIABLES = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "PYTHONHOME", "LANG", "LC_ALL", "TZ")


class DecoderError(Exception):
    """The child crashed, was killed, or exceeded a limit while it decoded; `reason` says which."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(f"the decoder process failed: {reason}")
        self.reason = reason


class DecoderStartError(Exception):
    """No child could be started, whatever the input is."""


@dataclass(frozen=True, slots=True)
class DecoderLimits:
    """Limits of one child."""

    memory_bytes: int
    """Bytes that it may allocate, its input included."""
    cpu_s: int
    """Seconds of processor time for each result, of all threads together."""
    timeout_s: float
    """Seconds that the parent waits for each result."""
    max_result_bytes: int
    """Bytes of one result."""


class Results:
    """The results of one child, an asynchronous iterator. Only the next one is waited for."""

    def __init__(self, process: Process, limits: DecoderLimits) -> None:
        self._process, self._limits = process, limits

    def __aiter__(self) -> "Results":
        return self

    async def __anext__(self) -> bytes:
        """Return the next result.

        Raises DecoderError, and DecodeRejected as the decoding function raised it.
        """
        try:
            async with asyncio.timeout(self._limits.timeout_s):
                tag, payload = await self._message()
        except TimeoutError as error:
            raise DecoderError("time") from error
        if tag == child.RESULT:
            return payload
        if tag == child.END:
            raise StopAsyncIteration
        if tag == child.REJECTED:
            raise _rejection(payload)
        if tag == child.OUT_OF_MEMORY:
            raise DecoderError("memory")
        _LOG.warning("a decoding function failed: %s", payload.decode(errors="replace"))
        raise DecoderError("crashed")

    async def begin(self, options: Mapping[str, Any], data: bytes) -> None:
        """Wait until the child is ready and send it the input."""
        try:
            async with asyncio.timeout(_START_S):
                tag, payload = await self._message()
        except (DecoderError, TimeoutError) as error:
            raise DecoderStartError("a decoder process did not start") from error
        if tag != child.READY:
            _LOG.error("a decoder process did not start: %s", payload.decode(errors="replace"))
            raise DecoderStartError("a decoder process did not start")
        try:
            async with asyncio.timeout(self._limits.timeout_s):
                await self._send(json.dumps(options).encode(), data)
        except TimeoutError as error:
            raise DecoderError("time") from error

    async def _send(self, options: bytes, data: bytes) -> None:
        pipe = self._process.stdin
        assert pipe is not None
        pipe.write(len(options).to_bytes(8, "big") + options)
        view = memoryview(data)
        # A child that ends early says why on its other pipe.
        with suppress(ConnectionError):
            for begin in range(0, len(data), _CHUNK_BYTES):
                pipe.write(view[begin : begin + _CHUNK_BYTES])
                await pipe.drain()
        pipe.close()

    async def _message(self) -> tuple[bytes, bytes]:
        pipe = self._process.stdout
        assert pipe is not None
        try:
            tag, size = child.HEADER.unpack(await pipe.readexactly(child.HEADER.size))
            most = self._limits.max_result_bytes if tag == child.RESULT else _CHUNK_BYTES
            if size > most:
                _LOG.warning("a decoder process sent a message of %d bytes; the limit is %d", size, most)
                raise DecoderError("memory")
            return tag, await pipe.readexactly(size) if size else b""
        except asyncio.IncompleteReadError as error:
            raise await self._ended() from error

    async def _ended(self) -> DecoderError:
        """Say why the child ended without a message that says so."""
        code = await self._process.wait()
        _LOG.warning("a decoder process ended: %s", _meaning(code))
        return DecoderError("cpu" if code == -signal.SIGXCPU else "crashed")


class _Slots:
    """A bounded number of slots; the next one goes to the owner that holds the fewest."""

    def __init__(self, most: int) -> None:
        self._free = most
        self._held = Counter[str]()
        self._waiting: list[tuple[str, asyncio.Future[None]]] = []

    async def acquire(self, owner: str) -> None:
        """Wait for a slot."""
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append((owner, turn))
        self._assign()
        try:
            await turn
        except asyncio.CancelledError:
            if (owner, turn) in self._waiting:
                self._waiting.remove((owner, turn))
            else:
                self.release(owner)
            raise

    def release(self, owner: str) -> None:
        """Give a slot back."""
        self._free += 1
        self._held[owner] -= 1
        if not self._held[owner]:
            del self._held[owner]
        self._assign()

    def _assign(self) -> None:
        while self._free and self._waiting:
            owner, turn = next = min(self._waiting, key=lambda each: self._held[each[0]])
            self._waiting.remove(next)
            # A canceled one removes itself from the list only later.
            if not turn.done():
                self._free -= 1
                self._held[owner] += 1
                turn.set_result(None)


class DecoderProcesses:
    """Starts children and ends them; at most `most` run at once, others wait. Used from one event loop."""

    def __init__(self, most: int, failed: Callable[[str], None] = lambda reason: None) -> None:
        """`failed` is called with the reason of every DecoderError."""
        self._slots, self._failed = _Slots(most), failed
        self._running: set[Process] = set()
        # The loop itself keeps only weak references to tasks.
        self._ending: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def decode(
        self,
        function: str,
        data: bytes,
        options: Mapping[str, Any],
        limits: DecoderLimits,
        owner: str = "",
    ) -> AsyncIterator[Results]:
        """Run `module:function` on `data` in a child, and kill the child at the end of the block.

        Where children must be waited for, `owner` is served before owners that have more of them.
        The module must import all that it needs when it is imported: the child opens no file afterwards.
        Raises DecoderStartError, and DecoderError and DecodeRejected as iterating over the results does.
        """
        await self._slots.acquire(owner)
        starting = asyncio.create_task(self._start(function, limits))
        try:
            results = Results(await asyncio.shield(starting), limits)
            await results.begin(options, data)
            yield results
        except DecoderError as error:
            self._failed(error.reason)
            raise
        finally:
            # The child is dead before anything is awaited, so that a second cancellation changes nothing.
            self._kill(starting)
            ending = asyncio.create_task(self._end(starting, owner))
            self._ending.add(ending)
            ending.add_done_callback(self._ending.discard)
            await asyncio.shield(ending)

    async def decode_one(
        self,
        function: str,
        data: bytes,
        options: Mapping[str, Any],
        limits: DecoderLimits,
        owner: str = "",
    ) -> bytes:
        """Return the only result of the function. Raises what `decode` does."""
        async with self.decode(function, data, options, limits, owner) as results:
            async for result in results:
                return result
        raise DecoderError("crashed")

    @property
    def running(self) -> int:
        """Children that are running."""
        return len(self._running)

    async def close(self) -> None:
        """Kill every child, and return when all are gone."""
        for process in self._running:
            _kill(process)
        while self._ending:
            await asyncio.wait(self._ending)

    async def _start(self, function: str, limits: DecoderLimits) -> Process:
        start = {
            "parent": os.getpid(),
            "function": function,
            "memory_bytes": limits.memory_bytes,
            "cpu_s": limits.cpu_s,
        }
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-s", "-P", "-c", _PROGRAM, json.dumps(start)),
                stdin=PIPE,
                stdout=PIPE,
                stderr=DEVNULL,
                env=_environment(),
                cwd="/",
                limit=_CHUNK_BYTES,
                # A Ctrl-C in a terminal is for the worker, which ends its requests first. In a session of
                # its own the child would get as large a share of a core as the worker (autogroup).
                process_group=0,
            )
        except OSError as error:
            raise DecoderStartError(f"a decoder process did not start: {error.strerror}") from error
        self._running.add(process)
        return process

    def _kill(self, starting: "asyncio.Task[Process]") -> None:
        if starting.done() and not starting.cancelled() and starting.exception() is None:
            _kill(starting.result())

    async def _end(self, starting: "asyncio.Task[Process]", owner: str) -> None:
        """Return when the child is gone and its pipes are closed; it may still be starting."""
        try:
            with suppress(DecoderStartError):
                process = await starting
                _kill(process)
                with suppress(OSError):
                    # Reads what the child had written, so that the pipe ends.
                    await process.communicate()
                self._running.discard(process)
        finally:
            self._slots.release(owner)


def _rejection(payload: bytes) -> DecodeRejected | DecoderError:
    """Return what the child raised; a child that was taken over may send anything."""
    try:
        kind, detail = json.loads(payload)
        return DecodeRejected(str(kind), str(detail))
    except ValueError:
        return DecoderError("crashed")


def _kill(process: Process) -> None:
    with suppress(ProcessLookupError):
        process.kill()


def _environment() -> dict[str, str]:
    """Return the environment of a child: where its modules are, and nothing that is secret."""
    kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    # Each arena of malloc reserves 64 MiB of address space, which is limited.
    return {
        **kept,
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "MALLOC_ARENA_MAX": "2",
    }


def _meaning(code: int) -> str:
    with suppress(ValueError):
        return f"killed by {signal.Signals(-code).name}"
    return f"exit code {code}"
