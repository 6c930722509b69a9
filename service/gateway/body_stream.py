"""A request's body as it arrives, bounded in bytes, in time, and in what all bodies hold together."""

import asyncio
from collections import Counter
from typing import Any

from starlette.datastructures import Headers
from starlette.types import Message, Receive

from service.config import GatewaySettings
from service.errors import Kind, ServiceError
from service.gateway.turns import Turns

_RETRY_S = 1.0


class ReceivingBytes:
    """The bytes of all bodies that are not complete yet. Used from one event loop."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._total = 0
        self._by_owner: Counter[str] = Counter()

    def take(self, owner: str, size: int) -> None:
        """Count so many bytes more. Raises ServiceError OVERLOADED."""
        # One owner leaves room for the others.
        own_limit = self._limit // 2 if owner else self._limit
        if self._total + size > self._limit or self._by_owner[owner] + size > own_limit:
            detail = "Too many bytes of unfinished bodies are held already; the limit is max_receiving_bytes."
            raise ServiceError(Kind.OVERLOADED, detail, retry_after_s=_RETRY_S)
        self._total += size
        self._by_owner[owner] += size

    def give_back(self, owner: str, size: int) -> None:
        """Count so many bytes less."""
        self._total -= size
        self._by_owner[owner] -= size
        if not self._by_owner[owner]:
            del self._by_owner[owner]


class BodyStream:
    """The ASGI `receive` of one request. Close it when the request has been answered."""

    def __init__(
        self,
        headers: Headers,
        receive: Receive,
        settings: GatewaySettings,
        receiving: ReceivingBytes,
        owner: str,
        turns: Turns,
    ) -> None:
        """Raises ServiceError PAYLOAD_TOO_LARGE for a body that is announced as larger than the limit."""
        self._receive, self._settings, self._receiving = receive, settings, receiving
        self._owner, self._turns = owner, turns
        self._size = self._held = 0
        self._began = asyncio.get_running_loop().time()
        self.complete = not has_body(headers)
        announced = headers.get("content-length", "")
        if announced.isdigit() and int(announced) > settings.max_body_bytes:
            raise self._too_large()

    async def __call__(self) -> Message:
        """The next message. Raises ServiceError: PAYLOAD_TOO_LARGE, DEADLINE_EXCEEDED, OVERLOADED."""
        if self.complete:
            return await self._receive()
        if self._size:
            # Of a large body every piece waits for its turn, and is not received before.
            await self._turns.start(self._owner)
        limit_s = self._settings.body_timeout_s
        try:
            async with asyncio.timeout(limit_s):
                message: dict[str, Any] = dict(await self._receive())
        except TimeoutError:
            detail = f"No further byte of the body arrived within the limit of {limit_s:g} s."
            raise ServiceError(Kind.DEADLINE_EXCEEDED, detail) from None
        self._count(len(message.get("body", b"")))
        if not message.get("more_body", False):
            self.complete = True
            self.close()
        return message

    def close(self) -> None:
        """Count its bytes no more."""
        self._receiving.give_back(self._owner, self._held)
        self._held = 0

    def _count(self, size: int) -> None:
        self._size += size
        if self._size > self._settings.max_body_bytes:
            raise self._too_large()
        rate = self._settings.min_transfer_bytes_per_s
        lasted_s = asyncio.get_running_loop().time() - self._began
        if lasted_s > self._settings.body_timeout_s and self._size < lasted_s * rate:
            detail = f"The body arrives slower than the limit of {rate:,} bytes per second."
            raise ServiceError(Kind.DEADLINE_EXCEEDED, detail)
        self._receiving.take(self._owner, size)
        self._held += size

    def _too_large(self) -> ServiceError:
        limit = self._settings.max_body_bytes
        return ServiceError(Kind.PAYLOAD_TOO_LARGE, f"The body has more bytes than the limit of {limit:,}.")


def has_body(headers: Headers) -> bool:
    """Whether the request announces a body."""
    return headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
