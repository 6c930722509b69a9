import hashlib
from pathlib import Path

import numpy as np
import pytest

from model_store.demo import drawings, tasks
from model_store.demo.clips import clip
from model_store.demo.scenes import Scene, World, blend, crop, scene
from model_store.demo.student import Words


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A world that needs no drawings."""
    return World.load(tmp_path_factory.mktemp("drawings"), ())


def _digest(made: Scene) -> str:
    masks = b"".join(thing.mask.tobytes() for thing in made.things)
    return hashlib.sha256(made.pixels.tobytes() + masks).hexdigest()[:16]


def test_a_seed_gives_the_same_scene_on_every_machine(shapes: World) -> None:
    digests = ["ef66fe06adfcc589", "2e385f6dff37805c", "fb13b1c8c32c738c"]
    assert [_digest(scene(shapes, seed)) for seed in (0, 1, 2)] == digests


@pytest.mark.parametrize("seed", range(20))
def test_what_is_visible_of_things_does_not_overlap_and_is_not_tiny(shapes: World, seed: int) -> None:
    made = scene(shapes, seed)
    assert made.pixels.shape == (256, 256, 3) and made.pixels.dtype == np.uint8
    for thing in made.things:
        assert thing.mask.sum() >= 60 and thing.names
    if made.things:
        assert np.sum([thing.mask for thing in made.things], axis=0).max() == 1


def test_a_shape_has_the_colour_that_it_is_called_by(shapes: World) -> None:
    """In the middle of it: a border has another tone."""
    checked = 0
    for seed in range(60):
        made, thing = crop(shapes, seed, side=96)
        name = max(thing.names, key=len)
        colour, _, shape = name.partition(" ")
        if shape in ("circle", "square") and thing.mask.all(axis=None) is not True:
            rows, columns = thing.mask.nonzero()
            middle = made.pixels[int(rows.mean()), int(columns.mean())].astype(int)
            values = shapes.vocabulary.colours
            nearest = min(values, key=lambda one: int(((np.array(values[one]) - middle) ** 2).sum()))
            checked += nearest == colour
    assert checked >= 5


def test_a_sample_asks_for_what_is_there_and_for_what_is_not(shapes: World) -> None:
    words, generator = Words(shapes.vocabulary), np.random.Generator(np.random.PCG64(0))
    present = absent = shown = 0
    for seed in range(30):
        sample = tasks.sample(scene(shapes, seed), shapes.vocabulary, words, generator)
        wanted, labels = sample["wanted"], sample["exemplar_labels"]
        assert not wanted[:, ~sample["real"]].any()
        present += int(wanted.any(1).sum())
        absent += int((~wanted.any(1)).sum())
        shown += int((labels == 1).any(1).sum())
        # What is shown as an example is wanted.
        for row in np.flatnonzero((labels == 1).any(1)):
            assert wanted[row].any()
    assert min(present, absent, shown) > 5


def test_a_box_goes_round_its_mask() -> None:
    mask = np.zeros((10, 20), bool)
    mask[2:5, 4:10] = True
    assert tasks.box_of(mask).tolist() == pytest.approx([0.2, 0.2, 0.5, 0.5])


def test_without_npm_the_drawings_are_missed_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(drawings.StoreError, match="there is no npm on this machine"):
        World.load(tmp_path, drawings.STYLES)


def test_other_drawings_than_those_trained_on_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By an npm that gives something else."""
    npm = tmp_path / "npm"
    icons = " ".join(f"node_modules/@iconify-json/{style}" for style in drawings.DIGESTS)
    npm.write_text(f"#!/bin/sh\nfor one in {icons}; do mkdir -p $one; echo '{{}}' > $one/icons.json; done\n")
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(drawings.StoreError, match="other drawings"):
        World.load(tmp_path / "drawings", drawings.STYLES)


def test_a_clip_follows_things_that_hide_leave_and_come_back(shapes: World) -> None:
    returned = 0
    for seed in range(12):
        made = clip(shapes, seed, 16, side=64)
        assert made.pixels.shape == (16, 64, 64, 3) and made.masks.shape == (16, 3, 64, 64)
        assert made.masks[0].any((1, 2)).all() and all(made.names)
        assert made.masks.sum(1).max() == 1
        seen = made.masks.any((2, 3))
        returned += int(((~seen[:-1]) & seen[1:]).sum())
        # It moves.
        assert (made.pixels[0] != made.pixels[-1]).any()
    assert returned > 3


def test_a_seed_gives_the_same_clip_on_every_machine(shapes: World) -> None:
    made = clip(shapes, 0, 4)
    digest = hashlib.sha256(made.pixels.tobytes() + made.masks.tobytes()).hexdigest()[:16]
    assert digest == "5987c03330a75a3b"


@pytest.mark.parametrize(("x", "y"), [(70, 10), (10, 70), (-9, 10), (10, -9), (64, 64)])
def test_a_sprite_that_lies_outside_changes_nothing(x: int, y: int) -> None:
    pixels = np.zeros((64, 64, 3), np.uint8)
    mask = blend(pixels, np.full((8, 8, 4), 255, np.uint8), x, y)
    assert not mask.any() and not pixels.any()


def test_a_sprite_on_the_edge_is_cut() -> None:
    pixels = np.zeros((64, 64, 3), np.uint8)
    mask = blend(pixels, np.full((8, 8, 4), 255, np.uint8), 60, -3)
    assert mask.sum() == 4 * 5 and mask[:5, 60:].all() and (pixels[:5, 60:] == 255).all()
