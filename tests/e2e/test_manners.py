"""Under load: who leaves frees a place, who is too late is not computed, who is one too many is told so."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import httpx
import pytest

from service.client import AsyncClient
from service.errors import Kind, ServiceError
from service.pb.efficientsam3.v1 import segmentation_pb2 as pb
from service.pb.efficientsam3.v1.segmentation_pb2_grpc import SegmentationStub
from service.rpc import from_rpc_error
from tests.deployment import Deployment
from tests.pictures import encoded, street
from tests.place import DEMO

# Of one worker: one is worked on while so many wait; and the gateway admits so many at all.
QUEUE = 4
ADMITTED = QUEUE + 1
PROMPTS = [{"text": "truck"}]
JPEG = encoded(street(160, 120))
_NUMBERS = itertools.count()

Asked = list["asyncio.Task[Any]"]


def picture() -> bytes:
    """One that nobody has seen: what follows a JPEG's end makes it another file."""
    return JPEG + next(_NUMBERS).to_bytes(4, "big")


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """A gateway before a worker that works on one request at a time, and whose engine can be held."""
    folder = tmp_path_factory.mktemp("house")
    settings = {"concurrency": 1, "max_queued": QUEUE, "precision": "f32"}
    with Deployment(DEMO, folder, "", workers=1, gateways=1, held=True, **settings) as house:
        yield house
        assert "Traceback" not in house.logs()


class Crowd:
    """Clients that ask at once."""

    def __init__(self, house: Deployment, address: str, client: AsyncClient) -> None:
        self._house, self._address, self._client = house, address, client
        self.asked: Asked = []

    def ask(self, count: int) -> Asked:
        """So many more."""
        new = [asyncio.create_task(self._client.segment(picture(), PROMPTS)) for _ in range(count)]
        self.asked += new
        return new

    async def fill(self) -> None:
        """One is worked on, the first, and the queue is full."""
        self.ask(1)
        await self.until_waiting(0)
        self.ask(QUEUE)
        await self.until_waiting(QUEUE)

    async def until_waiting(self, count: int) -> None:
        """Return when one is worked on, and so many wait."""
        await self._house.until(1, "worker_running_requests", 0)
        await self._house.until(count, "worker_waiting_requests", 0)

    async def refused(self, timeout_s: float = 60) -> ServiceError:
        """What one more is told."""
        async with AsyncClient(self._address, patience_s=0, timeout_s=timeout_s) as client:
            with pytest.raises(ServiceError) as refused:
                await client.segment(picture(), PROMPTS)
        return refused.value


@asynccontextmanager
async def crowd(house: Deployment, way: str, patience_s: float = 0) -> AsyncIterator[Crowd]:
    """All are answered but who left: at once, or with patience."""
    (address,) = house.addresses_over(way)
    async with AsyncClient(address, patience_s=patience_s) as client:
        yield (crowd := Crowd(house, address, client))
        answers = await asyncio.gather(*crowd.asked, return_exceptions=True)
    stayed = [answer for answer in answers if not isinstance(answer, asyncio.CancelledError)]
    assert [answer for answer in stayed if isinstance(answer, BaseException)] == []


def computed(house: Deployment, graph: str) -> float:
    """How many rows of the graph the worker has computed, ever."""
    return house.told("engine_batch_rows_sum", 0, graph=graph)


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, 120))


def test_who_leaves_is_not_computed_and_frees_a_place(house: Deployment, way: str) -> None:
    async def scenario() -> None:
        before = [computed(house, graph) for graph in ("image_encoder", "concept_decoder")]
        left = house.told("requests_total", kind="cancelled")
        async with crowd(house, way) as clients:
            with house.holding():
                await clients.fill()
                assert (await clients.refused()).kind is Kind.OVERLOADED
                first, *_, last, other = clients.asked
                last.cancel()
                other.cancel()
                await clients.until_waiting(QUEUE - 2)
                clients.ask(2)
                await clients.until_waiting(QUEUE)
                first.cancel()
                await house.until(left + 3, "requests_total", kind="cancelled")
                # It comes to the worker behind the news that the first has left.
                assert (await clients.refused()).kind is Kind.OVERLOADED
        # Of the first the engine had the picture already.
        done = [computed(house, graph) for graph in ("image_encoder", "concept_decoder")]
        assert done == [before[0] + QUEUE + 1, before[1] + QUEUE]

    run(scenario())


