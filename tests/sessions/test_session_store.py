"""The contract of a store of tracking sessions, for each that keeps them, and what Redis does beyond it."""

import asyncio
from collections.abc import Awaitable

import pytest
import redis.asyncio

from service.errors import Kind, ServiceError
from service.sessions.redis_sessions import RedisSessions
from service.sessions.session_store import (
    START,
    BehindError,
    ClaimLostError,
    Cursor,
    MemorySessions,
    SessionStore,
)
from tests.redis_server import RedisServer
from tests.sessions import conftest
from tests.sessions.conftest import Clock, Run, ages_in_redis, runs

TTL_S = 1000.0
PARTS = {"head": b"\x00\xff\r\n", "m:1:0": b"memory"}
FIRST, SECOND = Cursor(0, 0), Cursor(1, 0)


Kept = conftest.Kept[SessionStore]


def in_memory() -> Kept:
    clock = Clock()
    return Kept(MemorySessions(clock), clock.age)


def in_redis(url: str) -> Kept:
    return Kept(RedisSessions(url), ages_in_redis(url, b"efficientsam3:session:{"))


@pytest.fixture(params=["memory", "redis"])
def run(request: pytest.FixtureRequest) -> Run:
    """`run(scenario)`: the scenario with an empty store of each kind."""
    return runs(request, in_memory, in_redis)


async def _kind(work: Awaitable[object]) -> Kind:
    with pytest.raises(ServiceError) as failure:
        await work
    return failure.value.kind


def test_a_session_is_what_its_owner_wrote_and_nobody_elses(run: Run) -> None:
    async def scenario(kept: Kept) -> None:
        store = kept.store
        await store.create("", "a", TTL_S, PARTS)
        await store.create("key-1", "b", TTL_S, {})
        stored = await store.look("", "a")
        assert (stored.cursor, stored.parts, stored.ttl_s) == (START, PARTS, TTL_S)
        assert TTL_S - 5 < stored.left_s <= TTL_S
        for owner, id in (("key-1", "a"), ("", "b"), ("", "c")):
            for work in (store.look(owner, id), store.claim(owner, id), store.fork(owner, id, "d")):
                assert await _kind(work) is Kind.SESSION_NOT_FOUND
            assert not await store.delete(owner, id)

    run(scenario)


def test_an_owner_has_no_more_sessions_than_are_allowed(run: Run) -> None:
    async def scenario(kept: Kept) -> None:
        store = kept.store
        for id in "ab":
            await store.admit("key-1", id, 2)
            await store.create("key-1", id, TTL_S, PARTS)
        # One that is made again is no other, and other owners have their own.
        await store.admit("key-1", "a", 2)
        await store.admit("", "c", 2)
        with pytest.raises(ServiceError, match="2 sessions already, and 2 are allowed") as refused:
            await store.admit("key-1", "c", 2)
        assert refused.value.kind is Kind.QUOTA_EXCEEDED
        await store.delete("key-1", "a")
        await store.admit("key-1", "c", 2)
        await store.create("key-1", "c", 2 * TTL_S, {})
        await kept.age(TTL_S + 1)
        await store.admit("key-1", "d", 2)

    run(scenario)


def test_many_sessions_are_opened_at_once_and_counted(run: Run) -> None:
    """More than there are connections to a store, and than a client of it begins at once."""

    async def scenario(kept: Kept) -> None:
        store, ids = kept.store, [f"s{index}" for index in range(300)]
        await asyncio.gather(*(store.create("key-1", id, TTL_S, PARTS) for id in ids))
        await asyncio.gather(*(store.admit("key-1", id, len(ids)) for id in ids))
        assert await _kind(store.admit("key-1", "more", len(ids))) is Kind.QUOTA_EXCEEDED
        await store.delete("key-1", ids[0])
        await store.admit("key-1", "more", len(ids))

    run(scenario)


def test_making_a_session_again_leaves_it_as_it_is(run: Run) -> None:
    async def scenario(kept: Kept) -> None:
        store = kept.store
        claim = await store.create("", "a", TTL_S, PARTS)
        await store.commit("", "a", claim, (START, FIRST), {})
        with pytest.raises(ClaimLostError):
            await store.create("", "a", TTL_S, {})
        await store.fork("", "a", "b")
        other, _ = await store.claim("", "b")
        await store.commit("", "b", other, (FIRST, SECOND), {})
        assert (await store.fork("", "a", "b")).cursor == SECOND
        assert (await store.look("", "a")).cursor == FIRST

    run(scenario)


