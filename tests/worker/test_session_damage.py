"""Damaged bytes in the session store: the same answer or a clear error, and the worker lives."""

import asyncio
import random
from collections.abc import Iterator
from typing import Any

import pytest
import redis.asyncio

from service.errors import Kind, ServiceError
from service.pb.efficientsam3.v1 import tracking_pb2 as pb
from tests.redis_server import RedisServer
from tests.worker.test_tracking import Start, Tracking, engines, shot, start  # noqa: F401

FRAMES = 3
# Bytes that are flipped in the value of each field, chosen at random, beside its first and its last.
PER_FIELD = 3
SEED = 20261130


def _found(answer: pb.FrameAnswer) -> bytes:
    """The answer to the bit, without its timings."""
    told = pb.FrameAnswer()
    told.CopyFrom(answer)
    told.timings_ms.clear()
    return told.SerializeToString(deterministic=True)


def _flips(fields: dict[bytes, bytes]) -> Iterator[tuple[bytes, int, int, bool]]:
    """(field, index of a byte, bits to flip in it, whether in the field's name) for many bytes of each."""
    chance = random.Random(SEED)
    for name, value in sorted(fields.items()):
        at = {0, len(value) - 1, *(chance.randrange(len(value)) for _ in range(PER_FIELD))}
        for index in sorted(at):
            yield name, index, chance.choice([1, 2, 16, 128, 255]), False
        yield name, chance.randrange(len(name)), chance.choice([1, 2, 4]), True


def _flipped(data: bytes, index: int, bits: int) -> bytes:
    return data[:index] + bytes([data[index] ^ bits]) + data[index + 1 :]


async def _asked(tracking: Tracking, session: str) -> bytes | Kind:
    """The next frame's answer, or the kind of its refusal. The session is read from the store."""
    # A worker whose memory is short forgets the session for this one.
    await tracking.open()
    try:
        return _found(await tracking.add(session, shot(FRAMES)))
    except ServiceError as error:
        return error.kind


@pytest.mark.parametrize("damage", ["flipped", "cut", "lost", "emptied"])
def test_damaged_bytes_of_a_session_never_change_an_answer(
    start: Start,  # noqa: F811
    redis_server: RedisServer,
    damage: str,
) -> None:
    async def scenario() -> None:
        async with (
            redis.asyncio.Redis.from_url(redis_server.url) as client,
            start(redis_url=redis_server.url, hot_session_bytes=0) as tracking,
        ):
            session = (await tracking.open()).session
            for index in range(FRAMES):
                await tracking.add(session, shot(index))
            (key,) = [key async for key in client.scan_iter(f"*{{{session}}}*") if not key.endswith(b":end")]
            whole: dict[bytes, bytes] = await client.hgetall(key)
            snapshot: Any = await client.dump(key)
            expected = await _asked(tracking, session)
            assert isinstance(expected, bytes)
            outcomes = []
            for name, index, bits, in_name in _flips(whole):
                if damage != "flipped" and in_name:
                    continue
                await client.restore(key, 600_000, snapshot, replace=True)
                value = whole[name]
                if damage == "lost" or in_name:
                    await client.hdel(key, name)
                if in_name:
                    await client.hset(key, _flipped(name, index, bits), value)
                elif damage != "lost":
                    changed = {"flipped": _flipped(value, index, bits), "cut": value[:index], "emptied": b""}
                    await client.hset(key, name, changed[damage])
                outcome = await _asked(tracking, session)
                assert outcome in (expected, Kind.SESSION_CORRUPT), (name, index, bits, in_name, outcome)
                outcomes.append(outcome)
            assert outcomes.count(Kind.SESSION_CORRUPT) > len(outcomes) // 2
            await client.restore(key, 600_000, snapshot, replace=True)
            assert await _asked(tracking, session) == expected

    asyncio.run(scenario())


def test_what_is_asked_of_a_damaged_session_says_what_to_do(
    start: Start,  # noqa: F811
    redis_server: RedisServer,
) -> None:
    async def scenario() -> None:
        async with (
            redis.asyncio.Redis.from_url(redis_server.url) as client,
            start(redis_url=redis_server.url, hot_session_bytes=0) as tracking,
        ):
            session = (await tracking.open()).session
            await tracking.add(session, shot(0))
            (key,) = [key async for key in client.scan_iter(f"*{{{session}}}*") if not key.endswith(b":end")]
            value = await client.hget(key, "head")
            await client.hset(key, "head", _flipped(value, len(value) // 2, 1))
            for work in (tracking.get(session), tracking.fork(session), tracking.add(session, shot(1))):
                await tracking.open()
                with pytest.raises(ServiceError, match="open a new session") as failure:
                    await work
                assert failure.value.kind is Kind.SESSION_CORRUPT
            # It can be deleted, and another one works.
            await tracking.delete(session)
            again = (await tracking.open()).session
            await tracking.add(again, shot(0))

    asyncio.run(scenario())


def test_a_key_of_another_type_is_a_damaged_session(
    start: Start,  # noqa: F811
    redis_server: RedisServer,
) -> None:
    async def scenario() -> None:
        async with (
            redis.asyncio.Redis.from_url(redis_server.url) as client,
            start(redis_url=redis_server.url, hot_session_bytes=0) as tracking,
        ):
            session = (await tracking.open()).session
            (key,) = [key async for key in client.scan_iter(f"*{{{session}}}*") if not key.endswith(b":end")]
            await client.set(key, b"not a hash")
            assert await _asked(tracking, session) is Kind.SESSION_CORRUPT
            await client.delete(key)
            await client.rpush(key, b"not a hash")
            assert await _asked(tracking, session) is Kind.SESSION_CORRUPT

    asyncio.run(scenario())
