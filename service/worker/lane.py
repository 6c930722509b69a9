"""Who is worked for next: threads that work at the same time, and the bounded queue before them."""

import asyncio
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass
from enum import Enum
from statistics import fmean
from typing import TypeVar

from service.errors import Kind, ServiceError
from service.rpc import Announce
from service.telemetry import WorkerTelemetry
from service.tracing import current

T = TypeVar("T")

# The least that a caller who is refused is asked to wait.
_LEAST_RETRY_S = 0.5
# So many of the latest pieces of work make the pace.
_LATEST = 16
# Of the time that is expected: no piece takes just as long as those before, and one whose deadline passes in
# the middle took the place of another.
_RESERVE = 1.1


class Urgency(Enum):
    """How many seconds of waiting a caller is put behind one that somebody sits in front of."""

    INTERACTIVE = 0.0
    USUAL = 0.25
    BULK = 2.0


class Ticket:
    """One caller's place: how long it waited, and whether it still waits."""

    def __init__(
        self,
        remaining_s: float | None,
        owner: str = "",
        urgency: Urgency = Urgency.USUAL,
        announce: Announce | None = None,
    ) -> None:
        """`remaining_s`: seconds until the caller's deadline; None without one.

        `announce` informs the caller, before anything is computed, that its turn has come.
        """
        self.owner, self.urgency, self.announce = owner, urgency, announce
        self._since = time.monotonic()
        self._deadline = None if remaining_s is None else self._since + remaining_s
        self._abandoned = threading.Event()
        # The lowest is next. Whoever waits long enough is before all that come.
        self.rank = self._since + urgency.value

    @property
    def bulk(self) -> bool:
        """Whether it is a frame of a whole video, of which nobody waits for each."""
        return self.urgency is Urgency.BULK

    def abandon(self) -> None:
        """The caller is gone. Thread-safe."""
        self._abandoned.set()

    def waited_ms(self) -> float:
        """Milliseconds since the caller came."""
        return (time.monotonic() - self._since) * 1e3

    def left_s(self) -> float:
        """Seconds until the deadline."""
        return float("inf") if self._deadline is None else self._deadline - time.monotonic()

    def begin(self) -> float:
        """Its turn has come: the milliseconds that it waited. Raises as `go_on`."""
        queue_ms = self.waited_ms()
        current().took("queue", queue_ms)
        self.go_on()
        return queue_ms

    def go_on(self) -> None:
        """Raise `deadline_exceeded` when nobody waits for the answer any more."""
        if self.left_s() <= 0 or self._abandoned.is_set():
            detail = "The deadline passed, or the caller left, before the answer was ready."
            raise ServiceError(Kind.DEADLINE_EXCEEDED, detail)


@dataclass(frozen=True, slots=True, eq=False)
class _Place:
    """One caller in the queue."""

    ticket: Ticket
    turn: "asyncio.Future[None]"


