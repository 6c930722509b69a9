"""From a request to the variant it asks for. HTTP and gRPC call this, and nothing beyond it."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial

from service.config import ConfigurationError, GatewaySettings
from service.errors import Kind, ServiceError
from service.fair_share import FairShare
from service.gateway.call import Call
from service.gateway.discovery import Discovery, Workers
from service.gateway.pool import ARTEFACT, Pool
from service.gateway.worker import Worker
from service.pb.efficientsam3.v1 import segmentation_pb2 as pb
from service.pb.efficientsam3.v1 import variants_pb2
from service.prompts import (
    check,
    check_image_id,
    check_new_image,
    digits_of_session,
    image_id,
    variant_of_session,
)
from service.telemetry import Telemetry
from service.tls import to_workers
from service.tracing import current

# What is known of a variant before a worker of it was ever ready.
Describe = Callable[[str], variants_pb2.Variant]
# (address, deadline in loop time) -> the image's bytes. Raises ServiceError.
Fetch = Callable[[str, float], Awaitable[bytes]]

_SET_WORKERS = (
    """set workers to the addresses of its workers, EFFICIENTSAM3_WORKERS='{"VARIANT": ["host:port"]}'"""
)

# The least that who is refused is asked to wait.
_LEAST_RETRY_S = 0.5
# Nobody knows when one of the videos ends.
_VIDEO_RETRY_S = 5.0


class Router:
    """The configured variants and their workers. Build it inside the event loop."""

    def __init__(
        self, settings: GatewaySettings, telemetry: Telemetry, describe: Describe, fetch: Fetch | None = None
    ) -> None:
        """Start watching the workers that the settings name.

        `fetch` gets images by their address; None: addresses are refused. Raises ConfigurationError if
        `settings.default_variant` is not among the workers' variants, for a `workers_file` that cannot be,
        and for what TLS to workers needs.
        """
        self.draining = False
        self.pools: dict[str, Pool] = {}
        # By VARIANT@DIGITS: for the sessions of artefacts that are replaced.
        self.retiring: dict[str, Pool] = {}
        # Of variants that are configured no more.
        self._former: list[Pool] = []
        self._trust = to_workers(settings)
        self._settings = settings
        self._telemetry = telemetry
        self._describe = describe
        self._fetch = fetch
        discovery = Discovery(settings, self.place)
        _check_default(settings.default_variant, discovery.named)
        self.place(discovery.known())
        self._looking = asyncio.create_task(discovery.run())

    @property
    def default(self) -> str:
        """The variant of requests that name none; empty while there is none."""
        return self._settings.default_variant or next(iter(self.pools), "")

    def place(self, workers: Workers) -> None:
        """Have these variants and workers, and no others. What goes finishes what it has."""
        for name, addresses in workers.items():
            pools = self.retiring if ARTEFACT in name else self.pools
            if name not in pools:
                pools[name] = self._new_pool(name)
            pools[name].place(addresses)
        for pools in (self.pools, self.retiring):
            for name in pools.keys() - workers.keys():
                former = pools.pop(name)
                former.place(())
                self._former.append(former)

    def _new_pool(self, name: str) -> Pool:
        self._telemetry.declare_variant(name)
        told = partial(_set_gauge, self._telemetry, name)
        shared = bool(self._settings.redis_url)
        return Pool(name, self._settings.probe_interval_s, told, self._trust, shared=shared)

    async def close(self) -> None:
        self._looking.cancel()
        await asyncio.gather(self._looking, return_exceptions=True)
        await asyncio.gather(*(pool.close() for pool in (*self._all(), *self._former)))

    def pool(self, variant: str) -> Pool:
        """The workers of `variant`; empty means the default. Raises ServiceError VARIANT_NOT_FOUND."""
        if pool := self.pools.get(variant or self.default):
            return pool
        asked = f"There is no variant {variant[:100]!r} here" if variant else "No variant is configured"
        raise ServiceError(Kind.VARIANT_NOT_FOUND, f"{asked}; configured: {_names(self.pools) or 'none'}.")

    def pool_of(self, session: str) -> Pool | None:
        """The workers of the session's artefact where it is being replaced, else those of its variant."""
        variant, digits = variant_of_session(session), digits_of_session(session)
        retiring = (
            pool
            for pool in self.retiring.values()
            if digits and pool.variant == variant and digits.startswith(pool.digits[: len(digits)])
        )
        return next(retiring, self.pools.get(variant))

    def _all(self) -> Iterable[Pool]:
        return (*self.pools.values(), *self.retiring.values())

    async def segment(self, request: pb.SegmentRequest, call: Call) -> pb.SegmentResponse:
        """Check the request, and have it answered by a worker of its variant before `call.deadline`.

        Raises ServiceError: what `prompts.check`, `pool`, `Pool.ask` and `Fetch` raise, UNAVAILABLE while the
        gateway is stopping, OVERLOADED while the variant has as many requests as it may have, and
        INVALID_ARGUMENT for an image's address where those are off.
        """
        pool = self._chosen_pool(request, call)
        check(request, self._settings)
        self.check_source(request.image)
        with self.admitted(pool, call):
            await self.bring(request.image, call)
            response = await pool.ask(
                lambda worker: worker.segmentation.Segment, request, call, request.image.id
            )
        self._telemetry.record_stages(pool.variant, response.timings_ms)
        return response

    async def encode_image(self, request: pb.EncodeImageRequest, call: Call) -> pb.EncodeImageResponse:
        """Have an image encoded and kept by its favourite worker, which requests with its id go to.

        Raises ServiceError as `segment` does.
        """
        pool = self._chosen_pool(request, call)
        check_new_image(request, self._settings)
        self.check_source(request.image)
        with self.admitted(pool, call):
            await self.bring(request.image, call)
            # Of many bytes this takes a while.
            id = await asyncio.to_thread(image_id, request.image.data)
            response = await pool.ask(lambda worker: worker.segmentation.EncodeImage, request, call, id)
        self._telemetry.record_stages(pool.variant, response.timings_ms)
        return response

    async def delete_image(self, request: pb.DeleteImageRequest, call: Call) -> pb.DeleteImageResponse:
        """Have every worker forget the image.

        Raises ServiceError: IMAGE_NOT_FOUND if none had it, UNAVAILABLE if none is ready, and what a worker
        raises that may have it still.
        """
        self.check_open()
        check_image_id(request.id)
        workers = [worker for pool in self._all() for worker in pool.ready_workers()]
        if not workers:
            detail = "No worker is ready that could forget the image."
            raise ServiceError(Kind.UNAVAILABLE, detail, retry_after_s=self._settings.probe_interval_s)
        forgotten = await asyncio.gather(*(_forgotten(worker, request, call) for worker in workers))
        if not any(forgotten):
            raise ServiceError(Kind.IMAGE_NOT_FOUND, f"No image {request.id} is kept here.")
        return pb.DeleteImageResponse()

    def _chosen_pool(self, request: pb.SegmentRequest | pb.EncodeImageRequest, call: Call) -> Pool:
        """The pool of the request's variant, whose name is written into the request and the call."""
        self.check_open()
        pool = self.pool(request.variant)
        call.ask_for(pool.variant)
        request.variant = pool.variant
        return pool

    def check_open(self) -> None:
        """Raise UNAVAILABLE while the gateway is stopping."""
        if self.draining:
            raise ServiceError(Kind.UNAVAILABLE, "The gateway is stopping.", retry_after_s=1.0)

    def check_source(self, image: pb.Image) -> None:
        """Raise INVALID_ARGUMENT for an address where those are off."""
        if image.HasField("url") and self._fetch is None:
            detail = (
                "image.url is not taken: this server fetches nothing unless its operator sets "
                "allow_image_urls. Send the image's bytes."
            )
            raise ServiceError(Kind.INVALID_ARGUMENT, detail)

    async def bring(self, image: pb.Image, call: Call) -> None:
        """Put the bytes in the place of an address."""
        if self._fetch and image.HasField("url"):
            started = time.perf_counter()
            image.data = await self._fetch(image.url, call.deadline)
            fetch_ms = (time.perf_counter() - started) * 1000
            self._telemetry.record_stages(call.variant, {"fetch": fetch_ms})
            current().took("fetch", fetch_ms)

    @contextmanager
    def admitted(self, pool: Pool, call: Call) -> Iterator[None]:
        """Count one more request of the pool's variant during the block.

        Raises ServiceError OVERLOADED: what its workers would refuse is refused here, where that costs least.
        """
        self.check_room(pool, call.owner)
        began = time.monotonic()
        with pool.requests.hold(call.owner), self._telemetry.inflight.labels(pool.name).track_inprogress():
            yield
        pool.took(time.monotonic() - began)

    @contextmanager
    def admitted_video(self, pool: Pool, call: Call) -> Iterator[None]:
        """Count one more video of the pool's variant during the block. It takes no place of other requests.

        Raises ServiceError OVERLOADED.
        """
        self.check_video_room(pool, call.owner)
        with pool.videos.hold(call.owner), self._telemetry.inflight.labels(pool.name).track_inprogress():
            yield

    @property
    def only_variant(self) -> str:
        """The variant that is configured, if it is the only one; else empty."""
        return next(iter(self.pools)) if len(self.pools) == 1 else ""

    def crowded(self, *, video: bool = False) -> bool:
        """Whether no variant has a free place. Owners below their share may be admitted all the same."""
        pools = self._all()
        if video:
            return all(pool.videos.total >= self._video_limit(pool) for pool in pools)
        return all(pool.requests.total >= self._limit(pool) for pool in pools)

    def _limit(self, pool: Pool) -> int:
        return min(self._settings.max_waiting, pool.capacity or self._settings.max_waiting)

    def _video_limit(self, pool: Pool) -> int:
        return self._settings.max_videos * max(1, pool.ready)

    def check_any_room(self, owner: str, *, video: bool = False) -> None:
        """Raise OVERLOADED if no variant has room for the owner's request, before its message is received."""
        check = self.check_video_room if video else self.check_room
        refusal: ServiceError | None = None
        for pool in self._all():
            try:
                check(pool, owner)
            except ServiceError as error:
                refusal = refusal or error
            else:
                return
        if refusal:
            raise refusal

    def check_room(self, pool: Pool, owner: str) -> None:
        """Raise OVERLOADED if the owner may not have one more request of the pool's variant."""
        limit = self._limit(pool)
        if not pool.requests.has_room(owner, limit):
            # By then those that are here now are answered.
            retry_s = max(_LEAST_RETRY_S, round(pool.mean_s, 1))
            raise _overloaded(pool.name, pool.requests, owner, limit, "requests waiting or running", retry_s)

    def check_video_room(self, pool: Pool, owner: str) -> None:
        """Raise OVERLOADED if the owner may not have one more video of the pool's variant."""
        limit = self._video_limit(pool)
        if not pool.videos.has_room(owner, limit):
            raise _overloaded(pool.name, pool.videos, owner, limit, "videos being tracked", _VIDEO_RETRY_S)

    def variants(self) -> list[variants_pb2.Variant]:
        """Every configured variant, in the order of the configuration."""
        return [self.variant(name) for name in self.pools]

    def variant(self, name: str) -> variants_pb2.Variant:
        """One configured variant; empty means the default. Raises ServiceError VARIANT_NOT_FOUND."""
        pool = self.pool(name)
        answer = variants_pb2.Variant()
        answer.CopyFrom(pool.info or self._describe(pool.variant))
        answer.workers_ready = pool.ready
        answer.capacity = pool.capacity
        answer.default = pool.variant == self.default
        return answer


