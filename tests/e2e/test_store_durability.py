"""What a session survives by the durability of its store: a flushed Redis, and no Redis at all."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from service.client import Client
from service.errors import Kind, ServiceError
from tests.deployment import Deployment
from tests.place import DEMO, Place, placed
from tests.tracked_clip import TEXT, clip, followed

FRAMES, LOST, KILLED = 9, 3, 6
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
