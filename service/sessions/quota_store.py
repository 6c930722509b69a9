"""What keys have used of their limits: the contract, counting in memory, and what to do without the store."""

import logging
import time
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from service.errors import ServiceError
from service.sessions.expiry import ExpiryQueue

_LOG = logging.getLogger(__name__)

T = TypeVar("T")


class QuotaStore(Protocol):
    """Requests per second and requests at once, by owner. One per process, used from one event loop.

    All of it raises `store_unavailable` where the store is out of reach.
    """

    async def spend(self, owner: str, per_s: float, burst: int) -> float:
        """Count one request; 0.0, or the seconds after which one is allowed, and none was counted.

        A bucket of `burst` tokens that fills by `per_s` a second; a request takes one.
        """
        ...

    async def enter(self, owner: str, id: str, most: int) -> bool:
        """Take one of the owner's `most` places; whether there was one. Whoever has one keeps it."""
        ...

    async def leave(self, owner: str, id: str) -> None:
        """Give the place back, where `id` has one."""
        ...

    async def close(self) -> None: ...


class MemoryQuotas:
    """What this process has counted."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        """`now` tells the time in seconds."""
        self._now = now
        # When each owner's bucket is full, for those whose bucket is not.
        self._full: dict[str, float] = {}
        self._due = ExpiryQueue[str]()
        self._places: dict[str, set[str]] = {}

    def __len__(self) -> int:
        """Return the number of owners of whom something is counted."""
        return len(self._full.keys() | self._places.keys())

    async def spend(self, owner: str, per_s: float, burst: int) -> float:
        now = self._now()
        for each, _ in self._due.pop_expired(now):
            del self._full[each]
        full = max(self._full.get(owner, now), now) + 1 / per_s
        wait_s = full - now - burst / per_s
        # The sums are not exact.
        if wait_s > 1e-6:
            return wait_s
        self._full[owner] = full
        self._due.set(owner, full)
        return 0.0

    async def enter(self, owner: str, id: str, most: int) -> bool:
        places = self._places.get(owner, set())
        if id not in places and len(places) >= most:
            return False
        self._places.setdefault(owner, places).add(id)
        return True

    async def leave(self, owner: str, id: str) -> None:
        places = self._places.get(owner, set())
        places.discard(id)
        if not places:
            self._places.pop(owner, None)

    async def close(self) -> None:
        self._full.clear()
        self._due.clear()
        self._places.clear()


class ResortingQuotas:
    """Counts where all gateways do, and on its own while that is out of reach.

    Limits are there to share the service fairly: without the store each gateway keeps to them by itself,
    which allows more than one does, and refuses nobody for the store's sake.
    """

    def __init__(self, shared: QuotaStore, own: QuotaStore, rest_s: float = 2.0) -> None:
        """`rest_s`: how long the shared one is left alone when it did not answer: all would wait for it."""
        self._shared, self._own, self._rest_s = shared, own, rest_s
        # When the shared one is asked again, in time.monotonic; 0: it is in reach.
        self._again = 0.0

    async def spend(self, owner: str, per_s: float, burst: int) -> float:
        return await self._count(lambda store: store.spend(owner, per_s, burst))

    async def enter(self, owner: str, id: str, most: int) -> bool:
        return await self._count(lambda store: store.enter(owner, id, most))

    async def leave(self, owner: str, id: str) -> None:
        await self._own.leave(owner, id)
        try:
            await self._shared.leave(owner, id)
        except ServiceError as error:
            self._lose(error)

    async def close(self) -> None:
        await self._shared.close()

    async def _count(self, work: Callable[[QuotaStore], Awaitable[T]]) -> T:
        if time.monotonic() >= self._again:
            try:
                counted = await work(self._shared)
            except ServiceError as error:
                self._lose(error)
            else:
                if self._again:
                    self._again = 0.0
                    _LOG.info("The quotas of keys are counted in Redis again")
                return counted
        return await work(self._own)

    def _lose(self, error: ServiceError) -> None:
        if not self._again:
            _LOG.warning("%s The quotas of keys are counted by each gateway alone", error.detail)
        self._again = time.monotonic() + self._rest_s
