"""How owners share a worker's queue and its threads."""

import asyncio
import time
from collections.abc import Coroutine
from typing import Any

from service.errors import Kind, ServiceError
from service.telemetry import WorkerTelemetry
from service.worker.lane import Lane, Ticket, Urgency
from tests.worker.test_lane import Busy, run

Work = list["asyncio.Task[Any]"]


class Crowd:
    """Work of several owners in one lane, which goes on until it is let go."""

    def __init__(self, max_queued: int, hands: int) -> None:
        self.lane, self.busy = Lane(max_queued, hands, WorkerTelemetry("demo")), Busy()
        self.order: list[str] = []
        self._all: Work = []

    async def come(self, owner: str, count: int = 1, urgency: Urgency = Urgency.USUAL) -> Work:
        """So much more work of the owner."""

        def work() -> str:
            self.order.append(owner)
            self.busy()
            return owner

        def ran(ticket: Ticket) -> Coroutine[Any, Any, str]:
            return self.lane.run(work, ticket)

        new = [asyncio.create_task(ran(Ticket(60.0, owner, urgency))) for _ in range(count)]
        self._all += new
        await asyncio.sleep(0.01)
        return new

    async def end(self) -> list[Any]:
        """Let all of it go, and return what became of each in the order in which it came."""
        self.busy.let_go()
        ended = await asyncio.gather(*self._all, return_exceptions=True)
        self.lane.close()
        return ended


def _kinds(ended: list[Any]) -> list[str]:
    return [each.kind.value if isinstance(each, ServiceError) else each for each in ended]


def test_a_full_queue_makes_room_for_an_owner_with_less() -> None:
    async def scenario() -> None:
        crowd = Crowd(max_queued=4, hands=1)
        await crowd.come("greedy", 5)
        (first,) = await crowd.come("modest")
        (second,) = await crowd.come("modest")
        assert crowd.lane.waiting == 4 and not first.done() and not second.done()
        # Both have as much now: whoever comes next is the one to be refused.
        (third,) = await crowd.come("modest")
        assert third.done() and isinstance(third.exception(), ServiceError)
        ended = await crowd.end()
        assert _kinds(ended) == [
            *["greedy"] * 3,
            "overloaded",
            "overloaded",
            "modest",
            "modest",
            "overloaded",
        ]
        for displaced in ended[3:5]:
            assert "key greedy has more of them than others" in displaced.detail
            assert displaced.retry_after_s >= 0.5

    run(scenario())


def test_an_owner_alone_has_the_whole_queue_and_displaces_nothing_of_its_own() -> None:
    async def scenario() -> None:
        crowd = Crowd(max_queued=4, hands=1)
        await crowd.come("", 6)
        assert _kinds(await crowd.end()) == [*[""] * 5, "overloaded"]

    run(scenario())


def test_work_under_way_is_never_displaced() -> None:
    async def scenario() -> None:
        crowd = Crowd(max_queued=1, hands=3)
        await crowd.come("greedy", 3)
        await crowd.come("modest")
        # Nothing of the greedy one waits.
        (refused,) = await crowd.come("modest")
        assert refused.done()
        assert _kinds(await crowd.end()) == ["greedy", "greedy", "greedy", "modest", "overloaded"]

    run(scenario())


def test_videos_take_half_of_the_threads_and_no_room_of_others() -> None:
    async def scenario() -> None:
        crowd = Crowd(max_queued=2, hands=4)
        await crowd.come("video", 9, Urgency.BULK)
        assert crowd.lane.running == 2 and crowd.lane.waiting == 7
        await crowd.come("click", 4, Urgency.INTERACTIVE)
        assert crowd.lane.running == 4 and crowd.lane.waiting == 9
        (refused,) = await crowd.come("click", 1, Urgency.INTERACTIVE)
        assert refused.done()
        ended = _kinds(await crowd.end())
        assert ended == [*["video"] * 9, *["click"] * 4, "overloaded"]
        assert sorted(crowd.order[:4]) == ["click", "click", "video", "video"]

    run(scenario())


def test_the_only_thread_is_for_videos_too() -> None:
    async def scenario() -> None:
        crowd = Crowd(max_queued=1, hands=1)
        await crowd.come("video", 2, Urgency.BULK)
        assert crowd.lane.running == 1
        assert _kinds(await crowd.end()) == ["video", "video"]

    run(scenario())


def test_anothers_queue_is_not_held_against_the_deadline() -> None:
    async def scenario() -> None:
        crowd = Crowd(max_queued=100, hands=1)
        # One piece in 0.1 s.
        with crowd.lane.request():
            await crowd.lane.run(lambda: time.sleep(0.1), Ticket(None))
        await crowd.come("greedy", 51)
        hasty = asyncio.create_task(crowd.lane.run(lambda: None, Ticket(2.0, "greedy")))
        await asyncio.sleep(0)
        assert hasty.done() and isinstance(error := hasty.exception(), ServiceError)
        assert error.kind is Kind.OVERLOADED and "its deadline would pass" in error.detail
        # Owners take turns: one of the greedy one's is before it, not fifty.
        (modest,) = [asyncio.create_task(crowd.lane.run(lambda: None, Ticket(2.0, "modest")))]
        await asyncio.sleep(0)
        assert not modest.done()
        await crowd.end()
        await asyncio.gather(modest, return_exceptions=True)

    run(scenario())


def test_who_was_displaced_and_leaves_takes_nothing_along() -> None:
    async def scenario() -> None:
        crowd = Crowd(max_queued=1, hands=1)
        await crowd.come("greedy", 1)
        (displaced,) = await crowd.come("greedy", 1)
        modest = asyncio.create_task(crowd.lane.run(lambda: None, Ticket(60.0, "modest")))
        asyncio.get_running_loop().call_soon(displaced.cancel)
        await asyncio.sleep(0.01)
        assert displaced.done() and crowd.lane.running == 1 and crowd.lane.waiting == 1
        await crowd.end()
        await modest
        assert crowd.lane.running == 0

    run(scenario())
