"""The embedded student, served as anyone does it, finds what is meant in its sample pictures."""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from model_store import registry
from model_store.demo.evaluate import deepest, iou
from model_store.demo.tasks import box_of
from service.client import Client
from service.video import Video, as_png
from tests.serving import Serving
from tests.tracked_clip import SAMPLES, decoded

_FACTS = json.loads((SAMPLES / "samples.json").read_text("utf-8"))["pictures"]
# What counts as found.
_FOUND = 0.5
# Frames of a clip that are looked at.
_FOLLOWED = 16

Mask = NDArray[np.bool_]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """Of a service whose store is empty: the student comes with the package."""
    folder = tmp_path_factory.mktemp("demo")
    serving = Serving(folder / "store" / registry.EMBEDDED, folder / "log", named=False, precision="f32")
    with serving, Client(serving.url) as client:
        yield client


def _things(picture: str) -> list[tuple[set[str], Mask]]:
    return [(set(one["names"]), decoded(one["mask"])) for one in _FACTS[picture]["things"]]


def _named(picture: str, name: str) -> list[Mask]:
    return [mask for names, mask in _things(picture) if name in names]


def _ask(client: Client, picture: str, *prompts: dict[str, Any]) -> list[list[Mask]]:
    answer = client.segment((SAMPLES / f"{picture}.jpg").read_bytes(), list(prompts))
    return [[decoded(segment.mask or {}) for segment in found] for found in answer.results]


def _inside(mask: Mask) -> dict[str, float]:
    """A click on the pixel that lies deepest in the mask."""
    x, y = deepest(mask)
    return {"x": x + 0.5, "y": y + 0.5}


def _box(mask: Mask) -> list[float]:
    return [float(edge) for edge in box_of(mask) * mask.shape[0]]


def _same(found: list[Mask], wanted: list[Mask]) -> bool:
    """Whether every wanted thing was found, and nothing else."""
    return len(found) == len(wanted) and all(
        max(iou(one, mask) for mask in found) >= _FOUND for one in wanted
    )


@pytest.mark.parametrize("text", ["dog", "a dog", "the dog"])
def test_dog_finds_the_dogs_and_not_the_cat(client: Client, text: str) -> None:
    found = _ask(client, "pets", {"text": text})[0]
    assert _same(found, _named("pets", "dog"))
    assert all(iou(mask, _named("pets", "cat")[0]) < 0.1 for mask in found)


def test_cat_finds_the_cat_and_not_the_dogs(client: Client) -> None:
    assert _same(_ask(client, "pets", {"text": "cat"})[0], _named("pets", "cat"))


@pytest.mark.parametrize(
    ("picture", "text", "name"),
    [
        ("pets", "animal", "animal"),
        ("pets", "animals", "animal"),
        ("fruit", "apples", "apple"),
        ("fruit", "an apple", "apple"),
        ("street", "tree", "tree"),
        ("farm", "the tractor", "tractor"),
        ("shapes", "triangle", "triangle"),
        ("shapes", "purple square", "purple square"),
    ],
)
def test_a_text_finds_every_instance(client: Client, picture: str, text: str, name: str) -> None:
    assert _same(_ask(client, picture, {"text": text})[0], _named(picture, name))


def test_what_is_not_there_is_not_found_nor_is_what_nobody_knows(client: Client) -> None:
    absent = [{"text": text} for text in ("elephant", "blue circle", "guitar", "qwertyuiop", "parliament")]
    for found, prompt in zip(_ask(client, "fruit", *absent), absent, strict=True):
        assert not found, prompt


@pytest.mark.parametrize(("picture", "name"), [("fruit", "apple"), ("pets", "dog"), ("shapes", "triangle")])
def test_an_exemplar_finds_what_is_like_it(client: Client, picture: str, name: str) -> None:
    wanted = _named(picture, name)
    exemplar = {"box": _box(wanted[0]), "positive": True}
    assert _same(_ask(client, picture, {"exemplars": [exemplar]})[0], wanted)


def test_a_click_and_a_box_find_the_object_they_mean(client: Client) -> None:
    bus = _named("street", "bus")[0]
    for prompt in ({"points": [_inside(bus) | {"positive": True}]}, {"box": _box(bus)}):
        assert iou(_ask(client, "street", prompt)[0][0], bus) >= 0.8, prompt


def test_a_negative_click_takes_away(client: Client) -> None:
    apple, other = _named("fruit", "apple")
    both = [_inside(apple) | {"positive": True}, _inside(other) | {"positive": False}]
    found = _ask(client, "fruit", {"points": both})[0][0]
    assert iou(found, apple) >= 0.7 and not (found & other).sum() > 0.1 * other.sum()


def test_objects_are_followed_through_a_sample_clip(client: Client) -> None:
    facts = json.loads((SAMPLES / "samples.json").read_text("utf-8"))["clips"]["traffic-lights"]
    things = [[decoded(mask) for mask in thing["masks"]] for thing in facts["things"]]
    session, found = client.open_session(), []
    with Video(SAMPLES / facts["file"]) as frames:
        for index, picture in enumerate(frames):
            prompts = [] if index else [{"box": _box(masks[0])} for masks in things]
            found.append(session.add(as_png(picture), prompts))
            if index == _FOLLOWED - 1:
                break
    assert [[each.id for each in frame.objects] for frame in found] == [[1, 2, 3]] * _FOLLOWED
    overlaps = [
        iou(decoded(each.mask), masks[frame.index])
        for frame in found
        for each, masks in zip(frame.objects, things, strict=True)
        if each.mask and masks[frame.index].any()
    ]
    assert np.mean(overlaps) >= 0.7
