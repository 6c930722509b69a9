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


class Lane:
    """Work for many callers, by so many threads. Used from one event loop.

    Of those that wait the next is one whose owner has the least work under way, and among these the first by
    its rank.
    """

    def __init__(self, max_queued: int, hands: int, telemetry: WorkerTelemetry) -> None:
        """At most `max_queued` pieces wait while `hands` are worked on."""
        self._telemetry = telemetry
        self._max_queued, self._hands, self._free = max_queued, hands, hands
        self._executor = ThreadPoolExecutor(max_workers=hands, thread_name_prefix="hand")
        self._waiting: list[_Place] = []
        # Pieces under way by their owner.
        self._running: Counter[str] = Counter()
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

        Raises `overloaded` when the queue is full, or so long that the deadline would pass before the
        answer, and `deadline_exceeded` when it has passed already. Cancelling this abandons the ticket, and
        takes the work out of the queue if it has not begun.
        """
        ticket.go_on()
        await self._turn(ticket)
        if ticket.announce:
            try:
                await ticket.announce()
            except BaseException:
                self._end(ticket.owner)
                raise
        self._telemetry.waited(ticket.urgency.name.lower(), ticket.waited_ms() / 1000)
        loop = asyncio.get_running_loop()
        # The thread works for the caller's span and request id.
        future = self._executor.submit(copy_context().run, work)

        def done(_: Future[T]) -> None:
            loop.call_soon_threadsafe(self._done, ticket.owner)

        future.add_done_callback(done)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            ticket.abandon()
            raise

    @property
    def waiting(self) -> int:
        """Pieces whose turn has not come."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """Pieces under way."""
        return self._hands - self._free

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
        if self._free and not self._waiting:
            self._begin(ticket.owner)
            return
        self._check_room(ticket)
        place = _Place(ticket, asyncio.get_running_loop().create_future())
        self._waiting.append(place)
        try:
            await place.turn
        except asyncio.CancelledError:
            if place in self._waiting:
                self._waiting.remove(place)
            else:
                self._end(ticket.owner)
            raise

    def _check_room(self, ticket: Ticket) -> None:
        pace_s = fmean(self._intervals_s or (0.0,))
        wait_s = len(self._waiting) * pace_s
        # Its own time, beside as many others.
        own_s = (self._hands + 1) * pace_s
        expected_s = _RESERVE * (wait_s + own_s)
        retry_s = max(_LEAST_RETRY_S, wait_s)
        if len(self._waiting) >= self._max_queued:
            self._telemetry.refused("full")
            detail = f"{self._max_queued} requests are waiting already, the limit of this worker's queue."
            raise ServiceError(Kind.OVERLOADED, detail, retry_after_s=retry_s)
        if expected_s > ticket.left_s():
            self._telemetry.refused("deadline")
            waiting = f"{len(self._waiting)} requests are waiting already, and this one would be answered"
            detail = f"{waiting} in some {expected_s:.1f} s: its deadline would pass before."
            raise ServiceError(Kind.OVERLOADED, detail, retry_after_s=retry_s)

    def _begin(self, owner: str) -> None:
        if self._free == self._hands:
            self._paced = time.monotonic()
        self._free -= 1
        self._running[owner] += 1
        self._quiet.clear()

    def _end(self, owner: str) -> None:
        self._free += 1
        self._running[owner] -= 1
        if not self._running[owner]:
            del self._running[owner]
        while self._free and self._waiting:
            place = min(self._waiting, key=lambda one: (self._running[one.ticket.owner], one.ticket.rank))
            self._waiting.remove(place)
            if not place.turn.done():
                self._begin(place.ticket.owner)
                place.turn.set_result(None)
        self._settle()

    def _settle(self) -> None:
        if self._free == self._hands and not self._requests:
            self._quiet.set()

    def _done(self, owner: str) -> None:
        now = time.monotonic()
        # What warms up is nobody's request: first times take longer.
        if self._requests:
            self._intervals_s.append(now - self._paced)
        self._paced = now
        self._end(owner)
