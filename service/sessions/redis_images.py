"""Images that were sent once, kept in Redis: `image_store.ImageStore`, shared by every worker."""

from datetime import datetime

from service.sessions.image_store import until
from service.sessions.redis_store import connect, in_reach

_PREFIX = "efficientsam3:image:"
_STORE = "store of images"
# An image may have megabytes.
_TIMEOUT_S = 5.0


class RedisImages:
    """Images in Redis. Redis's own `maxmemory` bounds them, and drops them if its policy says so."""

    def __init__(self, url: str, ttl_s: int) -> None:
        """`url` as `redis_store.connect` takes it."""
        self._client = connect(url, _TIMEOUT_S)
        self._ttl_s = ttl_s

    async def put(self, owner: str, id: str, data: bytes) -> datetime:
        with in_reach(_STORE):
            await self._client.set(_key(owner, id), data, ex=self._ttl_s)
        return until(self._ttl_s)

    async def get(self, owner: str, id: str) -> bytes | None:
        with in_reach(_STORE):
            data = await self._client.getex(_key(owner, id), ex=self._ttl_s)
        assert not isinstance(data, str)  # see `connect`
        return data

    async def delete(self, owner: str, id: str) -> bool:
        with in_reach(_STORE):
            return bool(await self._client.delete(_key(owner, id)))

    async def close(self) -> None:
        await self._client.aclose()


def _key(owner: str, id: str) -> str:
    # All ids are of one length, so that no owner's name can reach into another's keys.
    return f"{_PREFIX}{owner}:{id}"
