"""The one thread that computes, and the bounded queue before it."""

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from service.errors import Kind, ServiceError

T = TypeVar("T")

# What a caller who finds the queue full is asked to wait.
RETRY_AFTER_S = 1.0


class Ticket:
    """One caller's place: how long it waited, and whether it still waits."""

    def __init__(self, remaining_s: float | None) -> None:
        """`remaining_s`: seconds until the caller's deadline; None without one."""
        self._since = time.monotonic()
        self._deadline = None if remaining_s is None else self._since + remaining_s
        self._abandoned = threading.Event()

    def abandon(self) -> None:
        """The caller is gone. Thread-safe."""
        self._abandoned.set()

    def waited_ms(self) -> float:
        """Milliseconds since the caller came."""
        return (time.monotonic() - self._since) * 1e3

    def go_on(self) -> None:
        """Raise `deadline_exceeded` when nobody waits for the answer any more."""
        late = self._deadline is not None and time.monotonic() >= self._deadline
        if late or self._abandoned.is_set():
            detail = "The deadline passed, or the caller left, before the answer was ready."
            raise ServiceError(Kind.DEADLINE_EXCEEDED, detail)


class Lane:
    """Work runs here one piece at a time, in the order it came. Used from one event loop."""

    def __init__(self, max_queued: int) -> None:
        """At most `max_queued` pieces wait while one runs."""
        self._max_queued = max_queued
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="engine")
        self._pending: set[Future[Any]] = set()

    async def run(self, work: Callable[[], T], ticket: Ticket) -> T:
        """What `work` returns or raises, computed in the lane's thread.

        Raises `overloaded` when the queue is full. Cancelling this abandons the ticket, and takes the work
        out of the queue if it has not begun.
        """
        if len(self._pending) > self._max_queued:
            detail = f"{self._max_queued} requests are waiting already, the limit of this worker's queue."
            raise ServiceError(Kind.OVERLOADED, detail, retry_after_s=RETRY_AFTER_S)
        future = self._executor.submit(work)
        self._pending.add(future)
        future.add_done_callback(self._pending.discard)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            ticket.abandon()
            raise

    async def idle(self) -> None:
        """Return when nothing runs and nothing waits."""
        while pending := list(self._pending):
            await asyncio.gather(*map(asyncio.wrap_future, pending), return_exceptions=True)

    def close(self) -> None:
        """Drop what waits, and return when what runs has ended."""
        self._executor.shutdown(wait=True, cancel_futures=True)
