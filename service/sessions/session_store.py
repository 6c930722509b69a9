"""Tracking sessions that outlive the process that computes them: the contract, and keeping them in memory.

A session is named parts of bytes and a cursor: the last frame that was answered. The store knows no more.
Whoever computes a session has claimed it, and what an older claim writes is refused.
"""

import secrets
import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

from service.errors import Kind, ServiceError
from service.sessions.expiry import ExpiryQueue

Parts = Mapping[str, bytes]
# How long it is remembered that there was a session, after its end.
REMEMBERED_S = 86_400
# How many of them a process remembers without Redis.
MAX_ENDED = 100_000
# Sessions end in minutes rather than seconds.
_QUOTA_RETRY_S = 30.0


class Cursor(NamedTuple):
    """The last frame that was answered, and how often it was corrected."""

    frame: int
    revision: int

    @classmethod
    def parse(cls, text: str) -> "Cursor":
        """What `str` gave."""
        frame, revision = text.split(".")
        return cls(int(frame), int(revision))

    def __str__(self) -> str:
        return f"{self.frame}.{self.revision}"


START = Cursor(-1, 0)


class Claim(NamedTuple):
    """The right to write: that of the largest epoch; among equals, which a store that lost writes can have
    given twice, that of the nonce that the store knows."""

    epoch: int
    nonce: str


@dataclass(frozen=True, slots=True)
class Stored:
    """A session as the store has it."""

    cursor: Cursor
    parts: Parts
    # Seconds that it is kept after each use.
    ttl_s: float
    # Seconds that it is kept from now on.
    left_s: float


class ClaimLostError(Exception):
    """Another process has claimed the session since."""


class BehindError(Exception):
    """The store lost what it had acknowledged: its cursor, or its claim, is an older one."""


class SessionStore(Protocol):
    """Sessions by (owner, id). One per process, used from one event loop.

    To another owner a session does not exist. Whatever finds no session raises `session_expired` where there
    was one whose time is over, else `session_not_found`; whatever finds damaged bytes raises
    `session_corrupt`; all of it raises `store_unavailable` where the store is out of reach.
    Each of these is one step: it is done, or nothing of it is.
    """

    async def admit(self, owner: str, id: str, most: int) -> None:
        """Count a session to be made. Raises `quota_exceeded` where its owner has `most` others.

        Those that are made in the same moment may exceed it by as many.
        """
        ...

    async def create(self, owner: str, id: str, ttl_s: float, parts: Parts) -> Claim:
        """A new session at `START`, claimed. Raises ClaimLostError where there is one of that id already."""
        ...

    async def claim(self, owner: str, id: str) -> tuple[Claim, Stored]:
        """Take the session over from whoever has it, without asking, and load it."""
        ...

    async def look(self, owner: str, id: str) -> Stored:
        """The session, and nothing changes."""
        ...

    async def commit(
        self,
        owner: str,
        id: str,
        claim: Claim,
        moved: tuple[Cursor, Cursor],
        put: Parts,
        drop: Iterable[str] = (),
    ) -> None:
        """Move the cursor from one to another, write parts and drop others, and begin the time to live anew.

        Done again after it was done it changes nothing. Raises ClaimLostError; BehindError where the cursor
        is not the first of `moved`, or the claim is unknown.
        """
        ...

    async def restore(self, owner: str, id: str, claim: Claim, stored: Stored) -> None:
        """Write everything anew, after BehindError. Raises ClaimLostError.

        What was deleted, or has expired, does not come back.
        """
        ...

    async def fork(self, owner: str, id: str, other: str) -> Stored:
        """Copy the session as it stands to the id `other`, unclaimed. One that is there already stays."""
        ...

    async def delete(self, owner: str, id: str) -> bool:
        """Forget the session; whether there was one."""
        ...

    async def close(self) -> None: ...


def nonce() -> str:
    """For a claim: nobody else has it."""
    return secrets.token_hex(8)


def gone(id: str, *, expired: bool) -> ServiceError:
    """What is said of a session that is not there."""
    if expired:
        return ServiceError(
            Kind.SESSION_EXPIRED, f"Session {id[:64]!r} was not used for too long, and is gone."
        )
    return ServiceError(Kind.SESSION_NOT_FOUND, f"There is no session {id[:64]!r}.")


def corrupt(id: str) -> ServiceError:
    """Return the error for a session whose stored bytes are damaged."""
    detail = (
        f"Session {id[:64]!r} is damaged in the session store and cannot go on: "
        "open a new session, and send the video's frames again."
    )
    return ServiceError(Kind.SESSION_CORRUPT, detail)


