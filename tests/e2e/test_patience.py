"""The patience of the client with a worker that is frozen longer than a deadline."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from service.client import AsyncClient, Client, Frame
from service.client.sessions import Sent
from service.errors import Kind, ServiceError
from tests.deployment import Deployment, Process
from tests.pictures import encoded, moving_clip, moving_square
from tests.place import DEMO
from tests.redis_server import RedisServer

FRAMES, FROZEN = 8, 3
CLICK = {"points": [{"x": 30, "y": 30}]}
SENT: list[Sent] = [
    (encoded(moving_square(index), "PNG"), [] if index else [CLICK]) for index in range(FRAMES)
]
# A try of a frame: longer than one takes on a busy machine, and shorter than the worker is frozen for.
TIMEOUT_S, PATIENCE_S = 3.0, 300.0


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """One worker of the embedded student behind one gateway, with a Redis."""
    folder = tmp_path_factory.mktemp("patience")
    redis = RedisServer(folder / "redis", "no")
    settings = {"batching": "fixed", "precision": "f32", "probe_interval_s": 0.5}
    with (
        redis.running(),
        Deployment(DEMO, folder, redis.url, workers=1, gateways=1, **settings) as deployment,
    ):
        yield deployment
        assert "Traceback" not in deployment.logs()


@pytest.fixture(scope="module")
def expected(deployment: Deployment) -> list[object]:
    """What is found on the frames when nothing happens."""
    with Client(deployment.urls[0], timeout_s=PATIENCE_S) as client:
        return found(list(client.open_session().stream(SENT)))


def found(frames: list[Frame]) -> list[object]:
    assert [frame.index for frame in frames] == list(range(len(frames)))
    return [{**frame.raw, "timings_ms": None} for frame in frames]


class Freezing:
    """Freezes a worker, and wakes it when a request has failed since."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._worker: Process = deployment.workers[0]
        self._waking: threading.Thread | None = None
        while deployment.told("inflight_requests"):
            threading.Event().wait(0.1)
        self._before = self._passed()

    def freeze(self) -> None:
        assert self._passed() == self._before
        self._worker.freeze()
        self._waking = threading.Thread(target=self._wake_after)
        self._waking.start()

    def wait(self) -> None:
        assert self._waking is not None
        self._waking.join()

    def _wake_after(self) -> None:
        try:
            for _ in range(300):
                if self._passed() > self._before:
                    return
                threading.Event().wait(0.1)
            raise AssertionError("no request failed")
        finally:
            self._worker.wake()

    def _passed(self) -> int:
        """Requests that ended without an answer: their deadline passed, or their client waited no longer."""
        (gateway,) = self._deployment.gateways
        lines = gateway.log.read_text().splitlines()
        return sum(" kind=" in line and " kind=ok " not in line for line in lines)


@contextmanager
def freezing(deployment: Deployment) -> Iterator[Freezing]:
    freezing = Freezing(deployment)
    try:
        yield freezing
    finally:
        freezing.wait()
        deployment.complete()


def one_by_one(client: Client, at: Callable[[int], None]) -> list[Frame]:
    session = client.open_session()
    frames = []
    for index, (image, prompts) in enumerate(SENT):
        at(index)
        frames.append(session.add(image, prompts))
    return frames


def streamed(client: Client, at: Callable[[int], None]) -> list[Frame]:
    frames = []
    for frame in client.open_session().stream(SENT, in_flight=2):
        frames.append(frame)
        at(frame.index)
    return frames


@pytest.mark.parametrize("follow", [one_by_one, streamed])
def test_a_frame_whose_deadline_passed_is_asked_for_again(
    deployment: Deployment,
    expected: list[object],
    way: str,
    follow: Callable[[Client, Callable[[int], None]], list[Frame]],
) -> None:
    (address,) = deployment.addresses_over(way)
    with (
        freezing(deployment) as frozen,
        Client(address, timeout_s=TIMEOUT_S, patience_s=PATIENCE_S) as client,
    ):
        frames = follow(client, lambda index: frozen.freeze() if index == FROZEN else None)
        frozen.wait()
    assert found(frames) == expected


def test_a_frame_is_asked_for_again_without_a_thread_too(
    deployment: Deployment, expected: list[object], way: str
) -> None:
    (address,) = deployment.addresses_over(way)

    async def follow(frozen: Freezing) -> list[Frame]:
        async with AsyncClient(address, timeout_s=TIMEOUT_S, patience_s=PATIENCE_S) as client:
            session = await client.open_session()
            frames = [await session.add(*each) for each in SENT[:FROZEN]]
            await asyncio.to_thread(frozen.freeze)
            frames.append(await session.add(*SENT[FROZEN]))
            return frames + [frame async for frame in session.stream(SENT[FROZEN + 1 :])]

    with freezing(deployment) as frozen:
        frames = asyncio.run(follow(frozen))
    assert found(frames) == expected


def test_a_video_whose_deadline_passed_is_gone_on_with(
    deployment: Deployment, tmp_path_factory: pytest.TempPathFactory, way: str
) -> None:
    (address,) = deployment.addresses_over(way)
    clip = moving_clip(tmp_path_factory.mktemp("clip"), 3 * FRAMES).read_bytes()
    with Client(deployment.urls[0], timeout_s=PATIENCE_S) as client:
        expected = found(list(client.track_video(clip, [CLICK])))
    with (
        freezing(deployment) as frozen,
        Client(address, timeout_s=TIMEOUT_S, patience_s=PATIENCE_S) as client,
    ):
        frames = []
        for frame in client.track_video(clip, [CLICK]):
            frames.append(frame)
            if frame.index == 1:
                frozen.freeze()
        frozen.wait()
    assert found(frames) == expected


def test_an_image_keeps_the_deadline_of_its_caller(deployment: Deployment, way: str) -> None:
    (address,) = deployment.addresses_over(way)
    with (
        freezing(deployment) as frozen,
        Client(address, timeout_s=TIMEOUT_S, patience_s=PATIENCE_S) as client,
    ):
        frozen.freeze()
        with pytest.raises(ServiceError) as late:
            client.segment(SENT[0][0], [CLICK])
        frozen.wait()
    assert late.value.kind is Kind.DEADLINE_EXCEEDED
