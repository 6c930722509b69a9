"""What keys have used of their limits, counted in Redis: `quota_store.QuotaStore`, shared by every gateway.

Of an owner there are `efficientsam3:quota:{OWNER}:rate` and `:places`, in one slot of a cluster. Both vanish
by themselves: a full bucket, and places that no gateway holds any more.
"""

import asyncio
from contextlib import suppress
from importlib.resources import files

from service.errors import ServiceError
from service.sessions.redis_store import connect, in_reach

_PREFIX = "efficientsam3:quota:"
_STORE = "store of quotas"
# Every request of a key waits for it.
_TIMEOUT_S = 0.5
# How long a gateway that was killed holds the places that it had.
_LEASE_S = 30.0


class RedisQuotas:
    """Counts in Redis. Places are leases, renewed while they are held."""

    def __init__(self, url: str, lease_s: float = _LEASE_S) -> None:
        """`url` as `redis_store.connect` takes it."""
        self._client = connect(url, _TIMEOUT_S)
        folder = files("service.sessions").joinpath("lua")
        self._spend, self._enter = (
            self._client.register_script(folder.joinpath(f"{name}.lua").read_text("utf-8"))
            for name in ("spend", "enter")
        )
        self._lease_s = lease_s
        # The places that are held, each with how many its owner may have.
        self._held: dict[tuple[str, str], int] = {}
        self._renewing: asyncio.Task[None] | None = None

    async def spend(self, owner: str, per_s: float, burst: int) -> float:
        with in_reach(_STORE):
            wait_ms = await self._spend(keys=[_key(owner, "rate")], args=[1000 / per_s, 1000 * burst / per_s])
        return float(wait_ms) / 1000

    async def enter(self, owner: str, id: str, most: int) -> bool:
        if self._renewing is None:
            self._renewing = asyncio.create_task(self._renew())
        # Before it is taken: who stops waiting for it gives it back all the same.
        self._held[owner, id] = most
        try:
            taken = await self._take(owner, id, most)
        except ServiceError:
            del self._held[owner, id]
            raise
        if not taken:
            del self._held[owner, id]
        return taken

    async def leave(self, owner: str, id: str) -> None:
        if self._held.pop((owner, id), None) is not None:
            await self._give_back(owner, id)

    async def close(self) -> None:
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.gather(self._renewing, return_exceptions=True)
        await self._client.aclose()

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self._lease_s / 3)
            for (owner, id), most in list(self._held.items()):
                with suppress(ServiceError):
                    await self._take(owner, id, most)
                    if (owner, id) not in self._held:
                        # It was given back while it was renewed.
                        await self._give_back(owner, id)

    async def _take(self, owner: str, id: str, most: int) -> bool:
        with in_reach(_STORE):
            lease_ms = round(1000 * self._lease_s)
            return bool(await self._enter(keys=[_key(owner, "places")], args=[id, most, lease_ms]))

    async def _give_back(self, owner: str, id: str) -> None:
        with in_reach(_STORE):
            await self._client.zrem(_key(owner, "places"), id)


def _key(owner: str, what: str) -> str:
    return f"{_PREFIX}{{{owner}}}:{what}"
