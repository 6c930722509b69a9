"""Images that were sent once, kept for a while by owner and id: the contract, and keeping them in memory."""

import time
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, Protocol

from service.errors import Kind, ServiceError


class ImageStore(Protocol):
    """Encoded files by (owner, id). One per process, used from one event loop.

    To another owner an image does not exist. It is kept for a time to live that every use begins anew, unless
    memory runs short. All of it raises `store_unavailable` where the store is out of reach.
    """

    async def put(self, owner: str, id: str, data: bytes) -> datetime:
        """Keep the image; until when, in UTC. Raises `payload_too_large` where it can never be kept."""
        ...

    async def get(self, owner: str, id: str) -> bytes | None:
        """The image, kept from now on as if it had just been put; None if it is not kept."""
        ...

    async def delete(self, owner: str, id: str) -> bool:
        """Forget the image; whether it was kept."""
        ...

    async def close(self) -> None: ...


def until(ttl_s: float) -> datetime:
    """The moment `ttl_s` seconds from now, in UTC."""
    return datetime.now(UTC) + timedelta(seconds=ttl_s)


class _Kept(NamedTuple):
    data: bytes
    # In the store's own time, seconds.
    expires: float


class MemoryImages:
    """Images in this process's memory, bounded in bytes: those unused for longest make room for new ones."""

    def __init__(self, ttl_s: float, max_bytes: int, now: Callable[[], float] = time.monotonic) -> None:
        """`now` tells the time in seconds."""
        self._ttl_s = ttl_s
        self._max_bytes = max_bytes
        self._now = now
        # In the order of their last use, which is also that of their expiry.
        self._kept: OrderedDict[tuple[str, str], _Kept] = OrderedDict()
        self._bytes = 0

    async def put(self, owner: str, id: str, data: bytes) -> datetime:
        if len(data) > self._max_bytes:
            detail = (
                f"image has {len(data):,} bytes, more than all the images that are kept together may have: "
                f"{self._max_bytes:,} bytes."
            )
            raise ServiceError(Kind.PAYLOAD_TOO_LARGE, detail)
        self._drop(owner, id)
        self._drop_expired()
        while self._bytes + len(data) > self._max_bytes:
            self._drop(*next(iter(self._kept)))
        self._add(owner, id, data)
        return until(self._ttl_s)

    async def get(self, owner: str, id: str) -> bytes | None:
        self._drop_expired()
        data = self._drop(owner, id)
        if data is not None:
            self._add(owner, id, data)
        return data

    async def delete(self, owner: str, id: str) -> bool:
        self._drop_expired()
        return self._drop(owner, id) is not None

    async def close(self) -> None:
        self._kept.clear()
        self._bytes = 0

    def _add(self, owner: str, id: str, data: bytes) -> None:
        self._kept[owner, id] = _Kept(data, self._now() + self._ttl_s)
        self._bytes += len(data)

    def _drop(self, owner: str, id: str) -> bytes | None:
        kept = self._kept.pop((owner, id), None)
        if kept is None:
            return None
        self._bytes -= len(kept.data)
        return kept.data

    def _drop_expired(self) -> None:
        now = self._now()
        while self._kept and next(iter(self._kept.values())).expires <= now:
            self._drop(*next(iter(self._kept)))
