"""Bounds the pixels that a worker has in its hands at once, so that large images cannot take all its memory.

A request holds the pixels of its image and of its mask prompts to its end: the masks of its answer are as
large as its image.

A quarter of the budget is set apart for small images, which never wait: there are at most as many of them as
requests that are worked on at once. Larger ones share the rest. Callers that wait take no thread.
"""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from statistics import fmean
from typing import TypeVar

from service.errors import Kind, ServiceError
from service.telemetry import WorkerTelemetry
from service.worker.lane import Ticket

T = TypeVar("T")

_MIN_RETRY_S = 0.5
# Share of the budget that small images have to themselves.
_SMALL_SHARE = 4
# The latest reservations, whose mean time predicts the next one's.
_LATEST = 16


@dataclass(slots=True, eq=False)
class _Reservation:
    """Pixels of one request, which waits or is worked on."""

    owner: str
    pixels: int
    turn: "asyncio.Future[None]"
    since: float = field(default_factory=time.monotonic)
    started: bool = False
    released: bool = False


class PixelBudget:
    """A bounded number of pixels that are worked on at once, shared fairly by owners.

    Used from one event loop.

    Of those that wait the next is one whose owner has the fewest pixels reserved, and among these the first
    that came. It is not overtaken, so that the largest image has its turn.
    """

    def __init__(
        self, max_pixels: int, concurrency: int, max_waiting: int, telemetry: WorkerTelemetry
    ) -> None:
        """At most `concurrency` requests are worked on at once, and `max_waiting` wait for the budget."""
        self._telemetry = telemetry
        self._small = max_pixels // (_SMALL_SHARE * concurrency)
        self._most = max_pixels - self._small * concurrency
        self._max_waiting = max_waiting
        self._waiting: list[_Reservation] = []
        # Pixels reserved by owner.
        self._reserved: Counter[str] = Counter()
        self._held_s: deque[float] = deque(maxlen=_LATEST)

    @property
    def reserved(self) -> int:
        """Pixels of the large images that are worked on."""
        return self._reserved.total()

    async def run(
        self,
        submit: Callable[[Callable[[], T], Ticket], Awaitable[T]],
        work: Callable[[], T],
        ticket: Ticket,
        pixels: int,
    ) -> T:
        """Submit the work once its pixels fit into the budget, and return what it returns.

        An image larger than the budget is worked on while no other large one is.

        Raises `overloaded` where too many wait, or the deadline would pass before the turn, and
        `deadline_exceeded`.
        """
        if pixels <= self._small:
            return await submit(work, ticket)
        loop = asyncio.get_running_loop()
        reservation = _Reservation(ticket.owner, pixels, loop.create_future())

        def guarded() -> T:
            reservation.started = True
            try:
                return work()
            finally:
                loop.call_soon_threadsafe(self._release, reservation)

        await self._reserve(reservation, ticket)
        try:
            return await submit(guarded, ticket)
        finally:
            # A canceled caller leaves while a thread still works: that one releases.
            if not reservation.started:
                self._release(reservation)

    async def _reserve(self, reservation: _Reservation, ticket: Ticket) -> None:
        if not self._waiting and self._fits(reservation):
            self._reserved[reservation.owner] += reservation.pixels
            return
        self._check_room(reservation, ticket)
        self._waiting.append(reservation)
        left_s = ticket.left_s()
        try:
            async with asyncio.timeout(None if left_s == float("inf") else left_s):
                await reservation.turn
        except BaseException as error:
            if reservation in self._waiting:
                self._waiting.remove(reservation)
                # The next may fit where this one did not.
                self._grant()
            elif not reservation.turn.cancelled():
                self._release(reservation)
            if isinstance(error, TimeoutError):
                ticket.go_on()
            raise
        reservation.since = time.monotonic()

    def _check_room(self, reservation: _Reservation, ticket: Ticket) -> None:
        # An image over the budget takes all of it, and no more.
        ahead = min(self.reserved, self._most) + sum(min(each.pixels, self._most) for each in self._waiting)
        wait_s = ahead / self._most * fmean(self._held_s or (0.0,))
        if len(self._waiting) < self._max_waiting and wait_s <= ticket.left_s():
            return
        self._telemetry.refused("decoding")
        detail = (
            f"{len(self._waiting)} requests with large images are waiting already; this one has "
            f"{reservation.pixels:,} pixels in its image and masks. Send it later, or send smaller ones."
        )
        raise ServiceError(Kind.OVERLOADED, detail, retry_after_s=max(_MIN_RETRY_S, wait_s))

    def _fits(self, reservation: _Reservation) -> bool:
        return not self.reserved or self.reserved + reservation.pixels <= self._most

    def _release(self, reservation: _Reservation) -> None:
        if reservation.released:
            return
        reservation.released = True
        self._held_s.append(time.monotonic() - reservation.since)
        self._reserved[reservation.owner] -= reservation.pixels
        if not self._reserved[reservation.owner]:
            del self._reserved[reservation.owner]
        self._grant()

    def _grant(self) -> None:
        while self._waiting:
            next_one = min(self._waiting, key=lambda each: self._reserved[each.owner])
            if not self._fits(next_one):
                return
            self._waiting.remove(next_one)
            if next_one.turn.done():
                continue
            self._reserved[next_one.owner] += next_one.pixels
            next_one.turn.set_result(None)
