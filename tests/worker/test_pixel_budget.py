"""Pixels that are worked on at once are bounded, and whoever waits for them has a turn."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from service.errors import Kind, ServiceError
from service.telemetry import WorkerTelemetry
from service.worker.lane import Ticket
from service.worker.pixel_budget import PixelBudget
from tests.worker.conftest import Start, asking, picture, run

# Of 160 pixels, 4 small images have 10 each, and larger ones share 120.
MOST, CONCURRENCY = 160, 4


def budget(max_waiting: int = 10) -> PixelBudget:
    return PixelBudget(MOST, CONCURRENCY, max_waiting, WorkerTelemetry("tiny"))


async def submit(work: Callable[[], Any], ticket: Ticket) -> Any:
    try:
        return await asyncio.to_thread(work)
    except asyncio.CancelledError:
        ticket.abandon()
        raise


class Working:
    """A request that is worked on until it is told to end."""

    def __init__(
        self, within: PixelBudget, pixels: int, owner: str = "", left_s: float | None = None
    ) -> None:
        self.began, self._end = threading.Event(), threading.Event()
        ticket = Ticket(left_s, owner)
        self.task = asyncio.create_task(within.run(submit, self._work, ticket, pixels))

    def _work(self) -> str:
        self.began.set()
        assert self._end.wait(30)
        return "done"

    async def begun(self) -> None:
        assert await asyncio.to_thread(self.began.wait, 30)

    async def end(self) -> None:
        self._end.set()
        assert await self.task == "done"

    def let_go(self) -> None:
        self._end.set()


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0.001)


def test_images_wait_for_pixels_and_small_ones_never_do() -> None:
    async def scenario() -> None:
        within = budget()
        first, second = Working(within, 70), Working(within, 60)
        await first.begun()
        small = Working(within, 10)
        await small.begun()
        assert not second.began.is_set() and within.reserved == 70
        await first.end()
        await second.begun()
        for one in (second, small):
            await one.end()
        await settle()
        assert within.reserved == 0

    run(scenario())


def test_an_image_over_the_budget_is_worked_on_alone_and_not_overtaken() -> None:
    async def scenario() -> None:
        within = budget()
        first = Working(within, 50)
        await first.begun()
        largest, fits = Working(within, 10_000), Working(within, 20)
        await settle()
        assert not largest.began.is_set() and not fits.began.is_set()
        await first.end()
        await largest.begun()
        await settle()
        assert not fits.began.is_set()
        await largest.end()
        await fits.begun()
        await fits.end()

    run(scenario())


def test_owners_take_turns() -> None:
    async def scenario() -> None:
        within = budget()
        running = [Working(within, 60, "many") for _ in range(2)]
        for one in running:
            await one.begun()
        later = [Working(within, 60, "many") for _ in range(2)]
        await settle()
        other = Working(within, 60, "other")
        await settle()
        await running[0].end()
        await other.begun()
        assert not later[0].began.is_set()
        for one in (running[1], other, *later):
            await one.end()

    run(scenario())


def test_a_caller_that_leaves_keeps_its_pixels_until_its_thread_ends() -> None:
    async def scenario() -> None:
        within = budget()
        first = Working(within, 100)
        await first.begun()
        waiting, next_one = Working(within, 100), Working(within, 100)
        await settle()
        for one in (first, waiting):
            one.task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await one.task
        assert within.reserved == 100 and not next_one.began.is_set()
        first.let_go()
        await next_one.begun()
        assert not waiting.began.is_set() and within.reserved == 100
        await next_one.end()

    run(scenario())


def test_who_cannot_wait_is_refused_with_a_time_to_come_back() -> None:
    async def scenario() -> None:
        within = budget(max_waiting=1)
        first = Working(within, 100)
        await first.begun()
        late = Working(within, 100, left_s=0.2)
        await settle()
        full = Working(within, 100)
        with pytest.raises(ServiceError) as error:
            await full.task
        assert error.value.kind is Kind.OVERLOADED and error.value.retry_after_s
        with pytest.raises(ServiceError) as error:
            await late.task
        assert error.value.kind is Kind.DEADLINE_EXCEEDED
        await first.end()
        after = Working(within, 100)
        await after.begun()
        await after.end()

    run(scenario())


def test_pixels_are_free_again_after_an_error() -> None:
    async def scenario() -> None:
        within = budget()

        def work() -> None:
            raise ServiceError(Kind.UNSUPPORTED_IMAGE, "image is damaged.")

        with pytest.raises(ServiceError):
            await within.run(submit, work, Ticket(None), 120)
        await settle()
        assert within.reserved == 0

    run(scenario())


def test_a_worker_with_a_tiny_budget_answers_all(start: Start) -> None:
    async def scenario() -> None:
        async with start(max_pixels_at_once=1, concurrency=4) as client:
            files = [picture(60 + index, 40) for index in range(12)]
            answers = await asyncio.gather(*(client.segment(asking(data=data)) for data in files))
            assert [answer.image.width for answer in answers] == [60 + index for index in range(12)]

    run(scenario())
