"""The workers of one variant: which are ready, and which takes the next request."""

import asyncio
import hashlib
import logging
from collections.abc import Callable, Collection, Sequence

from service.errors import Kind, ServiceError
from service.fair_share import FairShare
from service.gateway.call import Call
from service.gateway.worker import Method, Request, Response, State, Worker
from service.pb.efficientsam3.v1 import variants_pb2
from service.tls import Trust

_LOG = logging.getLogger(__name__)

# Between a variant and the digits of an artefact of it, in what workers are configured for.
ARTEFACT = "@"

# Share of the latest request in the mean time of one.
_LATEST = 0.1


class Pool:
    """The workers of one variant, or of one artefact of it."""

    def __init__(
        self,
        name: str,
        probe_interval_s: float,
        changed: Callable[[int], None],
        trust: Trust | None = None,
        *,
        shared: bool = False,
    ) -> None:
        """`name` is the variant's, or VARIANT@DIGITS where they keep the sessions of an artefact that is
        replaced, whose digest begins so. `changed` is told the number of ready workers whenever it may have
        changed. `trust`: of TLS.

        `shared`: kept images and sessions lie where every worker finds them.
        """
        self.name = name
        self.variant, _, self.digits = name.partition(ARTEFACT)
        self._trust = trust
        self._shared = shared
        self.workers: dict[str, Worker] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        self._probe_interval_s = probe_interval_s
        self._tell = changed
        self._some_ready = asyncio.Event()
        # Requests that wait for a worker or run on one, by owner; videos are counted apart.
        self.requests = FairShare()
        self.videos = FairShare()
        # Seconds that one takes, lately.
        self.mean_s = 0.0

    @property
    def ready(self) -> int:
        return len(self.ready_workers())

    def ready_workers(self) -> list[Worker]:
        """Those that may be asked now: without those that are set aside, unless all are."""
        ready = [worker for worker in self.workers.values() if worker.ready]
        return [worker for worker in ready if not worker.standing.aside] or ready

    @property
    def capacity(self) -> int:
        """Requests that its ready workers take at once; 0 where one does not say, or none is ready."""
        takes = [
            worker.info.capacity if worker.info else 0 for worker in self.workers.values() if worker.ready
        ]
        return sum(takes) if all(takes) else 0

    def took(self, seconds: float) -> None:
        """A request was answered after so long."""
        self.mean_s += _LATEST * (seconds - self.mean_s)

    @property
    def info(self) -> variants_pb2.Variant | None:
        """What a worker of the variant said of it, or None while none was ever ready."""
        known = [each for each in self.workers.values() if each.info and self._serves(each.info)]
        return max(known, key=lambda each: each.ready).info if known else None

    def place(self, addresses: Collection[str]) -> None:
        """Have workers at these addresses and no others.

        One that comes is used once it is ready, and one that goes finishes what it has.
        """
        for address in addresses:
            if address not in self.workers:
                self.workers[address] = Worker(
                    self.name, address, self._probe_interval_s, self._changed, self._serves, self._trust
                )
        for address in [each for each in self.workers if each not in addresses]:
            leaving = asyncio.create_task(self.workers.pop(address).leave())
            self._leaving.add(leaving)
            leaving.add_done_callback(self._leaving.discard)
        self._changed()

    async def wait_ready(self) -> None:
        """Return when a worker is ready."""
        while not self.ready:
            await self._some_ready.wait()

    async def close(self) -> None:
        """Cut off what they have."""
        workers, self.workers = list(self.workers.values()), {}
        # At once: whoever waits for a ready worker is to wait, not to look again and again.
        self._changed()
        for leaving in self._leaving:
            leaving.cancel()
        await asyncio.gather(*self._leaving, *(worker.close() for worker in workers), return_exceptions=True)

    async def ask(
        self, method: Method[Request, Response], request: Request, call: Call, kept: str = ""
    ) -> Response:
        """Answer by the worker that `choose` names, waiting for a ready one until the call's deadline.

        No request changes what another answers, so one whose worker goes away is sent once more, unless that
        worker had begun to compute it: the request may be what stopped it. `kept` is the id of the image or
        the session that a worker may have. Raises ServiceError: UNAVAILABLE when no worker is ready in time,
        the second try fails too or there must be none, DEADLINE_EXCEEDED, and whatever the worker raises.
        """
        worker = await self.next(call, kept)
        try:
            return await worker.ask(method, request, call)
        except ServiceError as error:
            if error.kind is not Kind.UNAVAILABLE or error.begun:
                raise
            _LOG.warning("request %s: its worker went away, trying once more", call.request_id)
        worker = await self.next(call, kept)
        return await worker.ask(method, request, call)

    def missing(self) -> str:
        """What keeps the variant from being served, for the person who asked for it."""
        if not self.workers:
            return "no worker is configured for it"
        states = [worker.state for worker in self.workers.values()]
        counted = [f"{states.count(state)} {state}" for state in State if state in states]
        return f"of {len(states)} configured, {', '.join(counted)}"

    async def next(self, call: Call, kept: str) -> Worker:
        """The worker for a request, once one is ready; see `ask`."""
        try:
            async with asyncio.timeout_at(call.deadline):
                await self.wait_ready()
        except TimeoutError:
            detail = f"Variant {self.name} has no ready worker: {self.missing()}."
            raise ServiceError(Kind.UNAVAILABLE, detail, retry_after_s=self._probe_interval_s) from None
        return choose(self.ready_workers(), kept, shared=self._shared)

    def _serves(self, info: variants_pb2.Variant) -> bool:
        """Whether a worker that says this of itself is one of these."""
        return info.name == self.variant and info.digest.removeprefix("sha256:").startswith(self.digits)

    def _changed(self) -> None:
        if self.ready:
            self._some_ready.set()
        else:
            self._some_ready.clear()
        self._tell(self.ready)


# A favourite with this many requests more than the least busy worker is passed over, where it may be.
_MARGIN = 2


def choose(ready: Sequence[Worker], kept: str, *, shared: bool = False) -> Worker:
    """The worker for the next request: of `ready`, which is not empty.

    The favourite of an image or a session where the request is about one, since that worker keeps it; else
    the one with the least load. `shared`: every worker can have it from the store, and the favourite
    only has it at hand, so that it is passed over while it is much busier than another.
    """
    idlest = min(ready, key=lambda worker: worker.load)
    if not kept:
        return idlest
    favourite = max(ready, key=lambda worker: _affinity(worker.address, kept))
    busier = favourite.load - idlest.load
    return idlest if shared and busier > _MARGIN else favourite


def _affinity(address: str, kept: str) -> bytes:
    """How much the worker at `address` is the image's or session's own, by rendezvous hashing.

    It is the same in every gateway, and while workers come and go, few change their favourite.
    """
    return hashlib.blake2b(f"{address} {kept}".encode(), digest_size=8).digest()
