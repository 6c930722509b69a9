"""SIGTERM while 50 requests are under way: whoever was admitted is answered."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc.aio
import httpx
import pytest

from service.client import AsyncClient
from service.pb.efficientsam3.v1 import segmentation_pb2 as segmentation_pb
from service.pb.efficientsam3.v1 import tracking_pb2 as pb
from service.pb.efficientsam3.v1.tracking_pb2_grpc import TrackingStub
from tests.deployment import Deployment
from tests.pictures import encoded, moving_square, street
from tests.place import DEMO

COUNT = 50
PROMPTS = [{"text": "truck"}]
JPEG = encoded(street(160, 120))
BOX = segmentation_pb.Box(x0=10, y0=10, x1=50, y1=45)
# Frames of each of some sessions, sent without waiting for an answer.
SESSIONS, FRAMES = 2, 10
_NUMBERS = itertools.count()


@pytest.fixture
def house(tmp_path: Path) -> Iterator[Deployment]:
    """A gateway before a worker whose engine can be held: the test's own, since it stops them."""
    with Deployment(DEMO, tmp_path, "", workers=1, gateways=1, held=True, precision="f32") as house:
        yield house
        assert "Traceback" not in house.logs()


@asynccontextmanager
async def clients(house: Deployment) -> AsyncIterator[list[AsyncClient]]:
    """One over each way, which ask once."""
    (http,), (over_grpc,) = house.addresses_over("http"), house.addresses_over("grpc")
    async with AsyncClient(http, patience_s=0) as one, AsyncClient(over_grpc, patience_s=0) as other:
        yield [one, other]


async def segmented(client: AsyncClient) -> bool:
    """Whether a picture that nobody has seen is answered."""
    picture = JPEG + next(_NUMBERS).to_bytes(4, "big")
    return bool((await client.segment(picture, PROMPTS)).results)


async def until_gone(url: str) -> None:
    """Return when nothing listens there."""
    async with httpx.AsyncClient() as client:
        while True:
            try:
                await client.get(f"{url}/healthz")
            except httpx.TransportError:
                return
            await asyncio.sleep(0.01)


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, 120))


def test_a_gateway_answers_what_it_admitted(house: Deployment) -> None:
    (gateway,) = house.gateways

    async def scenario() -> None:
        async with clients(house) as both:
            with house.holding():
                asked = [asyncio.create_task(segmented(both[index % 2])) for index in range(COUNT)]
                await house.until(COUNT, "inflight_requests")
                gateway.terminate()
                await until_gone(house.urls[0])
                assert not [each.exception() for each in asked if each.done()]
            assert await asyncio.gather(*asked) == [True] * COUNT

    run(scenario())
    assert gateway.ended() == 0


def test_a_worker_answers_what_it_was_given_frames_of_sessions_too(house: Deployment) -> None:
    (worker,) = house.workers

    async def scenario() -> None:
        async with clients(house) as both, tracking(house) as stub:
            sessions = [(await stub.OpenSession(pb.OpenSessionRequest())).session for _ in range(SESSIONS)]
            with house.holding():
                frames = [
                    stub.AddFrame(pb.AddFrameRequest(session=session, frame=frame(index)))
                    for index in range(FRAMES)
                    for session in sessions
                ]
                await house.until(len(frames), "worker_inflight_requests", 0)
                rest = range(COUNT - len(frames))
                asked = [asyncio.create_task(segmented(both[index % 2])) for index in rest]
                # What the gateway has admitted is not yet what the worker was given.
                await house.until(COUNT, "worker_inflight_requests", 0)
                worker.terminate()
                await house.until(0, "workers_ready")
                assert not any(each.done() for each in (*asked, *frames))
            answers = await asyncio.gather(*frames)
            assert [answer.frame for answer in answers] == [i for i in range(FRAMES) for _ in sessions]
            assert await asyncio.gather(*asked) == [True] * len(asked)

    run(scenario())
    assert worker.ended() == 0


@asynccontextmanager
async def tracking(house: Deployment) -> "AsyncIterator[Any]":
    async with grpc.aio.insecure_channel(f"127.0.0.1:{house.ports['grpc'][0]}") as channel:
        yield TrackingStub(channel)


def frame(index: int) -> pb.Frame:
    image = segmentation_pb.Image(data=encoded(moving_square(index), "PNG"))
    return pb.Frame(frame=index, image=image, prompts=[] if index else [pb.TrackPrompt(box=BOX)])


def test_who_asks_on_while_one_of_two_workers_stops_does_not_notice(tmp_path: Path) -> None:
    with Deployment(DEMO, tmp_path, "", workers=2, gateways=1, precision="f32") as house:
        stopping, staying = house.workers

        async def ask_on(client: AsyncClient, stopped: asyncio.Event) -> int:
            answered = 0
            while not stopped.is_set():
                assert await segmented(client)
                answered += 1
            return answered

        async def scenario() -> None:
            stopped = asyncio.Event()
            async with clients(house) as both:
                asking = [asyncio.create_task(ask_on(both[index % 2], stopped)) for index in range(COUNT)]
                await house.until(COUNT, "inflight_requests")
                stopping.terminate()
                assert await asyncio.to_thread(stopping.ended) == 0
                stopped.set()
                assert min(await asyncio.gather(*asking)) > 0

        run(scenario())
        assert staying.runs
        assert "Traceback" not in house.logs()
