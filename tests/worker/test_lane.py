"""Whose turn it is when several wait."""

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from service.errors import Kind, ServiceError
from service.telemetry import WorkerTelemetry
from service.worker.lane import Lane, Ticket, Urgency


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, 60))


def _lane(max_queued: int, hands: int) -> Lane:
    return Lane(max_queued, hands, WorkerTelemetry("demo"))


class Busy:
    """Work that goes on until it is let go."""

    def __init__(self) -> None:
        self._go = threading.Event()

    def __call__(self) -> None:
        assert self._go.wait(30)

    def let_go(self) -> None:
        self._go.set()


async def _queued(lane: Lane, order: list[str], tickets: dict[str, Ticket]) -> list[asyncio.Task[None]]:
    """Work under each name, in their order."""

    def noted(name: str) -> Callable[[], None]:
        return lambda: order.append(name)

    tasks = [asyncio.create_task(lane.run(noted(name), ticket)) for name, ticket in tickets.items()]
    await asyncio.sleep(0)
    return tasks


def _ordered(tickets: dict[str, Ticket], hands: int = 1, running: tuple[Ticket, ...] = ()) -> list[str]:
    """In which order work is begun that waits behind others."""
    order: list[str] = []

    async def scenario() -> None:
        lane, busy = _lane(100, hands), Busy()
        ahead = [asyncio.create_task(lane.run(busy, ticket)) for ticket in running or (Ticket(None),)]
        await asyncio.sleep(0)
        tasks = await _queued(lane, order, tickets)
        busy.let_go()
        await asyncio.gather(*ahead, *tasks)
        await lane.idle(0)
        lane.close()

    run(scenario())
    return order


def test_who_looks_at_the_picture_is_before_who_sent_a_whole_video() -> None:
    tickets = {
        "video": Ticket(None, urgency=Urgency.BULK),
        "text": Ticket(None),
        "click": Ticket(None, urgency=Urgency.INTERACTIVE),
        "later click": Ticket(None, urgency=Urgency.INTERACTIVE),
    }
    assert _ordered(tickets) == ["click", "later click", "text", "video"]


def test_who_waited_long_enough_is_before_all_that_come() -> None:
    video = Ticket(None, urgency=Urgency.BULK)
    video.rank -= Urgency.BULK.value
    assert _ordered({"click": Ticket(None, urgency=Urgency.INTERACTIVE), "video": video})[0] == "video"


def test_one_owner_does_not_take_all_hands() -> None:
    greedy = {f"greedy {index}": Ticket(None, "greedy") for index in range(3)}
    order = _ordered({**greedy, "modest": Ticket(None, "modest")}, 2, (Ticket(None, "greedy"),) * 2)
    assert order.index("modest") <= 1


def test_work_goes_on_in_several_threads_at_once() -> None:
    together = threading.Barrier(3)

    async def scenario() -> None:
        lane = _lane(0, 3)
        await asyncio.gather(*(lane.run(lambda: together.wait(30), Ticket(None)) for _ in range(3)))
        lane.close()

    run(scenario())


def test_a_queue_that_is_longer_than_the_deadline_is_not_joined() -> None:
    async def scenario() -> None:
        lane, busy = _lane(100, 1), Busy()
        with lane.request():
            await lane.run(lambda: time.sleep(0.3), Ticket(None))
        ahead = [asyncio.create_task(lane.run(busy, Ticket(None))) for _ in range(4)]
        await asyncio.sleep(0)
        with pytest.raises(ServiceError) as refused:
            await lane.run(busy, Ticket(0.5))
        assert refused.value.kind is Kind.OVERLOADED and "3 requests are waiting" in refused.value.detail
        # Three times 0.3 s of work are before it.
        assert refused.value.retry_after_s is not None and refused.value.retry_after_s >= 0.9
        patient = asyncio.create_task(lane.run(busy, Ticket(60)))
        busy.let_go()
        await asyncio.gather(*ahead, patient)
        lane.close()

    run(scenario())


def test_a_queue_is_not_joined_by_who_would_be_answered_too_late() -> None:
    async def scenario() -> None:
        lane, busy = _lane(100, 4), Busy()
        # Four at once that share one engine: each takes 0.4 s, and one is answered every 0.1 s.
        with lane.request():
            await asyncio.gather(*(lane.run(lambda: time.sleep(0.4), Ticket(None)) for _ in range(4)))
        ahead = [asyncio.create_task(lane.run(busy, Ticket(None))) for _ in range(4)]
        await asyncio.sleep(0)
        # Its turn would come at once. Its own time is what it has not.
        with pytest.raises(ServiceError) as refused:
            await lane.run(busy, Ticket(0.3))
        assert refused.value.kind is Kind.OVERLOADED and "0 requests are waiting" in refused.value.detail
        patient = asyncio.create_task(lane.run(busy, Ticket(10)))
        busy.let_go()
        await asyncio.gather(*ahead, patient)
        lane.close()

    run(scenario())


def test_what_warms_up_tells_nothing_of_how_long_requests_take() -> None:
    async def scenario() -> None:
        lane, busy = _lane(100, 1), Busy()
        await lane.run(lambda: time.sleep(0.3), Ticket(None))
        running = asyncio.create_task(lane.run(busy, Ticket(None)))
        await asyncio.sleep(0)
        hasty = asyncio.create_task(lane.run(busy, Ticket(0.3)))
        await asyncio.sleep(0)
        assert lane.waiting == 1
        busy.let_go()
        await asyncio.gather(running, hasty)
        lane.close()

    run(scenario())


def test_whose_deadline_has_passed_is_not_told_of_a_queue() -> None:
    async def scenario() -> None:
        lane, busy = _lane(1, 1), Busy()
        running = asyncio.create_task(lane.run(busy, Ticket(None)))
        await asyncio.sleep(0)
        with pytest.raises(ServiceError) as refused:
            await lane.run(busy, Ticket(0.0))
        assert refused.value.kind is Kind.DEADLINE_EXCEEDED
        busy.let_go()
        await running
        lane.close()

    run(scenario())


def test_who_leaves_the_queue_frees_its_place() -> None:
    async def scenario() -> None:
        lane, busy, order = _lane(1, 1), Busy(), list[str]()
        running = asyncio.create_task(lane.run(busy, Ticket(None)))
        await asyncio.sleep(0)
        (leaving,) = await _queued(lane, order, {"leaving": Ticket(None)})
        with pytest.raises(ServiceError, match="1 requests are waiting already"):
            await lane.run(busy, Ticket(None))
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        (staying,) = await _queued(lane, order, {"staying": Ticket(None)})
        busy.let_go()
        await asyncio.gather(running, staying)
        assert order == ["staying"]
        lane.close()

    run(scenario())
