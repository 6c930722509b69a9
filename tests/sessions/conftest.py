"""What both contracts of stores are tested with: each kind, in memory and in Redis, and time that passes."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import pytest
import redis.asyncio

from tests.redis_server import RedisServer


class Closes(Protocol):
    async def close(self) -> None: ...


Store = TypeVar("Store", bound=Closes)
Age = Callable[[float], Awaitable[None]]


class Kept(Generic[Store]):
    """A store under test, and the passing of time for what it keeps."""

    def __init__(self, store: Store, age: Age) -> None:
        self.store = store
        # Lets so many seconds pass.
        self.age = age


class Clock:
    """A store's own time, seconds."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    async def age(self, seconds: float) -> None:
        self.now += seconds


def ages_in_redis(url: str, prefix: bytes) -> Age:
    """Lets time pass for all keys, which begin like this."""

    async def age(seconds: float) -> None:
        async with redis.asyncio.Redis.from_url(url) as client:
            for key in await client.keys():
                assert key.startswith(prefix)
                await client.pexpire(key, await client.pttl(key) - int(seconds * 1000))

    return age


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One redis-server for the tests that leave it running."""
    server = RedisServer(Path(tmp_path_factory.mktemp("redis"), "data"))
    server.start()
    yield server
    server.stop()


Run = Callable[[Callable[[Any], Awaitable[None]]], None]


def runs(
    request: pytest.FixtureRequest, in_memory: Callable[[], Kept[Any]], in_redis: Callable[[str], Kept[Any]]
) -> Run:
    """`run(scenario)`: the scenario with an empty store of the kind that the request's parameter names."""

    def running(scenario: Callable[[Any], Awaitable[None]]) -> None:
        async def whole() -> None:
            if request.param == "memory":
                kept = in_memory()
            else:
                url = request.getfixturevalue("server").url
                async with redis.asyncio.Redis.from_url(url) as client:
                    await client.flushall()
                kept = in_redis(url)
            try:
                await scenario(kept)
            finally:
                await kept.store.close()

        asyncio.run(whole())

    return running
