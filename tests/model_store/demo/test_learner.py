"""One step of each kind, on shapes: what is trained gets a gradient, and a few steps lower the loss."""

from pathlib import Path

import pytest
import torch

from model_store.demo import plan
from model_store.demo.feed import Feed
from model_store.demo.learner import Learner
from model_store.demo.scenes import World
from model_store.demo.student import Words, sizes
from model_store.demo.train import Place, Training


@pytest.fixture
def feed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Feed:
    monkeypatch.setattr(plan, "PICTURES", 2)
    monkeypatch.setattr(plan, "CROPS", 4)
    monkeypatch.setattr(plan, "PHRASES", 6)
    monkeypatch.setattr(plan, "CLIPS", 1)
    monkeypatch.setattr(plan, "CLIP_FRAMES", 3)
    world = World.load(tmp_path, ())
    return Feed(world, Words(world.vocabulary), seed=1, rank=0, ranks=1)


@pytest.fixture
def training(tmp_path: Path) -> Training:
    torch.manual_seed(0)
    return Training(Learner(sizes()), Place(0, 1, torch.device("cpu")), tmp_path, seed=1)


def _step_of(kind: str, after: int = -1) -> int:
    return next(step for step in range(after + 1, plan.steps()) if plan.kind_at(1, step) == kind)


def test_every_part_of_the_student_learns_from_pictures(training: Training, feed: Feed) -> None:
    step = _step_of("pictures")
    # Not every batch shows an exemplar.
    while not (feed[step]["exemplar_labels"] >= 0).any():
        step = _step_of("pictures", after=step)
    # Layers that begin at 0 pass nothing on in the first step, and not every step has prompts of all kinds.
    idle = {name for name, _ in training.learner.student.named_parameters()}
    for _ in range(4):
        training.step = step
        losses = training.learn(feed[step])
        assert {"concept", "masks", "objects"} <= losses.keys()
        idle -= {
            name
            for name, parameter in training.learner.student.named_parameters()
            if parameter.grad is not None and parameter.grad.abs().sum() > 0
        }
    # Points as exemplars are not asked for, no answer may have needed a negative click, and of the proposals
    # the best learns alone. A bias that is added to every key, or before a norm, makes no difference.
    unasked = ("geometry.points", "objects.points.labels.0", "output_hypernetworks", "bias", "memory.")
    assert not {name for name in idle if not any(part in name for part in unasked)}


def test_clips_teach_the_memory_and_the_decoder_but_not_the_trunk(training: Training, feed: Feed) -> None:
    batch = feed[_step_of("clips")]
    assert batch["pixels"].shape[1] == 3 and batch["masks"].shape[2] == plan.FOLLOWED
    training.step = plan.WARM_UP
    first = training.learn(dict(batch))["track"]
    student = training.learner.student
    # An absent object is not in every clip, nor is a mask prompt.
    seldom = ("no_pointer", "absent", "mask_prompt", "bias")
    assert not {
        name
        for name, parameter in student.memory.named_parameters()
        if parameter.grad is None and not any(part in name for part in seldom)
    }
    assert all(parameter.grad is None for parameter in student.image.parameters())
    for _ in range(12):
        training.step = plan.WARM_UP
        last = training.learn(dict(batch))["track"]
    assert last < 0.8 * first


def test_crops_teach_trunk_and_text(training: Training, feed: Feed) -> None:
    batch = feed[_step_of("crops")]
    first = training.learn(dict(batch))["crop"]
    for _ in range(12):
        training.step = plan.WARM_UP
        last = training.learn(dict(batch))["crop"]
    assert last < 0.8 * first


def test_an_interrupted_training_goes_on_as_if_nothing_had_happened(
    training: Training, feed: Feed, tmp_path: Path
) -> None:
    training.learn(feed[0])
    training.save()
    resumed = Training(Learner(sizes()), Place(0, 1, torch.device("cpu")), tmp_path, seed=1)
    resumed.resume()
    assert resumed.step == training.step == 1
    assert training.learn(feed[1]) == resumed.learn(feed[1])
    for name, tensor in training.average.items():
        assert torch.equal(tensor, resumed.average[name]), name


def test_a_run_of_another_seed_is_not_taken_up(training: Training, tmp_path: Path) -> None:
    training.save()
    other = Training(Learner(sizes()), Place(0, 1, torch.device("cpu")), tmp_path, seed=2)
    with pytest.raises(SystemExit, match="seed 1"):
        other.resume()
