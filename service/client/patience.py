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
# Times that a request is tried which a worker, or the connection, did not outlive: it may be the cause.
MOST_BEGUN = 3
# The same for a frame. Its session is lost if it is given up, and many workers may die for other reasons.
MOST_BEGUN_FRAME = 10
# Frames may have this many times a try's `timeout_s`, so that a frame whose deadline passed is tried again.
FRAME_TRIES = 2


def may_pass(error: ServiceError) -> bool:
    """Whether the same request may succeed later."""
    return error.row.retryable


def was_refused(error: ServiceError) -> bool:
    """As `may_pass`, where the server itself said so: nothing was made of the request."""
    return may_pass(error) and not isinstance(error, NoAnswerError)


def frame_may_pass(error: ServiceError) -> bool:
    """As `may_pass`, for what changes nothing when it is done twice, such as a frame of a session.

    A deadline that passed is no reason to give up then: the worker may have been frozen.
    """
    return may_pass(error) or error.kind is Kind.DEADLINE_EXCEEDED


class Patience:
    """Lasts for some seconds, during which pauses grow, and for some tries that a worker had begun."""

    def __init__(self, seconds: float, most_begun: int = MOST_BEGUN) -> None:
        """From now on. `most_begun`: tries that may end with an error that is `begun`."""
        self._until, self._pause_s = time.monotonic() + seconds, _FIRST_PAUSE_S
        self._begun_left = most_begun

    async def wait(self, error: ServiceError, passes: Callable[[ServiceError], bool] = may_pass) -> None:
        """Return when it is time to try again. Raises `error` where that helps nothing, or is too late."""
        self._begun_left -= error.begun
        # Those who were told the same time must not come back together.
        pause_s = random.uniform(0.5, 1.0) * self._pause_s  # noqa: S311 - no secret
        wait_s = (error.retry_after_s or 0.0) + pause_s
        if not passes(error) or self._begun_left <= 0 or time.monotonic() + wait_s > self._until:
            raise error
        await asyncio.sleep(wait_s)
        self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)


async def patiently(
    work: Callable[[], Awaitable[_T]],
    seconds: float,
    passes: Callable[[ServiceError], bool] = may_pass,
    most_begun: int = MOST_BEGUN,
) -> _T:
    """The work's result, tried again for `seconds` while what it fails with passes, as `Patience` says."""
    patience = Patience(seconds, most_begun)
    while True:
        try:
            return await work()
        except ServiceError as error:
            await patience.wait(error, passes)


async def patiently_for_frame(work: Callable[[], Awaitable[_T]], seconds: float) -> _T:
    """As `patiently`, for what may be done twice: frames, and questions about a session."""
    return await patiently(work, seconds, frame_may_pass, MOST_BEGUN_FRAME)


async def until_gone(
    delete: Callable[[], Awaitable[None]],
    seconds: float,
    missing: Kind,
    passes: Callable[[ServiceError], bool] = may_pass,
) -> None:
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

    await patiently(attempt, seconds, passes)
