"""Objects of a small student followed by its exported graphs, beside the modules they were exported from."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model_store import artifact as artifacts
from model_store.networks.student import Student
from service.config import EngineName, Precision, WorkerSettings
from service.worker.engines import Engine, open_engine
from service.worker.run import Arrays, Run
from service.worker.scenes import Scene, Seen
from service.worker.tracker.bank import Track, span_of
from service.worker.tracker.follow import Follower, Found, Prompted, at_once
from tests.torch_engine import TorchEngine

FRAMES = 5
CLICK = Prompted(np.array([(0.4, 0.5), (0, 0)], np.float32), np.array([1, -1], np.int32))
BOX = Prompted(np.array([(0.1, 0.1), (0.6, 0.7), (0, 0)], np.float32), np.array([2, 3, -1], np.int32))
NOTHING = np.zeros((0, 2), np.float32), np.zeros(0, np.int32)


@pytest.fixture
def follower(artefact: Path) -> Follower:
    manifest = artifacts.read(artefact)
    assert manifest.memory is not None
    return Follower(
        manifest.memory, manifest.constants, mask_size=manifest.mask_size, image_size=manifest.image_size
    )


def _see(run: Run, side: int, frame: int) -> Seen:
    """A bright square that moves to the right."""
    pixels = np.full((1, side, side, 3), 40, np.uint8)
    pixels[0, 20:50, 10 + 4 * frame : 40 + 4 * frame] = (220, 180, 90)
    embedding = run("image_encoder", pixels=pixels)["embedding"]
    return Seen(Scene("", side, side, None, embedding), run("interactive_features", embedding=embedding))


def _follow(
    engine: Engine, follower: Follower, side: int, prompts: Mapping[int, Mapping[int, Prompted]]
) -> list[list[Found]]:
    """Tracks begin with their first prompt. By frame."""
    tracks: list[Track] = []
    answers = []
    for frame in range(FRAMES):
        run = Run(engine, lambda: None)
        asked = prompts.get(frame, {})
        tracks += [Track(id) for id in asked if id not in {track.id for track in tracks}]
        seen = _see(run, side, frame)
        chosen = follower.look(run, seen, frame, span_of(None), tracks, asked)
        found = follower.keep(run, seen, frame, tracks, chosen, asked)
        tracks = [each.track for each in found]
        answers.append(found)
    return answers


class Counted:
    """An engine, and how many rows its graphs were given at once."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.rows: dict[str, set[int]] = {}

    def run(self, graph: str, inputs: Arrays) -> Arrays:
        if "image" in inputs:
            self.rows.setdefault(graph, set()).add(len(inputs["image"]))
        return self._engine.run(graph, inputs)


def test_more_objects_than_fit_at_once_are_followed_in_parts(student: Student, follower: Follower) -> None:
    side, shown = student.sizes.image_size, [CLICK, BOX, CLICK] * 6
    engine: Any = Counted(TorchEngine(student))
    many = _follow(engine, follower, side, {0: dict(enumerate(shown, 1))})
    assert engine.rows["prompt_decoder"] == engine.rows["memory_encoder"] == {16, 2}
    assert [[found.track.id for found in frame] for frame in many] == [list(range(1, 19))] * FRAMES


def test_what_a_dense_memory_takes_bounds_how_many_attend_to_it_at_once() -> None:
    cells = np.zeros((1, 1, 72, 72), np.float32)
    for tokens, most in ((72 * 72, 1), (320, 2)):
        past = {"memory": np.broadcast_to(np.float32(0), (64, 7, tokens, 64))}
        assert at_once(cells, past) == most


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_objects_of_different_ages_are_followed_alike_by_graphs_and_modules(
    artefact: Path, student: Student, follower: Follower, engine: EngineName
) -> None:
    shown = np.zeros((30, 60), np.bool_)
    shown[5:20, 10:30] = True
    given = Prompted(*NOTHING, follower.given(shown, width=60, height=30))
    prompts = {0: {1: CLICK}, 1: {5: BOX}, 2: {8: given}, 3: {1: BOX}}
    manifest = artifacts.read(artefact)
    graphs = {name: artefact / graph.file for name, graph in manifest.graphs.items()}
    served = open_engine(graphs, WorkerSettings(engine=engine, precision="f32", threads=1))
    side = manifest.image_size
    answers = _follow(served, follower, side, prompts)
    expected = _follow(TorchEngine(student), follower, side, prompts)
    assert [[found.track.id for found in frame] for frame in answers] == [[1], [1, 5], *[[1, 5, 8]] * 3]
    for ours, theirs in zip(answers, expected, strict=True):
        for one, other in zip(ours, theirs, strict=True):
            assert one.visible == other.visible
            assert np.abs(one.logits - other.logits).max() <= 2e-2
            assert one.iou == pytest.approx(other.iou, abs=2e-3)


def test_a_given_mask_is_the_answer_and_an_empty_one_says_that_nothing_is_there(
    student: Student, follower: Follower
) -> None:
    shown = np.zeros((20, 20), np.bool_)
    shown[5:15, 5:15] = True
    prompts = {
        0: {
            id: Prompted(*NOTHING, follower.given(mask, width=20, height=20))
            for id, mask in ((1, shown), (2, np.zeros_like(shown)))
        }
    }
    first, second = _follow(TorchEngine(student), follower, student.sizes.image_size, prompts)[0]
    side = student.sizes.mask_size
    assert first.visible and (first.logits > 0)[side // 2, side // 2] and not (first.logits > 0)[0, 0]
    assert not second.visible and not (second.logits > 0).any()


def test_no_objects_cost_nothing(follower: Follower) -> None:
    class Unused:
        name = "unused"
        precisions: Mapping[str, Precision] = {}

        def run(self, graph: str, inputs: object) -> dict[str, np.ndarray]:
            raise AssertionError(graph)

        def close(self) -> None:
            pass

    run = Run(Unused(), lambda: None)
    seen = Seen(Scene("", 1, 1, None), {})
    assert follower.look(run, seen, 0, span_of(None), [], {}) == []
    assert follower.keep(run, seen, 0, [], [], ()) == []