async def _forgotten(worker: Worker, request: pb.DeleteImageRequest, call: Call) -> bool:
    """Whether the worker had the image."""
    try:
        await worker.ask(lambda worker: worker.segmentation.DeleteImage, request, call)
    except ServiceError as error:
        if error.kind is Kind.IMAGE_NOT_FOUND:
            return False
        raise
    return True


def _overloaded(
    variant: str, places: FairShare, owner: str, limit: int, what: str, retry_s: float
) -> ServiceError:
    """The refusal of one more of `what`, which names the limit."""
    detail = f"Variant {variant} has {places.total:,} {what}; the limit is {limit:,}"
    if (share := places.share(owner, limit)) < limit:
        detail += f", of which key {owner}, with {places.held(owner):,} of them, has a share of {share:,}"
    return ServiceError(Kind.OVERLOADED, f"{detail}.", retry_after_s=retry_s)


def _check_default(default: str, workers: Workers) -> None:
    variants = [name for name in workers if ARTEFACT not in name]
    if default and default not in variants:
        served = _names(variants) or f"none; {_SET_WORKERS}"
        raise ConfigurationError(f"default_variant is {default!r}, which is not among those served: {served}")


def _set_gauge(telemetry: Telemetry, name: str, ready: int) -> None:
    telemetry.workers_ready.labels(name).set(ready)


def _names(variants: Iterable[str]) -> str:
    return ", ".join(variants)
