"""What is kept in memory takes as much work for each operation however much there is, and has a bound."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest

from service.errors import Kind, ServiceError
from service.sessions.image_store import MemoryImages
from service.sessions.quota_store import MemoryQuotas
from service.sessions.session_store import MAX_ENDED, START, Cursor, MemorySessions

TTL_S = 1000.0
# Comparisons of times that one operation may take, whatever is kept: a heap's depth, and some more.
PER_OPERATION = 60


class Time(float):
    """A time that counts how often it, or a time derived from it, is compared."""

    compared = 0

    def __add__(self, other: float) -> "Time":
        return Time(float(self) + float(other))

    __radd__ = __add__

    def __lt__(self, other: float) -> bool:
        Time.compared += 1
        return float(self) < float(other)

    def __le__(self, other: float) -> bool:
        Time.compared += 1
        return float(self) <= float(other)

    def __gt__(self, other: float) -> bool:
        Time.compared += 1
        return float(self) > float(other)

    def __ge__(self, other: float) -> bool:
        Time.compared += 1
        return float(self) >= float(other)


class Clock:
    """A store's own time, seconds."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> Time:
        return Time(self.now)


async def _most_compared(operations: list[Callable[[], Awaitable[Any]]]) -> int:
    """The comparisons that the most expensive of the operations takes."""
    most = 0
    for operation in operations:
        before = Time.compared
        with suppress(ServiceError):
            await operation()
        most = max(most, Time.compared - before)
    return most


@pytest.mark.parametrize("count", [100, 20_000])
def test_an_operation_takes_no_more_work_beside_many_sessions(count: int) -> None:
    async def scenario() -> None:
        clock = Clock()
        store = MemorySessions(clock)
        for index in range(count):
            clock.now += 0.001
            await store.create("ended", f"e{index}", 1.0, {})
        clock.now += TTL_S
        # They end here, all in one operation.
        assert not await store.delete("nobody", "none")
        for index in range(count):
            clock.now += 0.001
            await store.create("living", f"l{index}", TTL_S, {})
        claim, _ = await store.claim("living", "l7")
        operations: list[Callable[[], Awaitable[Any]]] = [
            lambda: store.look("living", "l5"),
            lambda: store.look("ended", "e5"),
            lambda: store.admit("living", "new", 10 * count),
            lambda: store.create("living", "new", TTL_S, {}),
            lambda: store.commit("living", "l7", claim, (START, Cursor(0, 0)), {"head": b""}),
            lambda: store.fork("living", "l7", "fork"),
            lambda: store.delete("living", "l9"),
        ]
        assert await _most_compared(operations) <= PER_OPERATION
        assert (await store.look("living", "l7")).cursor == Cursor(0, 0)
        with pytest.raises(ServiceError, match=f"{count + 1:,} sessions already") as refused:
            await store.admit("living", "one more", count + 1)
        assert refused.value.kind is Kind.QUOTA_EXCEEDED

    asyncio.run(scenario())


def test_a_session_in_use_costs_no_memory_for_each_use() -> None:
    """Frames renew the time to live: it is noted once for the session, not once for each frame."""

    async def scenario() -> None:
        clock = Clock()
        store = MemorySessions(clock)
        claim = await store.create("", "a", TTL_S, {})
        for frame in range(2_000):
            clock.now += 1
            await store.commit("", "a", claim, (Cursor(frame - 1, 0), Cursor(frame, 0)), {})
        clock.now += TTL_S - 1
        assert (await store.look("", "a")).left_s == pytest.approx(1.0)
        Time.compared = 0
        clock.now += 2
        with pytest.raises(ServiceError) as failure:
            await store.look("", "a")
        assert failure.value.kind is Kind.SESSION_EXPIRED
        assert Time.compared <= PER_OPERATION

    asyncio.run(scenario())


def test_a_session_made_again_with_a_shorter_time_ends_in_time() -> None:
    async def scenario() -> None:
        clock = Clock()
        store = MemorySessions(clock)
        await store.create("", "a", 10 * TTL_S, {})
        await store.delete("", "a")
        await store.create("", "a", TTL_S, {})
        clock.now += TTL_S + 1
        with pytest.raises(ServiceError) as failure:
            await store.look("", "a")
        assert failure.value.kind is Kind.SESSION_EXPIRED

    asyncio.run(scenario())


def test_sessions_that_ended_are_remembered_up_to_a_bound_the_latest_first() -> None:
    async def scenario() -> None:
        clock = Clock()
        store = MemorySessions(clock)
        for index in range(MAX_ENDED + 10):
            await store.create("", f"s{index}", 1.0 + index / 1e6, {})
        clock.now += TTL_S
        for index, kind in ((0, Kind.SESSION_NOT_FOUND), (MAX_ENDED + 9, Kind.SESSION_EXPIRED)):
            with pytest.raises(ServiceError) as failure:
                await store.look("", f"s{index}")
            assert failure.value.kind is kind

    asyncio.run(scenario())


@pytest.mark.parametrize("count", [100, 20_000])
def test_images_and_quotas_take_no_more_work_beside_many_others(count: int) -> None:
    async def scenario() -> None:
        clock = Clock()
        images, quotas = MemoryImages(TTL_S, 10 * count, clock), MemoryQuotas(clock)
        for index in range(count):
            clock.now += 0.001
            await images.put("", f"i{index}", b"x")
            await quotas.spend(f"o{index}", 0.001, 5)
        operations: list[Callable[[], Awaitable[Any]]] = [
            lambda: images.get("", "i5"),
            lambda: images.put("", "new", b"x"),
            lambda: images.delete("", "i9"),
            lambda: quotas.spend("o5", 1.0, 5),
            lambda: quotas.spend("new", 1.0, 5),
        ]
        assert await _most_compared(operations) <= PER_OPERATION

    asyncio.run(scenario())


def test_quotas_forget_owners_that_have_used_nothing_of_late() -> None:
    async def scenario() -> None:
        clock = Clock()
        quotas = MemoryQuotas(clock)
        for index in range(1_000):
            assert await quotas.spend(f"o{index}", 10.0, 5) == 0.0
            assert await quotas.enter(f"o{index}", "1", 1)
        assert len(quotas) == 1_000
        for index in range(1_000):
            await quotas.leave(f"o{index}", "1")
        clock.now += 1.0
        assert await quotas.spend("last", 10.0, 5) == 0.0
        assert len(quotas) == 1

    asyncio.run(scenario())
