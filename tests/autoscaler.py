"""A stand-in for KEDA: reads the gateway's own metric, and has as many workers as it asks for."""

import math
import threading
import time
from collections.abc import Callable

import httpx

from tests.deployment import Process
from tests.listed import ListedGateway

# How often the metric is read: what the chart's `pollSeconds` is, in a test's time.
_POLL_S = 0.2


class Autoscaler:
    """Starts and stops workers of one variant as a ScaledObject would, while it is entered.

    As KEDA and the HPA do: with more than nothing under way there is a worker at least, and as many as
    divide what is under way by `requests_per_worker`; fewer only after `cooldown_s` of needing no more. A
    worker that goes is first taken from the gateway's file, as an endpoint is, and told to stop.
    """

    def __init__(
        self,
        gateway: ListedGateway,
        variant: str,
        worker: Callable[[int], tuple[str, Process]],
        *,
        requests_per_worker: int,
        at_most: int,
        cooldown_s: float,
    ) -> None:
        """`worker` makes a worker: its address and its process."""
        self._gateway, self._variant, self._worker = gateway, variant, worker
        self._requests_per_worker, self._at_most = requests_per_worker, at_most
        self._cooldown_s = cooldown_s
        self._running: list[tuple[str, Process]] = []
        self._leaving: list[Process] = []
        self._made = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._loop)
        # How many workers there were, in turn.
        self.history = [0]
        # What went wrong in the thread; None: nothing.
        self.failure: Exception | None = None

    def __enter__(self) -> "Autoscaler":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        for process in (*(process for _, process in self._running), *self._leaving):
            process.kill()

    def left(self) -> list[int]:
        """Exit codes of those that were told to stop, once they have."""
        return [process.ended() for process in self._leaving]

    def _loop(self) -> None:
        enough_since = time.monotonic()
        while not self._done.wait(_POLL_S):
            try:
                wanted = self._wanted()
            except httpx.TransportError:
                continue
            except Exception as error:
                self.failure = error
                return
            now = time.monotonic()
            if wanted >= len(self._running):
                enough_since = now
            if wanted > len(self._running) or now - enough_since >= self._cooldown_s:
                self._scale(wanted)
                enough_since = now

    def _wanted(self) -> int:
        """Workers, by the requests that are under way."""
        under_way = self._gateway.told("inflight_requests", variant=self._variant)
        return min(self._at_most, math.ceil(under_way / self._requests_per_worker))

    def _scale(self, wanted: int) -> None:
        if wanted == len(self._running):
            return
        while len(self._running) < wanted:
            address, process = self._worker(self._made)
            process.start()
            self._made += 1
            self._running.append((address, process))
        going = [self._running.pop() for _ in range(len(self._running) - wanted)]
        self._gateway.list({self._variant: [address for address, _ in self._running]})
        for _, process in going:
            process.terminate()
            self._leaving.append(process)
        self.history.append(wanted)
