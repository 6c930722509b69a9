"""The contract of what keys have used, for each that counts it, and what Redis does beyond it."""

import asyncio

import pytest
import redis.asyncio

from service.errors import Kind, ServiceError
from service.sessions.quota_store import MemoryQuotas, QuotaStore, ResortingQuotas
from service.sessions.redis_quotas import RedisQuotas
from tests.redis_server import RedisServer
from tests.sessions import conftest
from tests.sessions.conftest import Age, Clock, Run, ages_in_redis, runs

PREFIX = "efficientsam3:quota:{"

Kept = conftest.Kept[QuotaStore]


def in_memory() -> Kept:
    clock = Clock()
    return Kept(MemoryQuotas(clock), clock.age)


def in_redis(url: str) -> Kept:
    return Kept(RedisQuotas(url), ages_in_redis(url, PREFIX.encode()))


@pytest.fixture(params=["memory", "redis"])
def run(request: pytest.FixtureRequest) -> Run:
    """`run(scenario)`: the scenario with nothing counted yet, in each kind."""
    return runs(request, in_memory, in_redis)


def leases_age_in_redis(url: str) -> Age:
    """Lets time pass for the leases of places."""

    async def age(seconds: float) -> None:
        async with redis.asyncio.Redis.from_url(url) as client:
            for key in await client.keys(f"{PREFIX}*:places"):
                for id in await client.zrange(key, 0, -1):
                    await client.zincrby(key, -1000 * seconds, id)

    return age


def test_a_bucket_holds_its_burst_and_fills_by_its_rate(run: Run) -> None:
    async def scenario(kept: Kept) -> None:
        # Slow enough that nothing comes by itself while the test runs.
        spend = lambda owner: kept.store.spend(owner, 0.003, 3)  # noqa: E731
        assert [await spend("a") for _ in range(3)] == [0.0, 0.0, 0.0]
        wait_s = await spend("a")
        assert 300 < wait_s <= 334
        # What is refused is not counted, and others have their own.
        assert wait_s - 20 < await spend("a") <= wait_s
        assert await spend("b") == 0.0
        await kept.age(wait_s + 1)
        assert await spend("a") == 0.0
        assert await spend("a") > 0.0
        # It holds no more than its burst, however long nobody came.
        await kept.age(100_000)
        assert [await spend("a") == 0.0 for _ in range(4)] == [True, True, True, False]

    run(scenario)


def test_a_rate_is_exact_where_a_request_takes_no_whole_millisecond(run: Run) -> None:
    async def scenario(kept: Kept) -> None:
        # Together they take a twentieth of a millisecond; rounded up, each would take a whole one.
        per_s = burst = 1_000_000
        await asyncio.gather(*(kept.store.spend("a", per_s, burst) for _ in range(50)))
        assert await kept.store.spend("a", per_s, 1) < 0.001

    run(scenario)


def test_an_owner_has_so_many_places(run: Run) -> None:
    async def scenario(kept: Kept) -> None:
        store = kept.store
        assert await store.enter("a", "1", 2) and await store.enter("a", "2", 2)
        assert not await store.enter("a", "3", 2)
        # Whoever has one keeps it, and others have their own.
        assert await store.enter("a", "1", 2) and await store.enter("b", "1", 1)
        await store.leave("a", "1")
        await store.leave("a", "1")
        await store.leave("a", "unknown")
        assert await store.enter("a", "3", 2)
        assert not await store.enter("a", "4", 2)
        # A limit that was lowered holds for who comes, one that was raised as well.
        assert await store.enter("a", "4", 3)
        assert not await store.enter("a", "5", 1)

    run(scenario)


def test_gateways_count_together_in_redis(server: RedisServer) -> None:
    async def scenario() -> None:
        one, other = RedisQuotas(server.url), RedisQuotas(server.url)
        try:
            assert await one.spend("together", 0.003, 2) == await other.spend("together", 0.003, 2) == 0.0
            assert await one.spend("together", 0.003, 2) > 0.0
            assert await one.enter("together", "1", 1)
            assert not await other.enter("together", "2", 1)
            await one.leave("together", "1")
            assert await other.enter("together", "2", 1)
            # Only who has a place gives it back.
            await one.leave("together", "2")
            assert not await one.enter("together", "3", 1)
        finally:
            await one.close()
            await other.close()

    asyncio.run(scenario())


def test_places_of_a_killed_gateway_are_free_after_their_lease(server: RedisServer) -> None:
    async def scenario() -> None:
        killed, other = RedisQuotas(server.url), RedisQuotas(server.url)
        assert await killed.enter("killed", "1", 1)
        await killed.close()
        try:
            assert not await other.enter("killed", "2", 1)
            await leases_age_in_redis(server.url)(29)
            assert not await other.enter("killed", "2", 1)
            await leases_age_in_redis(server.url)(1)
            assert await other.enter("killed", "2", 1)
        finally:
            await other.close()

    asyncio.run(scenario())


def test_places_are_held_for_as_long_as_they_are_needed(server: RedisServer) -> None:
    async def scenario() -> None:
        holding = RedisQuotas(server.url, lease_s=0.3)
        async with redis.asyncio.Redis.from_url(server.url) as client:
            try:
                assert await holding.enter("held", "1", 1)
                key = f"{PREFIX}held}}:places"
                first = last = await client.zscore(key, "1")
                # Two leases later it is held still.
                while last < first + 600:
                    last = await client.zscore(key, "1") or last
                    await asyncio.sleep(0.01)
            finally:
                await holding.close()

    asyncio.run(scenario())


def test_without_redis_each_gateway_counts_alone_and_says_so_once(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        shared = RedisQuotas(redis_server.url)
        quotas = ResortingQuotas(shared, MemoryQuotas(Clock()), rest_s=0.0)
        try:
            assert await quotas.enter("a", "1", 1)
            redis_server.kill()
            with pytest.raises(ServiceError) as failure:
                await shared.spend("a", 1, 1)
            assert failure.value.kind is Kind.STORE_UNAVAILABLE
            assert [await quotas.spend("a", 1, 2) for _ in range(3)] == [0.0, 0.0, 1.0]
            assert await quotas.enter("a", "2", 1)
            assert not await quotas.enter("a", "3", 1)
            await quotas.leave("a", "1")
            redis_server.start()
            # What was held before Redis went away is given back as well, now or when its lease ends.
            await quotas.leave("a", "2")
            assert await quotas.spend("a", 0.001, 1) == 0.0
        finally:
            await quotas.close()

    with caplog.at_level("INFO", "service.sessions.quota_store"):
        asyncio.run(scenario())
    told = [record.message for record in caplog.records]
    assert len(told) == 2
    assert "does not answer" in told[0] and "by each gateway alone" in told[0]
    assert "in Redis again" in told[1]


@pytest.mark.parametrize("damaged", ["", "nan", "inf", "-1e300", "1e300", "0x7f", "no number", "\x00\xff"])
def test_a_damaged_count_in_redis_is_counted_anew(redis_server: RedisServer, damaged: str) -> None:
    async def scenario() -> None:
        quotas = RedisQuotas(redis_server.url)
        try:
            assert await quotas.spend("a", 0.01, 2) == 0.0
            async with redis.asyncio.Redis.from_url(redis_server.url) as client:
                assert await client.set(f"{PREFIX}a}}:rate", damaged, keepttl=True)
            assert await quotas.spend("a", 0.01, 2) == 0.0
            assert 0.0 < await quotas.spend("a", 0.01, 2) <= 200.0
        finally:
            await quotas.close()

    asyncio.run(scenario())
