"""From a request to the variant it asks for. HTTP and gRPC call this, and nothing beyond it."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from service.config import GatewaySettings
from service.errors import Kind, ServiceError
from service.gateway.call import Call
from service.gateway.pool import Pool
from service.pb.efficientsam3.v1 import segmentation_pb2, variants_pb2
from service.prompts import check
from service.telemetry import Telemetry

# What is known of a variant before a worker of it was ever ready.
Describe = Callable[[str], variants_pb2.Variant]

_SET_WORKERS = (
    """set workers to the addresses of its workers, EFFICIENTSAM3_WORKERS='{"VARIANT": ["host:port"]}'"""
)


class ConfigurationError(Exception):
    """Settings contradict each other; the message names them."""


class Router:
    """The configured variants and their workers. Build it inside the event loop."""

    def __init__(self, settings: GatewaySettings, telemetry: Telemetry, describe: Describe) -> None:
        """Start watching the workers of `settings.workers`.

        Raises ConfigurationError if `settings.default_variant` is not among them.
        """
        default = settings.default_variant or next(iter(settings.workers), "")
        if default and default not in settings.workers:
            served = _names(settings.workers) or f"none; {_SET_WORKERS}"
            raise ConfigurationError(
                f"default_variant is {default!r}, which is not among those served: {served}"
            )
        self.default = default
        self.draining = False
        self.pools: dict[str, Pool] = {}
        self._settings = settings
        self._telemetry = telemetry
        self._describe = describe
        for variant, addresses in settings.workers.items():
            telemetry.declare_variant(variant)
            told = partial(_set_gauge, telemetry, variant)
            pool = self.pools[variant] = Pool(variant, settings.probe_interval_s, told)
            for address in addresses:
                pool.add(address)

    async def close(self) -> None:
        await asyncio.gather(*(pool.close() for pool in self.pools.values()))

    def pool(self, variant: str) -> Pool:
        """The workers of `variant`; empty means the default. Raises ServiceError VARIANT_NOT_FOUND."""
        if pool := self.pools.get(variant or self.default):
            return pool
        asked = f"There is no variant {variant[:100]!r} here" if variant else "No variant is configured"
        raise ServiceError(Kind.VARIANT_NOT_FOUND, f"{asked}; configured: {_names(self.pools) or 'none'}.")

    async def segment(
        self, request: segmentation_pb2.SegmentRequest, call: Call
    ) -> segmentation_pb2.SegmentResponse:
        """Check the request, and have it answered by a worker of its variant before `call.deadline`.

        Raises ServiceError: what `prompts.check`, `pool` and `Pool.segment` raise, UNAVAILABLE while the
        gateway is stopping, and OVERLOADED while the variant has as many requests as it may have.
        """
        if self.draining:
            raise ServiceError(Kind.UNAVAILABLE, "The gateway is stopping.", retry_after_s=1.0)
        pool = self.pool(request.variant)
        call.variant = request.variant = pool.variant
        check(request, self._settings)
        with self._admitted(pool):
            response = await pool.segment(request, call.deadline, call.request_id)
        self._telemetry.record_stages(pool.variant, response.timings_ms)
        return response

    @contextmanager
    def _admitted(self, pool: Pool) -> Iterator[None]:
        """Count one more request of the pool's variant. Raises ServiceError OVERLOADED."""
        limit = self._settings.max_waiting
        if pool.admitted >= limit:
            detail = f"Variant {pool.variant} has {limit:,} requests waiting or running, which is the limit."
            raise ServiceError(Kind.OVERLOADED, detail, retry_after_s=1.0)
        pool.admitted += 1
        try:
            with self._telemetry.inflight.labels(pool.variant).track_inprogress():
                yield
        finally:
            pool.admitted -= 1

    def variants(self) -> list[variants_pb2.Variant]:
        """Every configured variant, in the order of the configuration."""
        return [self.variant(name) for name in self.pools]

    def variant(self, name: str) -> variants_pb2.Variant:
        """One configured variant; empty means the default. Raises ServiceError VARIANT_NOT_FOUND."""
        pool = self.pool(name)
        answer = variants_pb2.Variant()
        answer.CopyFrom(pool.info or self._describe(pool.variant))
        answer.workers_ready = pool.ready
        answer.default = pool.variant == self.default
        return answer


def _set_gauge(telemetry: Telemetry, variant: str, ready: int) -> None:
    telemetry.workers_ready.labels(variant).set(ready)


def _names(variants: dict[str, Pool] | dict[str, list[str]]) -> str:
    return ", ".join(variants)
