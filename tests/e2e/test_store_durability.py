"""What a session survives by the durability of its store: a flushed Redis, and no Redis at all."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from service.client import Client
from service.errors import Kind, ServiceError
from service.pb.efficientsam3.v1 import segmentation_pb2 as segmentation_pb
from service.pb.efficientsam3.v1 import tracking_pb2 as pb
from service.pb.efficientsam3.v1.tracking_pb2_grpc import TrackingStub
from tests.deployment import Deployment
from tests.place import DEMO, Place, placed
from tests.tracked_clip import TEXT, clip, followed

FRAMES, LOST, KILLED = 9, 3, 6
BOX = pb.TrackPrompt(box=segmentation_pb.Box(x0=30, y0=40, x1=90, y1=160))
_ONE = {"workers": 1, "gateways": 1, "engine": "openvino", "precision": "f32"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """One gateway and one worker before a Redis that loses all, as one without persistence does."""
    with placed(tmp_path_factory.mktemp("flushed"), DEMO, clip(FRAMES, TEXT), **_ONE) as place:
        yield place


def flush(place: Place) -> None:
    """Lose everything that the store has."""
    with place.redis.client() as client:
        assert client.dbsize() > 0
        client.flushall()


def test_the_worker_writes_a_flushed_session_again(place: Place, way: str) -> None:
    undisturbed = place.undisturbed
    after = {LOST: lambda: flush(place), KILLED: place.deployment.kill_workers}
    with Client(place.deployment.addresses_over(way)[0]) as client:
        # After the worker was killed everything comes from the store, which is whole again.
        assert followed(client.open_session(), place.frames, after) == undisturbed


def test_a_flushed_session_without_its_worker_is_not_found(place: Place, way: str) -> None:
    with Client(place.deployment.addresses_over(way)[0]) as client:
        session = client.open_session()
        followed(session, place.frames[:LOST])
        place.deployment.kill_workers()
        flush(place)
        with pytest.raises(ServiceError) as lost:
            session.add(*place.frames[LOST])
        assert lost.value.kind is Kind.SESSION_NOT_FOUND
        with pytest.raises(ServiceError) as lost:
            session.state()
        assert lost.value.kind is Kind.SESSION_NOT_FOUND
        # The service goes on, and so does whoever opens a new session.
        assert followed(client.open_session(), place.frames[:1]) == place.undisturbed[:1]


def test_without_redis_a_session_ends_with_its_worker(tmp_path: Path) -> None:
    frames = clip(LOST + 1)
    with (
        Deployment(DEMO, tmp_path, "", batching="fixed", **_ONE) as deployment,
        Client(deployment.urls[0]) as client,
    ):
        session = client.open_session()
        followed(session, frames[:LOST])
        deployment.kill_workers()
        with pytest.raises(ServiceError) as lost:
            session.add(*frames[LOST])
        assert lost.value.kind is Kind.SESSION_NOT_FOUND
        assert followed(client.open_session(), frames[:1])[0]["frame"] == 0


def test_what_is_answered_after_a_flush_is_not_undone_by_another_worker(tmp_path: Path) -> None:
    """Both workers have the session in memory, and the one with the newer claim has less of it."""
    frames = [
        pb.Frame(frame=index, image={"data": image}, prompts=[] if index else [BOX])
        for index, (image, _) in enumerate(clip(4))
    ]
    with placed(tmp_path, DEMO, clip(1), workers=2, gateways=1, engine="openvino", precision="f32") as place:
        one, two = (place.deployment.stub(worker) for worker in place.deployment.workers)
        id = one.OpenSession(pb.OpenSessionRequest()).session

        def add(stub: TrackingStub, index: int) -> pb.FrameAnswer:
            return stub.AddFrame(pb.AddFrameRequest(session=id, frame=frames[index]), timeout=60)

        add(one, 0)
        older = add(two, 1)
        # It takes the session over again, and answers the frame that was answered.
        assert add(one, 1).objects == older.objects
        flush(place)
        answered = add(two, 2)
        assert add(one, 3).frame == 3
        assert add(one, 2).objects == answered.objects