def test_who_has_a_millisecond_is_refused_and_not_computed(house: Deployment) -> None:
    before = computed(house, "image_encoder")
    for _ in range(5):
        answer = posted(house, **{"X-Deadline-Ms": "1"})
        assert (answer.status_code, answer.json()["type"]) == (504, "/problems/deadline_exceeded")
    with grpc.insecure_channel(f"127.0.0.1:{house.ports['grpc'][0]}") as channel:
        stub = SegmentationStub(channel)
        request = pb.SegmentRequest(image=pb.Image(data=picture()), prompts=[pb.Prompt(text="truck")])
        for _ in range(5):
            with pytest.raises(grpc.RpcError) as refused:
                stub.Segment(request, timeout=0.001)
            assert from_rpc_error(refused.value).kind is Kind.DEADLINE_EXCEEDED
        # The worker does one at a time: whatever it had of those it would have done before this.
        assert stub.Segment(request, timeout=60).results
    assert computed(house, "image_encoder") == before + 1


def test_whose_deadline_passes_in_the_queue_is_told_then_and_not_computed(
    house: Deployment, way: str
) -> None:
    async def scenario() -> None:
        before = computed(house, "image_encoder")
        async with crowd(house, way) as clients:
            with house.holding():
                clients.ask(1)
                await clients.until_waiting(0)
                # Long enough for what the one before it is expected to take.
                assert (await clients.refused(timeout_s=3.0)).kind is Kind.DEADLINE_EXCEEDED
                assert house.told("worker_waiting_requests", 0) == 0
        assert computed(house, "image_encoder") == before + 1

    run(scenario())


def test_a_full_queue_refuses_while_the_engine_stands_still(house: Deployment, way: str) -> None:
    async def scenario() -> None:
        full = house.told("worker_refusals_total", 0, reason="full")
        async with crowd(house, way) as clients:
            with house.holding():
                await clients.fill()
                told = await clients.refused()
                assert told.kind is Kind.OVERLOADED and told.retry_after_s is not None
                assert f"{ADMITTED} requests waiting or running" in told.detail
                answer = await asyncio.to_thread(posted, house)
                assert (answer.status_code, answer.json()["type"]) == (429, "/problems/overloaded")
                assert int(answer.headers["retry-after"]) >= 1
                # Nobody was kept waiting for the engine to be told so.
                assert not any(each.done() for each in clients.asked)
        # Nor did the worker have to do it.
        assert house.told("worker_refusals_total", 0, reason="full") == full

    run(scenario())


def test_a_gateway_refuses_while_its_worker_stands_still(house: Deployment, way: str) -> None:
    async def scenario() -> None:
        async with crowd(house, way, patience_s=60) as clients:
            (worker,) = house.workers
            worker.freeze()
            try:
                clients.ask(ADMITTED)
                await house.until(ADMITTED, "inflight_requests")
                told = await clients.refused()
                assert told.kind is Kind.OVERLOADED and told.retry_after_s is not None
                answer = await asyncio.to_thread(posted, house)
                assert (answer.status_code, answer.json()["type"]) == (429, "/problems/overloaded")
                assert int(answer.headers["retry-after"]) >= 1
                assert not any(each.done() for each in clients.asked)
            finally:
                worker.wake()

    run(scenario())


def posted(house: Deployment, **headers: str) -> httpx.Response:
    """What one more request over HTTP is answered, whose answer is not translated by a client."""
    files = {"image": ("picture", picture()), "request": (None, json.dumps({"prompts": PROMPTS}))}
    return httpx.post(f"{house.urls[0]}/v1/segment", files=files, headers=headers, timeout=60)