def test_a_commit_moves_the_cursor_and_changes_the_parts_it_names(run: Run) -> None:
    async def scenario(kept: Kept) -> None:
        store = kept.store
        claim = await store.create("", "a", TTL_S, PARTS)
        await store.commit("", "a", claim, (START, FIRST), {"head": b"", "x": b"1"}, ["m:1:0", "nothing"])
        stored = await store.look("", "a")
        assert (stored.cursor, stored.parts) == (FIRST, {"head": b"", "x": b"1"})
        await store.commit("", "a", claim, (FIRST, Cursor(0, 1)), {})
        assert (await store.look("", "a")).cursor == Cursor(0, 1)

    run(scenario)


def test_a_commit_done_again_changes_nothing_and_a_wrong_cursor_is_refused(run: Run) -> None:
    async def scenario(kept: Kept) -> None:
        store = kept.store
        claim = await store.create("", "a", TTL_S, {})
        await store.commit("", "a", claim, (START, FIRST), {"x": b"1"})
        await store.commit("", "a", claim, (START, FIRST), {"x": b"2"})
        with pytest.raises(BehindError):
            await store.commit("", "a", claim, (SECOND, Cursor(2, 0)), {"x": b"3"})
        stored = await store.look("", "a")
        assert (stored.cursor, stored.parts) == (FIRST, {"x": b"1"})

    run(scenario)


def test_the_newest_claim_alone_writes(run: Run) -> None:
    async def scenario(kept: Kept) -> None:
        store = kept.store
        old = await store.create("", "a", TTL_S, PARTS)
        claim, stored = await store.claim("", "a")
        assert claim.epoch > old.epoch and stored.parts == PARTS
        for work in (
            store.commit("", "a", old, (START, FIRST), {"x": b"old"}),
            store.restore("", "a", old, stored),
        ):
            with pytest.raises(ClaimLostError):
                await work
        await store.commit("", "a", claim, (START, FIRST), {"x": b"new"})
        # What the newer one did is not said to be done by the older one.
        with pytest.raises(ClaimLostError):
            await store.commit("", "a", old, (START, FIRST), {"x": b"old"})
        assert (await store.look("", "a")).parts == {**PARTS, "x": b"new"}

    run(scenario)


def test_restoring_writes_everything_anew(run: Run) -> None:
    async def scenario(kept: Kept) -> None:
        store = kept.store
        claim = await store.create("", "a", TTL_S, PARTS)
        stored = await store.look("", "a")
        await store.commit("", "a", claim, (START, SECOND), {"lost": b""}, ["head"])
        await store.restore("", "a", claim, stored)
        again = await store.look("", "a")
        assert (again.cursor, again.parts, again.ttl_s) == (START, PARTS, TTL_S)

    run(scenario)


def test_a_fork_is_a_session_of_its_own(run: Run) -> None:
    async def scenario(kept: Kept) -> None:
        store = kept.store
        claim = await store.create("me", "a", TTL_S, PARTS)
        await store.commit("me", "a", claim, (START, FIRST), {})
        stored = await store.fork("me", "a", "b")
        assert (stored.cursor, stored.parts, stored.ttl_s) == (FIRST, PARTS, TTL_S)
        other, _ = await store.claim("me", "b")
        await store.commit("me", "b", other, (FIRST, SECOND), {"head": b"b"})
        await store.commit("me", "a", claim, (FIRST, SECOND), {"head": b"a"})
        assert [(await store.look("me", id)).parts["head"] for id in "ab"] == [b"a", b"b"]

    run(scenario)


def test_a_session_expires_when_it_is_not_used_and_says_so(run: Run) -> None:
    async def scenario(kept: Kept) -> None:
        store = kept.store
        claim = await store.create("", "used", TTL_S, {})
        await store.create("", "unused", TTL_S, {})
        await kept.age(0.6 * TTL_S)
        await store.commit("", "used", claim, (START, FIRST), {})
        await kept.age(0.6 * TTL_S)
        assert (await store.look("", "used")).cursor == FIRST
        for work in (store.look("", "unused"), store.claim("", "unused")):
            assert await _kind(work) is Kind.SESSION_EXPIRED
        assert await _kind(store.look("another", "unused")) is Kind.SESSION_NOT_FOUND
        await kept.age(TTL_S + 1)
        assert await _kind(store.commit("", "used", claim, (FIRST, SECOND), {})) is Kind.SESSION_EXPIRED
        await kept.age(100_000)
        assert await _kind(store.look("", "used")) is Kind.SESSION_NOT_FOUND

    run(scenario)


