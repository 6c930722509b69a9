"""What a worker had begun to compute when it was lost is not computed by another; what waited is."""

import asyncio
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import grpc.aio
import pytest

from service.client import Answer, AsyncClient
from service.errors import Kind, ServiceError
from service.pb.efficientsam3.v1 import segmentation_pb2 as segmentation_pb
from service.pb.efficientsam3.v1 import tracking_pb2 as pb
from service.pb.efficientsam3.v1.tracking_pb2_grpc import TrackingStub
from service.rpc import from_rpc_error
from tests.deployment import Deployment, Process
from tests.pictures import encoded, moving_clip, street
from tests.place import DEMO
from tests.redis_server import RedisServer

JPEG = encoded(street(160, 120))
FRAMES = 8
_NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """A gateway before two workers that compute one request at a time, and whose engines can be held."""
    folder = tmp_path_factory.mktemp("lost")
    redis = RedisServer(folder / "redis")
    settings = {"concurrency": 1, "precision": "f32"}
    with (
        redis.running(),
        Deployment(DEMO, folder, redis.url, gateways=1, held=True, **settings) as deployment,
    ):
        yield deployment
        assert "Traceback" not in deployment.logs()


@pytest.mark.parametrize("lose", [Process.kill, Process.freeze], ids=["killed", "frozen"])
def test_what_a_lost_worker_had_begun_is_not_computed_by_another(
    deployment: Deployment, way: str, lose: Callable[[Process], None]
) -> None:
    async def scenario() -> None:
        await asyncio.to_thread(deployment.complete)
        before = computed(deployment, 1)
        (address,) = deployment.addresses_over(way)
        async with AsyncClient(address, patience_s=0) as client:
            with deployment.holding():
                asked: list[asyncio.Task[Answer]] = []
                # A worker that has just come back gets few requests at first.
                while not await asyncio.to_thread(both_are_busy, deployment):
                    asked.append(asyncio.create_task(client.segment(picture(), [{"text": "truck"}])))
                    await asyncio.sleep(0.2)
                lose(deployment.workers[0])
                # The one that it computed. Those that waited wait for the other worker now.
                (done,), _ = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED, timeout=60)
                await deployment.until(len(asked) - 2, "worker_waiting_requests", 1)
            answers = await asyncio.gather(*asked, return_exceptions=True)
        failures = [answer for answer in answers if isinstance(answer, BaseException)]
        assert [done.exception()] == failures
        refused = failures[0]
        assert isinstance(refused, ServiceError) and refused.kind is Kind.UNAVAILABLE
        assert "stopped while it computed this request" in refused.detail
        assert refused.retry_after_s is not None
        assert computed(deployment, 1) == before + len(asked) - 1

    try:
        asyncio.run(asyncio.wait_for(scenario(), 180))
    finally:
        # A frozen one would not be found dead.
        deployment.workers[0].kill()


def test_the_frame_of_a_video_that_a_lost_worker_had_begun_is_not_computed_by_another(
    deployment: Deployment, tmp_path_factory: pytest.TempPathFactory
) -> None:
    clip = moving_clip(tmp_path_factory.mktemp("clip"), FRAMES).read_bytes()

    async def scenario() -> None:
        await asyncio.to_thread(deployment.complete)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{deployment.ports['grpc'][0]}") as channel:
            stub: Any = TrackingStub(channel)
            undisturbed = [frame async for frame in stub.TrackVideo(video(clip)) if frame.HasField("frame")]
            deployment.workers[0].mark()
            deployment.workers[1].mark()
            answers = aiter(stub.TrackVideo(video(clip)))
            session = (await anext(answers)).opened.session
            found = [await anext(answers) for _ in range(2)]
            with deployment.holding():
                (index,) = await running(deployment)
                other = 1 - index
                before = deployment.told("engine_batch_rows_sum", other)
                deployment.workers[index].kill()
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    found += [frame async for frame in answers]
            error = from_rpc_error(refused.value)
            assert error.kind is Kind.UNAVAILABLE
            assert "stopped while it computed" in error.detail
            assert deployment.told("engine_batch_rows_sum", other) == before
            # The client decides that the frame is sound, and another worker goes on with the same masks.
            first = (await stub.GetSession(pb.SessionRequest(session=session))).next_frame
            assert first >= len(found)
            rest = video(clip, first=len(found), session=session)
            found += [frame async for frame in stub.TrackVideo(rest) if frame.HasField("frame")]
        assert masks(found) == masks(undisturbed)

    asyncio.run(asyncio.wait_for(scenario(), 180))


def picture() -> bytes:
    """One that no worker knows: what follows a JPEG's end makes it another file."""
    return JPEG + next(_NUMBERS).to_bytes(4, "big")


def both_are_busy(deployment: Deployment) -> bool:
    """Whether each worker computes a request while another waits there."""
    return all(
        deployment.told(metric, worker)
        for metric in ("worker_running_requests", "worker_waiting_requests")
        for worker in (0, 1)
    )


def computed(deployment: Deployment, worker: int) -> float:
    """How many images the worker has encoded."""
    return deployment.told("engine_batch_rows_sum", worker, graph="image_encoder")


async def running(deployment: Deployment) -> list[int]:
    """The workers that compute something, once there is one."""
    while True:
        found = [
            worker
            for worker in (0, 1)
            if await asyncio.to_thread(deployment.told, "worker_running_requests", worker)
        ]
        if found:
            return found
        await asyncio.sleep(0.01)


def video(clip: bytes, first: int = 0, session: str = "") -> pb.TrackVideoRequest:
    shown = pb.TrackPrompt(points=[segmentation_pb.Point(x=30, y=30)])
    opening = pb.OpenSessionRequest(session=session)
    return pb.TrackVideoRequest(open=opening, video=clip, first=first, prompts=[pb.VideoPrompt(prompt=shown)])


def masks(answers: list[pb.TrackResponse]) -> list[tuple[int, list[str]]]:
    return [(each.frame.frame, [found.mask.rle for found in each.frame.objects]) for each in answers]
