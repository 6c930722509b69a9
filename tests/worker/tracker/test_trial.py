"""Instances of a text on trial, frame by frame through the loop, with detections that the test chooses."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from service.config import Precision, WorkerSettings
from service.pb.efficientsam3.v1 import segmentation_pb2 as segmentation_pb
from service.pb.efficientsam3.v1 import tracking_pb2 as pb
from service.worker.run import Run
from service.worker.scenes import Scene, Seen
from service.worker.tracker.associate import Rules
from service.worker.tracker.bank import Track
from service.worker.tracker.follow import Chosen, Follower, Found, Prompted
from service.worker.tracker.frame import Frames
from service.worker.tracker.instances import Detections, Instances
from service.worker.tracker.shown import answer_of
from service.worker.tracker.state import HEAD, Origin, State, head_of, packed, state_of, tensors_of
from service.worker.tracker.trial import Trial

SIDE = 16
ORIGIN = Origin("small", "digest")
TEXT = pb.TrackPrompt(text="square")
CLICK = pb.TrackPrompt(object=1, points=[segmentation_pb.Point(x=3, y=3)])
Logits = NDArray[np.float32]


def square(x0: int, y0: int) -> Logits:
    """A square of six cells."""
    logits = np.full((SIDE, SIDE), -5.0, np.float32)
    logits[y0 : y0 + 6, x0 : x0 + 6] = 5.0
    return logits


HERE, THERE = square(0, 0), square(9, 9)


class Unused:
    name = "unused"
    precisions: Mapping[str, Precision] = {}

    def run(self, graph: str, inputs: object) -> dict[str, Logits]:
        raise AssertionError(graph)

    def close(self) -> None:
        pass


class Still(Follower):
    """Every object is where the test says, or where its prompt does; nothing is computed."""

    def __init__(self) -> None:
        self.side, self.memory_side = SIDE, SIDE
        self.places: dict[int, Logits] = {}

    def look(
        self,
        run: Run,
        seen: Seen,
        frame: int,
        span: int,
        tracks: Sequence[Track],
        prompts: Mapping[int, Prompted],
    ) -> list[Chosen]:
        found = []
        for track in tracks:
            prompt = prompts.get(track.id)
            given = prompt.given.logits if prompt is not None and prompt.given is not None else HERE
            found.append(Chosen(self.places.get(track.id, given), 1.0, 5.0, np.zeros(4, np.float32)))
        return found

    def keep(
        self,
        run: Run,
        seen: Seen,
        frame: int,
        tracks: Sequence[Track],
        chosen: Sequence[Chosen],
        prompted: Collection[int],
        settled: Collection[int] = (),
    ) -> list[Found]:
        rows = list(zip(tracks, chosen, strict=True))
        for track, each in rows:
            self.places.setdefault(track.id, each.logits)
        return [Found(track, each.logits, each.iou, each.object_score) for track, each in rows]


class Watch:
    """A session whose state goes through the store's form after every frame."""

    def __init__(self, confirm_frames: int, detect_every: int = 0) -> None:
        self.follower = Still()
        self._there: Sequence[Logits] = ()
        self._options = pb.TrackOptions(detect_every=detect_every)
        self._rules = Rules(confirm_frames=confirm_frames)
        self._loop = Frames(self.follower, Instances(self.follower, self._find), WorkerSettings())
        self._frame = 0
        self.state = State(ORIGIN, options=self._options)

    def see(self, *there: Logits, prompts: Sequence[pb.TrackPrompt] = ()) -> list[int]:
        """Ids of the objects that are answered on the next frame, where the text finds what is `there`.

        The text comes with the first frame.
        """
        self._there = there
        run = Run(Unused(), lambda: None)
        seen = Seen(Scene("", SIDE, SIDE, None), {})
        asked = [*prompts] if self._frame else [TEXT, *prompts]
        step = self._loop.step(run, seen, self._frame, self.state, asked, self._rules)
        parts = {HEAD: head_of(step.state), **{k: packed(v) for k, v in tensors_of(step.state).items()}}
        self.state = state_of(parts, ORIGIN)
        assert self.state == step.state
        answer = answer_of(pb.Frame(frame=self._frame), seen.scene, step, self._options, 1 << 20, run.go_on)
        self._frame += 1
        assert all(found.visible for found in answer.objects)
        return [found.object for found in answer.objects]

    @property
    def followed(self) -> list[int]:
        """Ids of all objects, answered or not."""
        return [track.id for track in self.state.tracks]

    def _find(self, run: Run, scene: Scene, texts: Sequence[str], threshold: float) -> list[Detections]:
        found = np.stack(self._there) if self._there else np.zeros((0, SIDE, SIDE), np.float32)
        return [Detections((0.9,) * len(self._there), found) for _ in texts]


@pytest.mark.parametrize("confirm_frames", [0, 1])
def test_without_a_trial_an_instance_is_answered_at_once(confirm_frames: int) -> None:
    watch = Watch(confirm_frames)
    assert watch.see(HERE) == [1]
    assert [watch.see() for _ in range(9)] == [[1]] * 9


def test_an_instance_is_answered_from_the_frame_on_that_confirms_it() -> None:
    watch = Watch(3)
    assert [watch.see(HERE) for _ in range(3)] == [[], [], [1]]
    # Later it may be missed as often as it likes.
    assert [watch.see() for _ in range(9)] == [[1]] * 9


def test_a_miss_only_delays_what_is_found_again() -> None:
    watch = Watch(4)
    assert [watch.see(*there) for there in ([HERE], [], [HERE], [], [HERE])] == [[]] * 5
    assert watch.followed == [1]
    assert watch.see(HERE) == [1]


def test_an_instance_that_too_many_frames_miss_is_forgotten_unseen_and_its_id_with_it() -> None:
    watch = Watch(4)
    assert [watch.see(*there) for there in ([HERE], [], [])] == [[]] * 3 and watch.followed == [1]
    assert watch.see() == [] and watch.followed == []
    assert [watch.see(THERE) for _ in range(4)] == [[], [], [], [2]]


def test_of_two_instances_of_one_thing_the_younger_is_forgotten() -> None:
    watch = Watch(3)
    watch.see(HERE, THERE)
    watch.follower.places[2] = HERE
    assert watch.see(HERE) == [] and watch.followed == [1, 2]
    assert watch.see(HERE) == [1] and watch.followed == [1]


def test_who_shows_an_instance_confirms_it() -> None:
    watch = Watch(60)
    assert watch.see(HERE) == []
    assert watch.see(prompts=[CLICK]) == [1]
    assert [watch.see() for _ in range(60)] == [[1]] * 60


def test_frames_on_which_nothing_is_looked_for_do_not_count() -> None:
    watch = Watch(2, detect_every=3)
    assert [watch.see(HERE) for _ in range(3)] == [[]] * 3
    assert watch.see(HERE) == [1]


def test_the_references_numbers_are_those_of_15_frames() -> None:
    missed, shared, found = Trial(), Trial(), Trial()
    for frame in range(1, 16):
        assert (missed.failed(15), shared.failed(15)) == (frame > 8, frame > 8)
        assert found.passed(15) == (frame >= 15)
        missed = missed.after(found=False, shared=False)
        shared = shared.after(found=True, shared=True)
        found = found.after(found=True, shared=False)
