"""Patience with what may pass: a worker that died, a store that restarts, a full queue, a broken line."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from service.client.transport import NoAnswerError
from service.errors import Kind, ServiceError

_T = TypeVar("_T")

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 5.0


def may_pass(error: ServiceError) -> bool:
    """Whether the same request may succeed later."""
    return error.row.retryable


def was_refused(error: ServiceError) -> bool:
    """As `may_pass`, where the server itself said so: nothing was made of the request."""
    return may_pass(error) and not isinstance(error, NoAnswerError)


class Patience:
    """Lasts for some seconds, during which pauses grow."""

    def __init__(self, seconds: float) -> None:
        """From now on."""
        self._until, self._pause_s = time.monotonic() + seconds, _FIRST_PAUSE_S

    async def wait(self, error: ServiceError, passes: Callable[[ServiceError], bool] = may_pass) -> None:
        """Return when it is time to try again. Raises `error` where that helps nothing, or is too late."""
        # Those who were told the same time must not come back together.
        pause_s = random.uniform(0.5, 1.0) * self._pause_s  # noqa: S311 - no secret
        wait_s = (error.retry_after_s or 0.0) + pause_s
        if not passes(error) or time.monotonic() + wait_s > self._until:
            raise error
        await asyncio.sleep(wait_s)
        self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)


async def patiently(
    work: Callable[[], Awaitable[_T]], seconds: float, passes: Callable[[ServiceError], bool] = may_pass
) -> _T:
    """The work's result, tried again for `seconds` while what it fails with passes."""
    patience = Patience(seconds)
    while True:
        try:
            return await work()
        except ServiceError as error:
            await patience.wait(error, passes)


async def until_gone(delete: Callable[[], Awaitable[None]], seconds: float, missing: Kind) -> None:
    """Delete patiently. What is `missing` at a later try was deleted by one whose answer was lost."""
    tried = False

    async def attempt() -> None:
        nonlocal tried
        try:
            await delete()
        except ServiceError as error:
            if not (tried and error.kind is missing):
                tried = True
                raise

    await patiently(attempt, seconds)