def check_count(others: int, most: int) -> None:
    """Raise `quota_exceeded` where there are `most` sessions already."""
    if others >= most:
        detail = f"There are {others:,} sessions already, and {most:,} are allowed: delete one that is done."
        raise ServiceError(Kind.QUOTA_EXCEEDED, detail, retry_after_s=_QUOTA_RETRY_S)


@dataclass(slots=True)
class _Kept:
    claim: Claim
    stored: Stored
    # In the store's own time, seconds.
    expires: float


class MemorySessions:
    """Sessions in this process's memory: they end with it."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        """`now` tells the time in seconds."""
        self._now = now
        self._kept: dict[tuple[str, str], _Kept] = {}
        self._ids: defaultdict[str, set[str]] = defaultdict(set)
        self._due = ExpiryQueue[tuple[str, str]]()
        # Until when it is remembered that there was a session, the earliest first.
        self._ended: OrderedDict[tuple[str, str], float] = OrderedDict()

    async def admit(self, owner: str, id: str, most: int) -> None:
        self._drop_expired()
        others: set[str] = self._ids.get(owner, set())
        check_count(len(others) - (id in others), most)

    async def create(self, owner: str, id: str, ttl_s: float, parts: Parts) -> Claim:
        self._drop_expired()
        if (owner, id) in self._kept:
            raise ClaimLostError(id)
        claim = Claim(1, nonce())
        self._put(owner, id, claim, Stored(START, dict(parts), ttl_s, ttl_s))
        return claim

    async def claim(self, owner: str, id: str) -> tuple[Claim, Stored]:
        kept = self._get(owner, id)
        kept.claim = Claim(kept.claim.epoch + 1, nonce())
        return kept.claim, self._seen(kept)

    async def look(self, owner: str, id: str) -> Stored:
        return self._seen(self._get(owner, id))

    async def commit(
        self,
        owner: str,
        id: str,
        claim: Claim,
        moved: tuple[Cursor, Cursor],
        put: Parts,
        drop: Iterable[str] = (),
    ) -> None:
        kept = self._get(owner, id)
        if kept.claim != claim:
            raise ClaimLostError(id)
        before, after = moved
        if kept.stored.cursor == after:
            return
        if kept.stored.cursor != before:
            raise BehindError(id)
        parts = {**kept.stored.parts, **put}
        for name in drop:
            parts.pop(name, None)
        self._put(owner, id, claim, replace(kept.stored, cursor=after, parts=parts))

    async def restore(self, owner: str, id: str, claim: Claim, stored: Stored) -> None:
        kept = self._get(owner, id)
        if kept.claim != claim:
            raise ClaimLostError(id)
        self._put(owner, id, claim, stored)

    async def fork(self, owner: str, id: str, other: str) -> Stored:
        kept = self._get(owner, id)
        if (owner, other) not in self._kept:
            self._put(owner, other, Claim(0, nonce()), kept.stored)
        return self._seen(self._get(owner, other))

    async def delete(self, owner: str, id: str) -> bool:
        self._drop_expired()
        self._due.discard((owner, id))
        return self._drop(owner, id)

    async def close(self) -> None:
        self._kept.clear()
        self._ids.clear()
        self._due.clear()
        self._ended.clear()

    def _put(self, owner: str, id: str, claim: Claim, stored: Stored) -> None:
        expires = self._now() + stored.ttl_s
        self._kept[owner, id] = _Kept(claim, stored, expires)
        self._ids[owner].add(id)
        self._due.set((owner, id), expires)

    def _drop(self, owner: str, id: str) -> bool:
        """Forget the session; return whether there was one."""
        if self._kept.pop((owner, id), None) is None:
            return False
        ids = self._ids[owner]
        ids.remove(id)
        if not ids:
            del self._ids[owner]
        return True

    def _get(self, owner: str, id: str) -> _Kept:
        self._drop_expired()
        if (kept := self._kept.get((owner, id))) is None:
            raise gone(id, expired=(owner, id) in self._ended)
        return kept

    def _seen(self, kept: _Kept) -> Stored:
        return replace(kept.stored, parts=dict(kept.stored.parts), left_s=kept.expires - self._now())

    def _drop_expired(self) -> None:
        now = self._now()
        for name, expired in self._due.pop_expired(now):
            self._drop(*name)
            self._ended[name] = expired + REMEMBERED_S
            self._ended.move_to_end(name)
        while self._ended:
            oldest = next(iter(self._ended))
            if len(self._ended) <= MAX_ENDED and self._ended[oldest] > now:
                return
            del self._ended[oldest]
