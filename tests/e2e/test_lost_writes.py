"""A Redis that syncs once a second and is killed: it lost the last writes, which were answered already.

The worker that computed them writes them again. Where it is gone as well the session says that it was rolled
back, and goes on from there. Either way no answer is another than it would have been.
"""

from collections.abc import Iterator

import pytest

from service.client import Client
from service.errors import Kind, ServiceError
from tests.place import DEMO, Place, placed
from tests.tracked_clip import TEXT, clip, followed

FRAMES = 14
# Frames after which the size of Redis' file is noted, after which it is cut to that, and the worker killed.
NOTED, LOST, KILLED = 3, 6, 10
# Bytes of the write after that which are left, too: a write is there as a whole, or not at all.
TORN = 700


@pytest.fixture(scope="module")
def weak(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder, frames = tmp_path_factory.mktemp("weak"), clip(FRAMES, TEXT)
    settings = {"workers": 1, "gateways": 1, "engine": "openvino", "precision": "f32"}
    with placed(folder, DEMO, frames, sync="everysec", **settings) as place:
        yield place


class Loss:
    """Redis' file as it was after a frame, to be left so later."""

    def __init__(self, place: Place) -> None:
        self._redis, self._size = place.redis, 0

    def note(self) -> None:
        self._size = self._redis.file().stat().st_size

    def happen(self) -> None:
        written = self._redis.file().stat().st_size
        assert written > self._size + TORN, "something is lost"
        self._redis.lose(self._size + TORN)


def test_the_worker_writes_again_what_was_lost(weak: Place, way: str) -> None:
    undisturbed, loss = weak.undisturbed, Loss(weak)
    after = {NOTED: loss.note, LOST: loss.happen, KILLED: weak.deployment.kill_workers}
    with Client(weak.deployment.addresses_over(way)[0]) as client:
        # After the worker was killed everything comes from the store, which is whole again.
        assert followed(client.open_session(), weak.frames, after) == undisturbed


def test_a_session_whose_worker_is_gone_as_well_says_that_it_was_rolled_back(weak: Place, way: str) -> None:
    undisturbed, loss = weak.undisturbed, Loss(weak)
    with Client(weak.deployment.addresses_over(way)[0]) as client:
        session = client.open_session()
        found = followed(session, weak.frames[: LOST + 1], {NOTED: loss.note})
        weak.deployment.kill_workers()
        loss.happen()
        for ask in (
            lambda: followed(session, weak.frames[LOST + 1 :]),
            lambda: session.add(*weak.frames[LOST + 1]),
        ):
            session.next_frame = LOST + 1
            with pytest.raises(ServiceError) as rolled_back:
                ask()
            assert rolled_back.value.kind is Kind.SESSION_ROLLED_BACK
            # Redis writes to its file a little after it answers: the size may be that of a frame before.
            assert 0 < session.next_frame <= LOST
        kept = session.next_frame
        assert found[:kept] + followed(session, weak.frames[kept:]) == undisturbed


def test_a_lost_correction_is_noticed(weak: Place, way: str) -> None:
    loss, hidden = Loss(weak), [{"remove": {"object": 1}}]
    with Client(weak.deployment.addresses_over(way)[0]) as client:
        session = client.open_session()
        followed(session, weak.frames[:LOST])
        loss.note()
        session.correct(hidden, weak.frames[LOST - 1][0])
        weak.deployment.kill_workers()
        loss.happen()
        with pytest.raises(ServiceError) as rolled_back:
            session.add(*weak.frames[LOST])
        assert rolled_back.value.kind is Kind.SESSION_ROLLED_BACK
        assert "lost a correction" in rolled_back.value.detail and session.next_frame == LOST
        again = session.correct(hidden, weak.frames[LOST - 1][0])
        assert again.revision == 1 and 1 not in [each.id for each in again.objects]
        assert 1 not in [each.id for each in session.add(*weak.frames[LOST]).objects]
