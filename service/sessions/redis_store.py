"""The one door to Redis. It will hold each tracking session's memory; today it says whether it is there."""

import redis.asyncio
from redis.exceptions import RedisError

from service.errors import Kind, ServiceError


class RedisStore:
    """A session store in Redis. One per process, used from one event loop."""

    def __init__(self, url: str, *, timeout_s: float = 1.0) -> None:
        """`url` is `redis://`, `rediss://` or `unix://`; nothing connects before the first call."""
        self._client = redis.asyncio.Redis.from_url(
            url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s, decode_responses=False
        )

    async def ping(self) -> None:
        """Return when the store answers. Raises `store_unavailable` when it does not within the timeout."""
        try:
            await self._client.ping()
        except (RedisError, OSError) as error:
            raise ServiceError(
                Kind.STORE_UNAVAILABLE, f"The session store does not answer: {type(error).__name__}."
            ) from error

    async def close(self) -> None:
        await self._client.aclose()
