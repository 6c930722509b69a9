"""Who may send requests, and how many: the keys of clients, and what each has used of its limits."""

import asyncio
import re
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from service.config import GatewaySettings
from service.errors import Kind, ServiceError
from service.gateway.call import Call
from service.gateway.keys import Key, Keys
from service.sessions.quota_store import MemoryQuotas, QuotaStore, ResortingQuotas
from service.sessions.redis_quotas import RedisQuotas

_BEARER = re.compile(r"bearer +([A-Za-z0-9._~+/-]+=*)", re.IGNORECASE)
# Nobody knows when a request that is under way ends.
_PLACE_RETRY_S = 1.0
# Behind a key's name: the bucket of its videos. No name has a colon.
_VIDEOS = ":videos"


class Admission:
    """The gateway's doorkeeper. Without keys everybody may send as many requests as they like."""

    def __init__(self, keys: Keys | None, quotas: QuotaStore) -> None:
        self._keys, self._quotas = keys, quotas

    @classmethod
    def of(cls, settings: GatewaySettings) -> "Admission":
        """As the settings say. Raises ConfigurationError for a file of keys that cannot be."""
        keys = Keys(settings.keys_file) if settings.keys_file else None
        quotas: QuotaStore = MemoryQuotas()
        if keys and settings.redis_url:
            quotas = ResortingQuotas(RedisQuotas(settings.redis_url), quotas)
        return cls(keys, quotas)

    @property
    def keyed(self) -> bool:
        """Whether requests need a key."""
        return self._keys is not None

    def key(self, authorization: str | None) -> Key | None:
        """The key of a request with this `Authorization`; None where no keys are set.

        Raises ServiceError UNAUTHENTICATED.
        """
        if self._keys is None:
            return None
        if authorization is None:
            raise _unauthenticated('A key is needed: send it as "Authorization: Bearer KEY".')
        found = _BEARER.fullmatch(authorization.strip())
        if found is None:
            raise _unauthenticated('Authorization is not of the form "Bearer KEY".')
        if (key := self._keys.find(found[1])) is None:
            raise _unauthenticated("The key is not known here.")
        return key

    @asynccontextmanager
    async def counted(self, call: Call) -> AsyncIterator[None]:
        """Count the call among those of its key. Raises ServiceError QUOTA_EXCEEDED."""
        await self.spend(call.key)
        async with self.placed(call.key):
            yield

    async def spend(self, key: Key | None) -> None:
        """Count a request against its key's rate. Raises ServiceError QUOTA_EXCEEDED."""
        if key is not None and key.requests_per_s is not None:
            await self._spend(key, key.requests_per_s)

    @asynccontextmanager
    async def placed(self, key: Key | None) -> AsyncIterator[None]:
        """Count a request among those of its key that are under way. Raises ServiceError QUOTA_EXCEEDED."""
        if key is None or key.concurrent is None:
            yield
            return
        id = uuid.uuid4().hex
        try:
            if not await self._quotas.enter(key.name, id, key.concurrent):
                detail = f"Key {key.name} has {key.concurrent:,} requests under way, which is its limit."
                raise ServiceError(Kind.QUOTA_EXCEEDED, detail, retry_after_s=_PLACE_RETRY_S)
            yield
        finally:
            await self._quotas.leave(key.name, id)

    async def pace(self, call: Call) -> None:
        """Wait until the call's key may have one more frame of a video.

        The videos of a key get half of its rate together, so that its other requests find room. Raises
        ServiceError QUOTA_EXCEEDED where the call's deadline comes first.
        """
        key = call.key
        if key is None or key.requests_per_s is None:
            return
        per_s, burst = key.requests_per_s, _burst(key, key.requests_per_s)
        await self._wait(call, key.name + _VIDEOS, per_s / 2, max(1, burst // 2))
        await self._wait(call, key.name, per_s, burst)

    async def _wait(self, call: Call, bucket: str, per_s: float, burst: int) -> None:
        """Take a token of the bucket, as soon as it has one."""
        loop = asyncio.get_running_loop()
        while wait_s := await self._quotas.spend(bucket, per_s, burst):
            if loop.time() + wait_s > call.deadline:
                detail = (
                    f"Key {call.owner}: its videos may have {per_s:g} frames per second here, and the "
                    "deadline "
                    "passes before the next. Go on with the session later."
                )
                raise ServiceError(Kind.QUOTA_EXCEEDED, detail, retry_after_s=wait_s)
            await asyncio.sleep(wait_s)

    async def close(self) -> None:
        await self._quotas.close()

    async def _spend(self, key: Key, per_s: float) -> None:
        burst = _burst(key, per_s)
        wait_s = await self._quotas.spend(key.name, per_s, burst)
        if wait_s:
            detail = f"Key {key.name} may send {per_s:g} requests per second, and {burst:,} at once."
            raise ServiceError(Kind.QUOTA_EXCEEDED, detail, retry_after_s=wait_s)


def _burst(key: Key, per_s: float) -> int:
    # At least one, or nothing would ever be admitted.
    return key.burst or max(1, int(per_s))


def bearer(key: str) -> str:
    """What `Authorization` would be, of a client that cannot set it."""
    return f"Bearer {key}"


def _unauthenticated(detail: str) -> ServiceError:
    return ServiceError(Kind.UNAUTHENTICATED, detail)
