"""The store of image embeddings that workers share."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable

import pytest
import redis.asyncio

from service.errors import Kind, ServiceError
from service.sessions.embedding_store import EmbeddingStore
from service.sessions.redis_embeddings import RedisEmbeddings
from tests.redis_server import RedisServer
from tests.sessions.conftest import ages_in_redis

TTL_S = 1000
A, B = (f"sha256:{hashlib.sha256(name).hexdigest()}" for name in (b"a", b"b"))
DATA = b"\x00\xff\r\n" * 100


def run(url: str, scenario: Callable[[EmbeddingStore], Awaitable[None]]) -> None:
    async def whole() -> None:
        store = RedisEmbeddings(url, "origin", TTL_S)
        try:
            await scenario(store)
        finally:
            await store.close()

    asyncio.run(whole())


def test_what_was_put_comes_back_where_values_are_of_the_same_origin(redis_server: RedisServer) -> None:
    async def scenario(store: EmbeddingStore) -> None:
        await store.put(A, DATA)
        assert [await store.get(image) for image in (A, B)] == [DATA, None]
        for origin, found in (("origin", DATA), ("another", None)):
            other = RedisEmbeddings(redis_server.url, origin, TTL_S)
            assert await other.get(A) == found
            await other.close()
        async with redis.asyncio.Redis.from_url(redis_server.url) as client:
            assert await client.keys() == [f"efficientsam3:embedding:origin:{A}".encode()]

    run(redis_server.url, scenario)


def test_it_is_gone_after_its_time_whoever_used_it(redis_server: RedisServer) -> None:
    age = ages_in_redis(redis_server.url, b"efficientsam3:embedding:")

    async def scenario(store: EmbeddingStore) -> None:
        for image in (A, B):
            await store.put(image, DATA)
        await age(0.6 * TTL_S)
        assert await store.get(A) == DATA
        await store.put(B, DATA)
        await age(0.6 * TTL_S)
        assert [await store.get(image) for image in (A, B)] == [None, DATA]

    run(redis_server.url, scenario)


def test_a_redis_that_is_gone_is_store_unavailable_and_its_return_is_noticed(
    redis_server: RedisServer,
) -> None:
    async def scenario(store: EmbeddingStore) -> None:
        await store.put(A, DATA)
        redis_server.kill()
        for work in (store.put(A, DATA), store.get(A)):
            with pytest.raises(ServiceError) as failure:
                await work
            assert failure.value.kind is Kind.STORE_UNAVAILABLE
        redis_server.start()
        assert await store.get(A) == DATA

    run(redis_server.url, scenario)
