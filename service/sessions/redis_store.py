"""The one door to Redis: its client, its failures, and how it is."""

from collections.abc import Iterator
from contextlib import contextmanager

import redis.asyncio
from redis.exceptions import RedisError, ResponseError

from service.config import SENTINEL
from service.errors import Kind, ServiceError
from service.sessions.sentinel import connect_to_master

# At most, of a client. Redis does one thing at a time: more would only wait there.
_CONNECTIONS = 32


def connect(url: str, timeout_s: float) -> "redis.asyncio.Redis":
    """A client of Redis for one event loop; nothing connects before the first command.

    `url` is a setting `redis_url`. `timeout_s` bounds connecting, each wait for an answer, and the wait for a
    connection where more commands are under way than there are to be connections.
    """
    bounds = {"socket_timeout": timeout_s, "socket_connect_timeout": timeout_s}
    if SENTINEL.fullmatch(url):
        return connect_to_master(url, bounds, max_connections=_CONNECTIONS, timeout=timeout_s)
    pool = redis.asyncio.BlockingConnectionPool.from_url(
        url, max_connections=_CONNECTIONS, timeout=timeout_s, **bounds
    )
    return redis.asyncio.Redis.from_pool(pool)


@contextmanager
def in_reach(store: str) -> Iterator[None]:
    """Turn what Redis raises into `store_unavailable`; `store` says whose store it is ("session store")."""
    try:
        yield
    except ResponseError as error:
        # Of what it says, only the first word is a code; the rest may name keys.
        detail = (
            f"The {store} refuses a command: {str(error).partition(' ')[0]}. Redis 6.2 or later is needed."
        )
        raise ServiceError(Kind.STORE_UNAVAILABLE, detail) from error
    except (RedisError, OSError) as error:
        detail = f"The {store} does not answer: {type(error).__name__}."
        raise ServiceError(Kind.STORE_UNAVAILABLE, detail) from error


class RedisStore:
    """A session store in Redis. One per process, used from one event loop."""

    def __init__(self, url: str, *, timeout_s: float = 1.0) -> None:
        self._client = connect(url, timeout_s)

    async def ping(self) -> None:
        """Return when the store answers. Raises `store_unavailable` when it does not within the timeout."""
        with in_reach("session store"):
            await self._client.ping()

    async def used_bytes(self) -> int:
        """Memory that it holds now. Raises as `ping` does."""
        with in_reach("session store"):
            return int((await self._client.info("memory"))["used_memory"])

    async def close(self) -> None:
        await self._client.aclose()