class _Threads:
    """Which work runs: on `count` threads, of which bulk work gets at most half."""

    def __init__(self, count: int) -> None:
        self.count = self.free = count
        self._most_bulk = max(1, count // 2)
        # Pieces under way by their owner, and those of them that are bulk work.
        self.running: Counter[str] = Counter()
        self._bulk = 0

    def has_one_for(self, ticket: Ticket) -> bool:
        """Whether the work may begin now."""
        return self.free > 0 and (not ticket.bulk or self._bulk < self._most_bulk)

    def begin(self, ticket: Ticket) -> None:
        """The work takes a thread."""
        self.free -= 1
        self.running[ticket.owner] += 1
        self._bulk += ticket.bulk

    def end(self, ticket: Ticket) -> None:
        """The work gives its thread back."""
        self.free += 1
        self._bulk -= ticket.bulk
        self.running[ticket.owner] -= 1
        if not self.running[ticket.owner]:
            del self.running[ticket.owner]


class _Queue:
    """Callers that wait for a thread, and how they share the room.

    Next is one whose owner has the least work under way, and among these the first by its rank. When the room
    is full, the newest entry of the owner with the most work makes room for an owner with less (longest queue
    drop), so that the room is shared max-min fairly. Bulk work takes no room: videos are bounded by their
    number.
    """

    def __init__(self, room: int, threads: _Threads) -> None:
        self._room, self._threads = room, threads
        self._places: list[_Place] = []

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, place: _Place) -> bool:
        return place in self._places

    def add(self, place: _Place) -> None:
        """Have the caller wait."""
        self._places.append(place)

    def remove(self, place: _Place) -> None:
        """The caller waits no longer."""
        self._places.remove(place)

    def take_next(self) -> _Place | None:
        """Remove and return the caller whose work may begin, if there is one."""
        may_begin = [place for place in self._places if self._threads.has_one_for(place.ticket)]
        if not may_begin:
            return None
        running = self._threads.running
        place = min(may_begin, key=lambda each: (running[each.ticket.owner], each.ticket.rank))
        self._places.remove(place)
        return place

    def has_room_for(self, ticket: Ticket) -> bool:
        """Whether the caller may wait, without displacing another."""
        return ticket.bulk or len(self._bounded()) < self._room

    def displaceable_by(self, ticket: Ticket) -> _Place | None:
        """The entry that makes room for the caller; None: its owner has as much as any other."""
        bounded = self._bounded()
        waiting = Counter(place.ticket.owner for place in bounded)
        held = waiting + self._threads.running
        most = max(waiting, key=lambda owner: held[owner], default=ticket.owner)
        # With one less, the other still has as much as this owner with one more.
        if held[most] <= held[ticket.owner] + 1:
            return None
        return next(place for place in reversed(bounded) if place.ticket.owner == most)

    def ahead_of(self, ticket: Ticket) -> int:
        """How many of those that wait are expected to begin before the caller: owners take turns."""
        places = self._places if ticket.bulk else self._bounded()
        waiting = Counter(place.ticket.owner for place in places)
        own = waiting.pop(ticket.owner, 0)
        return own + sum(min(others, own + 1) for others in waiting.values())

    def _bounded(self) -> list[_Place]:
        """The entries that take room, the newest last."""
        return [place for place in self._places if not place.ticket.bulk]


