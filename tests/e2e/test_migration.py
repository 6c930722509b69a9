"""A session that is moved while several of its frames are in flight: its masks stay the same, to the bit.

With fixed batching they stay so beside any load, too; with dynamic batching they are nearly the same there.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from service.client import Client
from tests.command import run_command
from tests.place import DEMO, PATIENCE_S, Place, placed
from tests.relay import Relay
from tests.tracked_clip import FRAMES, TEXT, clip, followed, likeness, pictures

# The least that is of full size.
FULL_SIZE = "es-ev-s-perceiver"


def test_workers_are_killed(place: Place, way: str) -> None:
    deployment = place.deployment
    deployment.complete()
    after = {
        # The other one goes on; this one comes back, and the session comes back to it.
        5: lambda: deployment.busiest().kill(),
        8: deployment.complete,
        11: deployment.kill_workers,
        14: deployment.complete,
        17: lambda: deployment.busiest().kill(),
    }
    assert place.disturbed(deployment.addresses_over(way)[0], after) == place.undisturbed


def test_the_stream_is_cut_in_the_middle_of_an_answer_and_goes_on_at_the_other_gateway(
    place: Place, way: str
) -> None:
    place.deployment.complete()
    with Relay(place.deployment.ports[way], way) as relay:
        after = {frame: lambda: relay.cut(after_bytes=100) for frame in (5, 11, 17)}
        assert place.disturbed(relay.url, after) == place.undisturbed
        assert relay.cuts == 3


def test_redis_is_killed(place: Place, way: str) -> None:
    place.deployment.complete()
    after = {5: place.restart_redis, 17: place.restart_redis}
    assert place.disturbed(place.deployment.addresses_over(way)[0], after) == place.undisturbed


def test_the_session_is_forked(place: Place, way: str) -> None:
    place.deployment.complete()
    with Client(place.deployment.addresses_over(way)[0]) as client:
        session = client.open_session()
        first = followed(session, place.frames[:12])
        for each in (session.fork(), session):
            assert first + followed(each, place.frames[12:]) == place.undisturbed


@pytest.mark.slow
def test_a_full_size_student_is_moved(tmp_path: Path) -> None:
    """One worker, which is not there while it starts again: two do not fit beside each other everywhere."""
    run_command("variants", "synthesize", FULL_SIZE, "--store", str(tmp_path / "store"))
    settings = {"workers": 1, "engine": "openvino", "precision": "f32"}
    with (
        placed(tmp_path, tmp_path / "store" / FULL_SIZE, clip(8), **settings) as place,
        Relay(place.deployment.ports["http"]) as relay,
    ):
        after = {
            1: place.deployment.kill_workers,
            3: place.restart_redis,
            5: lambda: relay.cut(after_bytes=100),
        }
        assert place.disturbed(relay.url, after) == place.undisturbed
        assert relay.cuts == 1


@pytest.mark.slow
def test_a_stream_whose_answers_take_long_stays_open(place: Place) -> None:
    """Longer than a peer may leave a ping without an answer, by default."""
    deployment = place.deployment
    deployment.complete()

    def lose_all_workers_for_a_while() -> None:
        deployment.lose_workers()
        threading.Timer(45, deployment.start).start()

    with Relay(deployment.ports["http"]) as relay, Client(relay.url, timeout_s=PATIENCE_S) as client:
        session = client.open_session()
        before = relay.connections
        answers = followed(session, place.frames, {5: lose_all_workers_for_a_while})
        assert answers == place.undisturbed
        assert relay.connections == before + 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("batching", "precision"), [("fixed", "f32"), ("fixed", "bf16"), ("dynamic", "f32"), ("dynamic", "bf16")]
)
def test_beside_the_load_of_others(
    tmp_path: Path, batching: str, precision: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """bf16 is what OpenVINO has on processors that compute in it; there its likeness is told, not bounded."""
    settings = {"engine": "openvino", "precision": precision, "batching": batching}
    with placed(tmp_path, DEMO, clip(FRAMES, TEXT), **settings) as place:
        place.deployment.complete()
        alone = place.undisturbed
        with load(place):
            beside = place.disturbed(place.deployment.urls[0], {})
        with capsys.disabled():
            same = likeness(beside, alone)
            print(f"\n{batching}, {precision}, beside others: mean IoU {same:.6f} with the session alone")
        assert batching == "dynamic" or beside == alone
        assert precision == "bf16" or same >= 0.999


@contextmanager
def load(place: Place) -> Iterator[None]:
    """Two other sessions, and images with texts and clicks, without a pause; each must be answered."""
    over, failed, answered = threading.Event(), list[BaseException](), dict[str, int]()

    def busy(name: str, work: Callable[[Client], object]) -> None:
        try:
            with Client(place.deployment.urls[1]) as client:
                while not over.is_set():
                    work(client)
                    answered[name] = answered.get(name, 0) + 1
        except BaseException as error:
            failed.append(error)

    def session(client: Client) -> None:
        for _ in client.open_session().stream(place.frames):
            if over.is_set():
                return

    def images(client: Client) -> None:
        for picture in pictures():
            client.segment(picture, [{"text": TEXT}, {"points": [{"x": 100, "y": 150}]}])
            if over.is_set():
                return

    with ExitStack() as stack:
        for name, work in (("one", session), ("two", session), ("images", images)):
            thread = threading.Thread(target=busy, args=(name, work))
            thread.start()
            stack.callback(thread.join)
        stack.callback(over.set)
        yield
    assert not failed and answered.keys() == {"one", "two", "images"}, failed
