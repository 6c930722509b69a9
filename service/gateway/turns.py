"""Spreads work over the iterations of the event loop, by turns between those who ask for it."""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable

from service.errors import Kind, ServiceError

# Requests of one owner that may wait to be started.
_MAX_WAITING = 4096
_RETRY_S = 1.0


class Turns:
    """Runs one waiting piece of work in each iteration of the event loop. Used from one event loop.

    A busy event loop works on everything that is ready before it looks again, so the time of one iteration
    grows with the number of requests that have been started. Started one by one, few of them are in progress
    at once: a flood waits here instead of between the steps of every other request. Owners take turns,
    however much work each of them has.
    """

    def __init__(self) -> None:
        self._waiting: OrderedDict[Hashable, deque[Callable[[], None]]] = OrderedDict()
        # Whether work was run in this iteration.
        self._taken = False

    def run(self, owner: Hashable, work: Callable[[], None]) -> None:
        """Run the owner's work in a later iteration."""
        self._waiting.setdefault(owner, deque()).append(work)
        if not self._taken:
            self._take()

    async def start(self, owner: Hashable) -> None:
        """Return when the owner's request may start. Raises ServiceError OVERLOADED if too many wait."""
        if not self._taken:
            self._take()
            return
        if len(self._waiting.get(owner, ())) >= _MAX_WAITING:
            detail = f"{_MAX_WAITING:,} of your requests wait to be started, which is the limit: send fewer."
            raise ServiceError(Kind.OVERLOADED, detail, retry_after_s=_RETRY_S)
        started = asyncio.Event()
        self.run(owner, started.set)
        await started.wait()

    def _take(self) -> None:
        self._taken = True
        asyncio.get_running_loop().call_soon(self._run_next)

    def _run_next(self) -> None:
        self._taken = False
        if not self._waiting:
            return
        self._take()
        owner, works = self._waiting.popitem(last=False)
        work = works.popleft()
        if works:
            self._waiting[owner] = works
        work()