class Lane:
    """Work for many callers, by so many threads. Used from one event loop."""

    def __init__(self, max_queued: int, hands: int, telemetry: WorkerTelemetry) -> None:
        """At most `max_queued` pieces wait, bulk work aside, while `hands` are worked on."""
        self._telemetry = telemetry
        self._max_queued = max_queued
        self._executor = ThreadPoolExecutor(max_workers=hands, thread_name_prefix="hand")
        self._threads = _Threads(hands)
        self._waiting = _Queue(max_queued, self._threads)
        # Requests under way, and how many there ever were.
        self._requests = self._ever = 0
        # Seconds from one finished piece to the next, while there is work: their mean does not depend on
        # how many threads share what they work with, as the time that a piece takes does.
        self._intervals_s: deque[float] = deque(maxlen=_LATEST)
        # When the last piece ended, or the first began after a rest.
        self._paced = 0.0
        self._quiet = asyncio.Event()
        self._quiet.set()

    async def run(self, work: Callable[[], T], ticket: Ticket) -> T:
        """What `work` returns or raises, computed in one of the threads.

        Raises `overloaded` when the queue is full, when an owner with less work needs the place, or when the
        deadline would pass before the answer, and `deadline_exceeded` when it has passed already. Cancelling
        this abandons the ticket, and takes the work out of the queue if it has not begun.
        """
        ticket.go_on()
        await self._turn(ticket)
        if ticket.announce:
            try:
                await ticket.announce()
            except BaseException:
                self._end(ticket)
                raise
        self._telemetry.waited(ticket.urgency.name.lower(), ticket.waited_ms() / 1000)
        loop = asyncio.get_running_loop()
        # The thread works for the caller's span and request id.
        future = self._executor.submit(copy_context().run, work)

        def done(_: Future[T]) -> None:
            loop.call_soon_threadsafe(self._done, ticket)

        future.add_done_callback(done)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            ticket.abandon()
            raise

    def count_refused_video(self) -> None:
        """Count a video that was refused before it came here."""
        self._telemetry.refused("videos")

    @property
    def waiting(self) -> int:
        """Pieces whose turn has not come."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """Pieces under way."""
        return self._threads.count - self._threads.free

    @property
    def requests(self) -> int:
        """Requests under way, also those that wait for something else than their turn."""
        return self._requests

    @contextmanager
    def request(self) -> Iterator[None]:
        """Somebody's meanwhile, of one piece of work or of several: the lane is not idle in between."""
        self._requests, self._ever = self._requests + 1, self._ever + 1
        self._quiet.clear()
        try:
            yield
        finally:
            self._requests -= 1
            self._settle()

    async def idle(self, seconds: float) -> None:
        """Return when no request was there, and nothing ran, for so long."""
        known = -1
        while known != self._ever:
            await self._quiet.wait()
            known = self._ever
            await asyncio.sleep(seconds)

    def close(self) -> None:
        """Return when what runs has ended. Nothing may be waiting."""
        self._executor.shutdown(wait=True)

    async def _turn(self, ticket: Ticket) -> None:
        """Return when it is the ticket's turn: a thread is free for it."""
        # While a thread is free, only work waits that may not have it.
        if self._threads.has_one_for(ticket):
            self._begin(ticket)
            return
        self._check_deadline(ticket)
        if not self._waiting.has_room_for(ticket):
            self._make_room(ticket)
        place = _Place(ticket, asyncio.get_running_loop().create_future())
        self._waiting.add(place)
        try:
            await place.turn
        except BaseException:
            if place in self._waiting:
                self._waiting.remove(place)
            elif place.turn.done() and not place.turn.cancelled() and place.turn.exception() is None:
                self._end(ticket)
            raise

    @property
    def _pace_s(self) -> float:
        return fmean(self._intervals_s or (0.0,))

    def _check_deadline(self, ticket: Ticket) -> None:
        # Its own time, beside as many others.
        own_s = (self._threads.count + 1) * self._pace_s
        wait_s = self._waiting.ahead_of(ticket) * self._pace_s
        expected_s = _RESERVE * (wait_s + own_s)
        if expected_s > ticket.left_s():
            self._telemetry.refused("deadline")
            waiting = f"{len(self._waiting)} requests are waiting already, and this one would be answered"
            detail = f"{waiting} in some {expected_s:.1f} s: its deadline would pass before."
            raise ServiceError(Kind.OVERLOADED, detail, retry_after_s=max(_LEAST_RETRY_S, wait_s))

    def _make_room(self, ticket: Ticket) -> None:
        """Reject the newest work of the owner with the most; raise `overloaded` if that is the ticket's."""
        displaced = self._waiting.displaceable_by(ticket)
        loser = displaced.ticket if displaced else ticket
        retry_s = max(_LEAST_RETRY_S, self._waiting.ahead_of(loser) * self._pace_s)
        detail = f"{self._max_queued} requests are waiting already, the limit of this worker's queue"
        if displaced is None:
            self._telemetry.refused("full")
            raise ServiceError(Kind.OVERLOADED, f"{detail}.", retry_after_s=retry_s)
        self._telemetry.refused("share")
        detail += f", and key {loser.owner} has more of them than others."
        self._waiting.remove(displaced)
        if not displaced.turn.done():
            displaced.turn.set_exception(ServiceError(Kind.OVERLOADED, detail, retry_after_s=retry_s))

    def _begin(self, ticket: Ticket) -> None:
        if not self.running:
            self._paced = time.monotonic()
        self._threads.begin(ticket)
        self._quiet.clear()

    def _end(self, ticket: Ticket) -> None:
        self._threads.end(ticket)
        while place := self._waiting.take_next():
            if not place.turn.done():
                self._begin(place.ticket)
                place.turn.set_result(None)
        self._settle()

    def _settle(self) -> None:
        if not self.running and not self._requests:
            self._quiet.set()

    def _done(self, ticket: Ticket) -> None:
        now = time.monotonic()
        # What warms up is nobody's request: first times take longer.
        if self._requests:
            self._intervals_s.append(now - self._paced)
        self._paced = now
        self._end(ticket)
