"""Receives the messages of gRPC calls within bounds on memory and time.

gRPC grants a peer room for a whole message as soon as the server asks for one, and does not report how much
of it has arrived. So an unfinished message counts as the largest that is allowed, and no message is asked for
before its sender is authenticated.
"""

import asyncio
from collections import Counter, OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc.aio
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import DecodeError, Message

from service.config import MIB, Limits
from service.errors import Kind, ServiceError
from service.wire_format import FieldCounter, MalformedError

# How long a message may take to arrive before it needs a slot for slow messages.
_PROMPT_S = 0.25
# A canceled call reads as the end of its messages a moment before its cancellation arrives.
_CANCELLATION_S = 0.05
# A gateway adds fields to the messages that it forwards to a worker.
_ADDED_BYTES = 64 * 1024
# Larger messages are counted and parsed in a thread.
_LARGE_BYTES = MIB
# Bytes of a message to a public RPC, and how long it may take to arrive.
_PUBLIC_BYTES = 64 * 1024
_PUBLIC_S = 2.0
# Messages to public RPCs that are received at once.
_PUBLIC_AT_ONCE = 2
_RETRY_S = 1.0

Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True, slots=True)
class Incoming:
    """What a method receives: messages of a kind, which `parse` makes of their bytes."""

    method: str
    kind: Descriptor
    parse: Callable[[bytes], Message]


def max_message_bytes(limits: Limits) -> int:
    """Return the size above which gRPC itself refuses a message.

    It is above `max_body_bytes`, so that a message in between is refused with its kind.
    """
    return 2 * limits.max_body_bytes + MIB


class FairTurns:
    """A semaphore whose waiting owners take turns: the one that holds the least is next."""

    def __init__(self, count: int) -> None:
        self._free = count
        self._held: Counter[str] = Counter()
        self._waiting: list[tuple[str, asyncio.Future[None]]] = []

    @asynccontextmanager
    async def turn(self, owner: str) -> AsyncIterator[None]:
        """Hold one of them; wait for it where none is free."""
        if self._free:
            self._free -= 1
            self._held[owner] += 1
        else:
            await self._wait(owner)
        try:
            yield
        finally:
            self._release(owner)

    async def _wait(self, owner: str) -> None:
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        place = (owner, granted)
        self._waiting.append(place)
        try:
            await granted
        except asyncio.CancelledError:
            if place in self._waiting:
                self._waiting.remove(place)
            elif granted.done() and not granted.cancelled():
                self._release(owner)
            raise

    def _release(self, owner: str) -> None:
        self._held[owner] -= 1
        if not self._held[owner]:
            del self._held[owner]
        if not self._waiting:
            self._free += 1
            return
        place = min(self._waiting, key=lambda each: self._held[each[0]])
        self._waiting.remove(place)
        self._held[place[0]] += 1
        place[1].set_result(None)