def test_what_was_deleted_is_not_written_again(run: Run) -> None:
    async def scenario(kept: Kept) -> None:
        store = kept.store
        claim = await store.create("", "a", TTL_S, PARTS)
        stored = await store.look("", "a")
        assert [await store.delete("", "a") for _ in range(2)] == [True, False]
        for work in (
            store.look("", "a"),
            store.commit("", "a", claim, (START, FIRST), {}),
            store.restore("", "a", claim, stored),
        ):
            assert await _kind(work) is Kind.SESSION_NOT_FOUND

    run(scenario)


def test_a_redis_that_lost_its_last_writes_is_told_them_again(redis_server: RedisServer) -> None:
    async def scenario() -> None:
        store = RedisSessions(redis_server.url)
        try:
            async with redis.asyncio.Redis.from_url(redis_server.url) as client:
                first = await store.create("", "a", TTL_S, PARTS)
                (key,) = [key for key in await client.keys() if not key.endswith(b":end")]
                backup = await client.dump(key)
                claim, _ = await store.claim("", "a")
                await store.commit("", "a", claim, (START, FIRST), {"x": b"1"})
                stored = await store.look("", "a")
                # The store is as it was before the claim and the commit.
                await client.restore(key, int(TTL_S * 1000), backup, replace=True)
                with pytest.raises(BehindError):
                    await store.commit("", "a", claim, (FIRST, SECOND), {})
                await store.restore("", "a", claim, stored)
                await store.commit("", "a", claim, (FIRST, SECOND), {})
                with pytest.raises(ClaimLostError):
                    await store.commit("", "a", first, (FIRST, SECOND), {})
                # It lost everything.
                await client.flushall()
                with pytest.raises(BehindError):
                    await store.commit("", "a", claim, (SECOND, Cursor(2, 0)), {})
                await store.restore("", "a", claim, stored)
                assert (await store.look("", "a")).cursor == FIRST
        finally:
            await store.close()

    asyncio.run(scenario())


def test_two_claims_of_one_epoch_are_told_apart(redis_server: RedisServer) -> None:
    async def scenario() -> None:
        store = RedisSessions(redis_server.url)
        try:
            async with redis.asyncio.Redis.from_url(redis_server.url) as client:
                await store.create("", "a", TTL_S, PARTS)
                (key,) = [key for key in await client.keys() if not key.endswith(b":end")]
                backup = await client.dump(key)
                lost, _ = await store.claim("", "a")
                await client.restore(key, int(TTL_S * 1000), backup, replace=True)
                claim, stored = await store.claim("", "a")
                assert claim.epoch == lost.epoch
                for work in (
                    store.commit("", "a", lost, (START, FIRST), {}),
                    store.restore("", "a", lost, stored),
                ):
                    with pytest.raises(ClaimLostError):
                        await work
                await store.commit("", "a", claim, (START, FIRST), {})
        finally:
            await store.close()

    asyncio.run(scenario())


def test_a_redis_that_is_restarted_is_waited_for(redis_server: RedisServer) -> None:
    async def scenario() -> None:
        store = RedisSessions(redis_server.url)
        try:
            claim = await store.create("", "a", TTL_S, PARTS)
            redis_server.kill()
            commit = asyncio.ensure_future(store.commit("", "a", claim, (START, FIRST), {"x": b"1"}))
            await asyncio.sleep(0.3)
            assert not commit.done()
            await asyncio.to_thread(redis_server.start)
            await commit
            assert (await store.look("", "a")).parts == {**PARTS, "x": b"1"}
        finally:
            await store.close()

    asyncio.run(scenario())


def test_a_redis_without_room_is_store_unavailable_and_loses_nothing(redis_server: RedisServer) -> None:
    async def scenario() -> None:
        store = RedisSessions(redis_server.url)
        try:
            claim = await store.create("", "a", TTL_S, PARTS)
            async with redis.asyncio.Redis.from_url(redis_server.url) as client:
                await client.config_set("maxmemory-policy", "noeviction")
                await client.config_set("maxmemory", "1")
                work = store.commit("", "a", claim, (START, FIRST), {"x": b"1"})
                assert await _kind(work) is Kind.STORE_UNAVAILABLE
                await client.config_set("maxmemory", "0")
            assert (await store.look("", "a")).parts == PARTS
            await store.commit("", "a", claim, (START, FIRST), {"x": b"1"})
        finally:
            await store.close()

    asyncio.run(scenario())
