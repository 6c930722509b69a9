"""Tracking sessions kept in Redis: `session_store.SessionStore`, shared by every worker."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from importlib.resources import files
from typing import Any, TypeVar

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from service.sessions.checksum import seal, unseal
from service.sessions.redis_store import connect, in_reach
from service.sessions.session_store import (
    REMEMBERED_S,
    START,
    BehindError,
    Claim,
    ClaimLostError,
    Cursor,
    Parts,
    Stored,
    check_count,
    corrupt,
    gone,
    nonce,
)

T = TypeVar("T")

_PREFIX = "efficientsam3:session:"
_STORE = "session store"
_SCRIPTS = ("write", "claim", "look", "commit", "delete")
# A dense memory of many objects may have tens of megabytes.
_TIMEOUT_S = 5.0
# Waits between tries; every script may be tried again, since done twice it is as done once.
_PAUSES_S = (0.05, 0.2, 0.5, 1.0, 2.0)
_REMEMBERED_MS = 1000 * REMEMBERED_S


class RedisSessions:
    """Sessions in Redis, each a hash and a mark that outlives it, in one slot of a cluster."""

    def __init__(self, url: str) -> None:
        """`url` as `redis_store.connect` takes it."""
        self._client = connect(url, _TIMEOUT_S)
        folder = files("service.sessions").joinpath("lua")
        self._scripts = {
            name: self._client.register_script(folder.joinpath(f"{name}.lua").read_text("utf-8"))
            for name in _SCRIPTS
        }

    async def admit(self, owner: str, id: str, most: int) -> None:
        # A count of its own, in another slot than the sessions: what ended is found out when it matters.
        ids = f"{_PREFIX}{{{owner}}}:ids"
        with in_reach(_STORE):
            others = await _patiently(lambda: self._client.zcard(ids))
            if others >= most:
                others = await _patiently(lambda: self._recount(owner, id, ids))
            check_count(others, most)
            await _patiently(lambda: self._client.zadd(ids, {id: time.time()}))
            await _patiently(lambda: self._client.pexpire(ids, _REMEMBERED_MS))

    async def _recount(self, owner: str, id: str, ids: str) -> int:
        """How many of the owner's sessions are there but this one; the others are forgotten."""
        found: Any = await self._client.zrange(ids, 0, -1)
        names: list[bytes] = list(found)
        async with self._client.pipeline(transaction=False) as pipeline:
            for name in names:
                pipeline.exists(_key(owner, name.decode(errors="replace")))
            there = await pipeline.execute()
        if ended := [name for name, alive in zip(names, there, strict=True) if not alive]:
            await self._client.zrem(ids, *ended)
        return len(set(names) - set(ended) - {id.encode()})

    async def create(self, owner: str, id: str, ttl_s: float, parts: Parts) -> Claim:
        claim = Claim(1, nonce())
        await self._write(owner, id, claim, Stored(START, parts, ttl_s, ttl_s))
        return claim

    async def claim(self, owner: str, id: str) -> tuple[Claim, Stored]:
        return _read(owner, id, await self._run("claim", owner, id, nonce()))

    async def look(self, owner: str, id: str) -> Stored:
        return _read(owner, id, await self._run("look", owner, id))[1]

    async def commit(
        self,
        owner: str,
        id: str,
        claim: Claim,
        moved: tuple[Cursor, Cursor],
        put: Parts,
        drop: Iterable[str] = (),
    ) -> None:
        key = _key(owner, id)
        before, after = (_sealed_cursor(key, cursor) for cursor in moved)
        arguments = [*claim, before, after, _REMEMBERED_MS, len(put), *_sealed(key, put), *drop]
        _check(id, await self._run("commit", owner, id, *arguments))

    async def restore(self, owner: str, id: str, claim: Claim, stored: Stored) -> None:
        await self._write(owner, id, claim, stored)

    async def fork(self, owner: str, id: str, other: str) -> Stored:
        stored = await self.look(owner, id)
        with suppress(ClaimLostError):
            await self._write(owner, other, Claim(0, nonce()), stored)
        return await self.look(owner, other)

    async def delete(self, owner: str, id: str) -> bool:
        return bool(await self._run("delete", owner, id, _REMEMBERED_MS))

    async def close(self) -> None:
        await self._client.aclose()

    async def _write(self, owner: str, id: str, claim: Claim, stored: Stored) -> None:
        key, ttl_ms = _key(owner, id), round(1000 * stored.ttl_s)
        cursor, parts = _sealed_cursor(key, stored.cursor), _sealed(key, stored.parts)
        arguments = [*claim, cursor, ttl_ms, _REMEMBERED_MS, *parts]
        _check(id, await self._run("write", owner, id, *arguments))

    async def _run(self, script: str, owner: str, id: str, *arguments: Any) -> Any:
        key = _key(owner, id)
        with in_reach(_STORE):
            return await _patiently(lambda: self._scripts[script](keys=[key, f"{key}:end"], args=arguments))


def _key(owner: str, id: str) -> str:
    return f"{_PREFIX}{{{id}}}:{owner}"


def _sealed(key: str, parts: Parts) -> list[str | bytes]:
    """Return the name and the sealed value of each part, as the scripts take them."""
    return [each for name, value in parts.items() for each in (name, seal(f"{key} {name}", value))]


def _sealed_cursor(key: str, cursor: Cursor) -> bytes:
    """Return the cursor as it is stored: the same bytes each time, which the scripts compare."""
    return seal(f"{key} .cursor", str(cursor).encode())


def _read(owner: str, id: str, answer: Sequence[Any] | bytes | None) -> tuple[Claim, Stored]:
    """Return what claim.lua and look.lua give. Raises `session_corrupt` if any byte of it is damaged."""
    if answer == b"corrupt":
        raise corrupt(id)
    if answer is None or isinstance(answer, bytes):
        raise gone(id, expired=answer == b"open")
    *fields, left_ms = answer
    try:
        named = {name.decode(): value for name, value in zip(fields[::2], fields[1::2], strict=True)}
        claim = Claim(int(named.pop(".epoch")), named.pop(".nonce").decode(errors="replace"))
        # It is there twice, and both must be equal.
        (ttl_ms,) = {int(text) for text in named.pop(".ttl").split(b" ")}
        parts = {name: _unsealed(f"{_key(owner, id)} {name}", value) for name, value in named.items()}
        cursor = Cursor.parse(parts.pop(".cursor").decode())
    except (KeyError, ValueError) as error:
        raise corrupt(id) from error
    return claim, Stored(cursor, parts, ttl_ms / 1000, left_ms / 1000)


def _unsealed(name: str, sealed: bytes) -> bytes:
    """Return the value. Raises ValueError if it is damaged."""
    if (value := unseal(name, sealed)) is None:
        raise ValueError("the checksum is wrong")
    return value


def _check(id: str, answer: bytes) -> None:
    match answer:
        case b"done":
            return
        case b"claimed":
            raise ClaimLostError(id)
        case b"behind":
            raise BehindError(id)
        case b"corrupt":
            raise corrupt(id)
        case _:
            raise gone(id, expired=answer == b"open")


async def _patiently(work: Callable[[], Awaitable[T]]) -> T:
    """The work's result, tried again while nobody answers. The caller's deadline ends it by cancelling."""
    for pause_s in _PAUSES_S:
        try:
            return await work()
        except (RedisConnectionError, RedisTimeoutError, OSError):
            await asyncio.sleep(pause_s)
    return await work()
