"""The contract of a store of images, for each that keeps it, and what each does beyond it."""

import asyncio
import hashlib
from datetime import UTC, datetime, timedelta

import pytest
import redis.asyncio

from service.errors import Kind, ServiceError
from service.sessions.image_store import ImageStore, MemoryImages
from service.sessions.redis_images import RedisImages
from tests.redis_server import RedisServer
from tests.sessions import conftest
from tests.sessions.conftest import Clock, Run, ages_in_redis, runs

TTL_S = 1000
A, B, C = (f"sha256:{hashlib.sha256(name).hexdigest()}" for name in (b"a", b"b", b"c"))
DATA = b"\x00\xff\r\n" * 100


Kept = conftest.Kept[ImageStore]


def in_memory(max_bytes: int = 10_000) -> Kept:
    clock = Clock()
    return Kept(MemoryImages(TTL_S, max_bytes, clock), clock.age)


def in_redis(url: str) -> Kept:
    return Kept(RedisImages(url, TTL_S), ages_in_redis(url, b"efficientsam3:image:"))


@pytest.fixture(params=["memory", "redis"])
def run(request: pytest.FixtureRequest) -> Run:
    """`run(scenario)`: the scenario with an empty store of each kind."""
    return runs(request, in_memory, in_redis)


def test_what_was_put_comes_back_to_its_owner_alone(run: Run) -> None:
    async def scenario(kept: Kept) -> None:
        await kept.store.put("", A, DATA)
        await kept.store.put("key-1", B, b"b")
        assert await kept.store.get("", A) == DATA
        assert await kept.store.get("key-1", B) == b"b"
        for owner, id in (("key-1", A), ("", B), ("key", B), ("", C)):
            assert await kept.store.get(owner, id) is None
            assert not await kept.store.delete(owner, id)
        assert await kept.store.get("", A) == DATA

    run(scenario)


def test_equal_bytes_of_two_owners_are_two_images(run: Run) -> None:
    async def scenario(kept: Kept) -> None:
        await kept.store.put("one", A, DATA)
        await kept.store.put("two", A, DATA)
        assert await kept.store.delete("one", A)
        assert await kept.store.get("one", A) is None
        assert await kept.store.get("two", A) == DATA

    run(scenario)


def test_what_is_deleted_is_gone_and_was_there_once(run: Run) -> None:
    async def scenario(kept: Kept) -> None:
        await kept.store.put("", A, DATA)
        assert [await kept.store.delete("", A) for _ in range(2)] == [True, False]
        assert await kept.store.get("", A) is None

    run(scenario)


def test_it_says_until_when_in_utc(run: Run) -> None:
    async def scenario(kept: Kept) -> None:
        before = datetime.now(UTC)
        until = await kept.store.put("", A, DATA)
        assert until.tzinfo is UTC
        assert before <= until - timedelta(seconds=TTL_S) <= datetime.now(UTC)

    run(scenario)


def test_what_nobody_uses_is_gone_after_its_time_and_every_use_begins_it_anew(run: Run) -> None:
    async def scenario(kept: Kept) -> None:
        for id in (A, B, C):
            await kept.store.put("", id, DATA)
        await kept.age(0.6 * TTL_S)
        assert await kept.store.get("", A) == DATA
        await kept.store.put("", B, DATA)
        await kept.age(0.6 * TTL_S)
        assert await kept.store.get("", A) == DATA
        assert await kept.store.get("", B) == DATA
        assert await kept.store.get("", C) is None
        await kept.age(TTL_S + 1)
        assert await kept.store.get("", A) is None
        assert not await kept.store.delete("", B)

    run(scenario)


def test_memory_is_bounded_and_the_least_used_makes_room() -> None:
    async def scenario() -> None:
        store = in_memory(max_bytes=1000).store
        await store.put("", A, bytes(400))
        await store.put("", B, bytes(400))
        await store.put("", A, bytes(400))  # again: no room is needed
        await store.put("", C, bytes(600))
        assert [await store.get("", id) is not None for id in (A, B, C)] == [True, False, True]
        assert await store.delete("", A)
        await store.put("", B, bytes(400))
        assert await store.get("", C) == bytes(600), "what was deleted counts no more"
        await store.put("another", B, bytes(1000))
        assert await store.get("", B) is None and await store.get("", C) is None

    asyncio.run(scenario())


def test_what_has_expired_makes_room_first() -> None:
    async def scenario() -> None:
        kept = in_memory(max_bytes=1000)
        await kept.store.put("", A, bytes(600))
        await kept.age(0.6 * TTL_S)
        await kept.store.put("", B, bytes(400))
        await kept.age(0.6 * TTL_S)
        await kept.store.put("", C, bytes(600))
        assert await kept.store.get("", B) == bytes(400)

    asyncio.run(scenario())


def test_an_image_larger_than_the_bound_is_refused_and_costs_no_other() -> None:
    async def scenario() -> None:
        store = in_memory(max_bytes=1000).store
        await store.put("", A, bytes(1000))
        with pytest.raises(ServiceError, match=r"1,001 bytes, .*: 1,000 bytes") as refused:
            await store.put("", B, bytes(1001))
        assert refused.value.kind is Kind.PAYLOAD_TOO_LARGE
        assert await store.get("", A) == bytes(1000)

    asyncio.run(scenario())


def test_a_redis_that_is_gone_is_store_unavailable_and_its_return_is_noticed(
    redis_server: RedisServer,
) -> None:
    async def scenario() -> None:
        store = RedisImages(redis_server.url, TTL_S)
        try:
            await store.put("", A, DATA)
            redis_server.kill()
            for work in (store.put("", A, DATA), store.get("", A), store.delete("", A)):
                with pytest.raises(ServiceError) as failure:
                    await work
                assert failure.value.kind is Kind.STORE_UNAVAILABLE
            redis_server.start()
            assert await store.get("", A) == DATA
        finally:
            await store.close()

    asyncio.run(scenario())


def test_a_redis_without_room_is_store_unavailable(redis_server: RedisServer) -> None:
    async def scenario() -> None:
        store = RedisImages(redis_server.url, TTL_S)
        try:
            async with redis.asyncio.Redis.from_url(redis_server.url) as client:
                await client.config_set("maxmemory", "1")
                await client.config_set("maxmemory-policy", "noeviction")
            with pytest.raises(ServiceError) as failure:
                await store.put("", A, DATA)
            assert failure.value.kind is Kind.STORE_UNAVAILABLE
        finally:
            await store.close()

    asyncio.run(scenario())
