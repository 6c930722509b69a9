"""Work is spread over the iterations of the event loop, by turns between its owners."""

import asyncio
import itertools
from collections import Counter

from service.errors import Kind, ServiceError
from service.gateway.turns import Turns

LIMIT = 4096


def test_one_piece_of_work_runs_in_an_iteration() -> None:
    done: list[str] = []
    counts: list[int] = []

    async def scenario() -> None:
        turns = Turns()
        for _ in range(5):
            turns.run("owner", lambda: done.append("owner"))
        for _ in range(10):
            await asyncio.sleep(0)
            counts.append(len(done))

    asyncio.run(scenario())
    assert all(after - before <= 1 for before, after in itertools.pairwise([0, *counts]))
    assert counts[-1] == 5


def test_an_owner_with_little_work_does_not_wait_for_one_with_much() -> None:
    done: list[str] = []

    async def scenario() -> None:
        turns = Turns()
        for _ in range(100):
            turns.run("much", lambda: done.append("much"))
        for _ in range(3):
            turns.run("little", lambda: done.append("little"))
        ended = asyncio.Event()
        turns.run("much", ended.set)
        await ended.wait()

    asyncio.run(scenario())
    assert Counter(done[:7])["little"] == 3


def test_beyond_the_limit_of_waiting_starts_the_owner_alone_is_refused() -> None:
    async def scenario() -> None:
        turns = Turns()
        waiting = [asyncio.create_task(turns.start("many")) for _ in range(LIMIT + 2)]
        other = asyncio.create_task(turns.start("other"))
        ended = await asyncio.gather(*waiting, return_exceptions=True)
        await other
        refused = [error for error in ended if error is not None]
        assert len(refused) == 1
        assert isinstance(refused[0], ServiceError) and refused[0].kind is Kind.OVERLOADED
        assert refused[0].retry_after_s

    asyncio.run(scenario())


def test_a_canceled_start_gives_its_turn_to_the_next() -> None:
    async def scenario() -> None:
        turns = Turns()
        starts = [asyncio.create_task(turns.start("owner")) for _ in range(10)]
        await asyncio.sleep(0)
        for start in starts[1:9]:
            start.cancel()
        async with asyncio.timeout(5):
            await starts[9]

    asyncio.run(scenario())