class UnfinishedMessages:
    """The messages that are being received: a bounded number, divided fairly between owners.

    Half of the places are for messages that have just begun, which give theirs back after `_PROMPT_S`. The
    others are for slow messages; where none is free, the owner with the most of them loses its oldest.
    """

    def __init__(self, max_bytes: int, max_message_bytes: int, timeout_s: float) -> None:
        count = max(2, max_bytes // max_message_bytes)
        self._prompt = FairTurns(count // 2)
        self._slow_places = count - count // 2
        self._slow: OrderedDict[asyncio.Task[Any], str] = OrderedDict()
        self._evicted: set[asyncio.Task[Any]] = set()
        self._timeout_s = timeout_s

    async def read(self, context: Context, owner: str) -> Any:
        """Return the next message, or `grpc.aio.EOF`.

        Raises ServiceError: `deadline_exceeded` for a message that takes too long, and `overloaded` for one
        that finds no place or loses it.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + self._timeout_s
        reading: asyncio.Task[Any] | None = None
        try:
            async with asyncio.timeout_at(until), self._prompt.turn(owner):
                reading = loop.create_task(_read(context))
                await asyncio.wait({reading}, timeout=_PROMPT_S)
            if not reading.done():
                await self._read_slowly(reading, owner, until)
            return reading.result()
        except TimeoutError:
            raise _too_slow(self._timeout_s) from None
        finally:
            if reading is not None and not reading.done():
                reading.cancel()

    async def _read_slowly(self, reading: "asyncio.Task[Any]", owner: str, until: float) -> None:
        self._take_place(reading, owner)
        try:
            async with asyncio.timeout_at(until):
                await asyncio.wait({reading})
        finally:
            self._slow.pop(reading, None)
            evicted = reading in self._evicted
            self._evicted.discard(reading)
        if evicted:
            raise _no_place()

    def _take_place(self, reading: "asyncio.Task[Any]", owner: str) -> None:
        if len(self._slow) >= self._slow_places:
            held = Counter(self._slow.values())
            loser, most = held.most_common(1)[0]
            if most <= held[owner] + 1:
                raise _no_place()
            oldest = next(task for task, each in self._slow.items() if each == loser)
            del self._slow[oldest]
            self._evicted.add(oldest)
            oldest.cancel()
        self._slow[reading] = owner


class MessageReader:
    """Receives, counts and parses messages."""

    def __init__(
        self,
        limits: Limits | None = None,
        unfinished: UnfinishedMessages | None = None,
        idle_s: float | None = None,
    ) -> None:
        """Without `unfinished` callers are trusted: messages are received without bounds on memory and time.

        `idle_s` is how long a stream may wait for its next message; None means without a limit.
        """
        self._max_bytes = limits.max_body_bytes if limits else None
        self._added_bytes = 0 if unfinished else _ADDED_BYTES
        self._fields = FieldCounter(limits or Limits())
        self._unfinished, self._idle_s = unfinished, idle_s
        self._public = FairTurns(_PUBLIC_AT_ONCE)

    async def only(self, context: Context, owner: str, incoming: Incoming) -> Any:
        """Return the message of a call that takes one. Raises ServiceError as `each` does."""
        raw = await self._first(context, owner)
        if raw is grpc.aio.EOF:
            await asyncio.sleep(_CANCELLATION_S)
            raise ServiceError(Kind.INVALID_ARGUMENT, "The call has no message: send one.")
        return await self._parsed(raw, incoming)

    async def each(self, context: Context, owner: str, incoming: Incoming) -> AsyncGenerator[Any, None]:
        """Yield the messages of a stream.

        Raises ServiceError: `invalid_argument` for bytes that are not such a message, `payload_too_large`,
        `unavailable` for a stream that was idle for too long, and what `UnfinishedMessages.read` raises.
        """
        raw = await self._first(context, owner)
        while raw is not grpc.aio.EOF:
            yield await self._parsed(raw, incoming)
            # What is received here cannot be told from a stream that rests.
            try:
                async with asyncio.timeout(self._idle_s):
                    raw = await _read(context)
            except TimeoutError:
                raise _idle(self._idle_s or 0) from None

    async def public(self, context: Context, owner: str, incoming: Incoming) -> AsyncGenerator[Any, None]:
        """Yield the messages of a call by anybody: small ones that come at once."""
        while True:
            try:
                async with (
                    asyncio.timeout(2 * _PUBLIC_S),
                    self._public.turn(owner),
                    asyncio.timeout(_PUBLIC_S),
                ):
                    raw = await _read(context)
            except TimeoutError:
                raise _too_slow(_PUBLIC_S) from None
            if raw is grpc.aio.EOF:
                return
            if len(raw) > _PUBLIC_BYTES:
                raise _too_large(len(raw), _PUBLIC_BYTES)
            yield await self._parsed(raw, incoming)

    async def _first(self, context: Context, owner: str) -> Any:
        if self._unfinished is None:
            return await _read(context)
        return await self._unfinished.read(context, owner)

    async def _parsed(self, raw: bytes, incoming: Incoming) -> Message:
        if self._max_bytes is not None and len(raw) > self._max_bytes + self._added_bytes:
            raise _too_large(len(raw), self._max_bytes)
        try:
            if len(raw) < _LARGE_BYTES:
                return incoming.parse(raw)
            return await asyncio.to_thread(self._count_and_parse, raw, incoming)
        except (DecodeError, MalformedError):
            detail = f"The message is not a {incoming.kind.full_name}, which {incoming.method} takes."
            raise ServiceError(Kind.INVALID_ARGUMENT, detail) from None

    def _count_and_parse(self, raw: bytes, incoming: Incoming) -> Message:
        self._fields.check(raw, incoming.kind)
        return incoming.parse(raw)


async def _read(context: Context) -> Any:
    return await context.read()


def _too_slow(seconds: float) -> ServiceError:
    detail = (
        f"The message did not arrive within {seconds:g} s: send a smaller one, or over a faster connection."
    )
    return ServiceError(Kind.DEADLINE_EXCEEDED, detail)


def _idle(seconds: float) -> ServiceError:
    detail = f"No message came for {seconds:g} s: open the stream again with the session's id."
    return ServiceError(Kind.UNAVAILABLE, detail, retry_after_s=_RETRY_S)


def _no_place() -> ServiceError:
    detail = "Too many messages are being received at once: retry later, or send faster."
    return ServiceError(Kind.OVERLOADED, detail, retry_after_s=_RETRY_S)


def _too_large(size: int, limit: int) -> ServiceError:
    detail = f"The request has {size:,} bytes; the limit is {limit:,} bytes."
    return ServiceError(Kind.PAYLOAD_TOO_LARGE, detail)
