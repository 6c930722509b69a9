"""What a person does with a picture: words, clicks, boxes, examples; and what they find."""

import json
import re
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from model_store.demo.evaluate import iou
from tests.page.browser import Person, box_around, expect, inside, overlaps, things
from tests.serving import Serving

# What counts as the right object: IoU with the sample's truth.
RIGHT = 0.8


@pytest.mark.parametrize(
    ("picture", "text"), [("pets", "dog"), ("pets", "cat"), ("fruit", "apple"), ("shapes", "triangle")]
)
def test_a_concept_finds_the_right_objects(person: Person, picture: str, text: str) -> None:
    if picture != "pets":
        person.sample(picture)
    person.find(text)
    found, wanted = person.found(), things(picture, text)
    ratios = overlaps(found, wanted)
    print(picture, text, "IoU", [round(each, 3) for each in ratios])
    assert len(found) == len(wanted) and min(ratios) >= RIGHT


def test_several_concepts_are_found_each_in_its_colour(person: Person) -> None:
    person.find("dog, cat")
    assert person.asked("/v1/images") == 1
    assert [len(person.found(text)) for text in ("dog", "cat")] == [2, 1]
    colours = person.page.locator("#image-prompts .swatch").evaluate_all(
        "all => all.map(each => getComputedStyle(each).backgroundColor)"
    )
    assert len(set(colours)) == 2
    # In the sight of the person too: the middle of a mask has taken on its colour.
    dog, cat = (inside(things("pets", text)[0]) for text in ("dog", "cat"))
    before = [Image.open("model_store/samples/pets.jpg").getpixel((int(x), int(y))) for x, y in (dog, cat)]
    assert all(
        np.abs(np.subtract(_seen(person, at), plain)).max() > 20
        for at, plain in zip((dog, cat), before, strict=True)
    )


def _seen(person: Person, at: tuple[float, float]) -> list[int]:
    """The colour of the canvas at a pixel of the picture."""
    x, y = person.place(*at)
    return list(
        person.page.evaluate(
            """([x, y]) => {
              const canvas = document.getElementById("image-canvas");
              const { left, top } = canvas.getBoundingClientRect();
              const ratio = canvas.width / canvas.clientWidth;
              const pixel = canvas.getContext("2d").getImageData((x - left) * ratio, (y - top) * ratio, 1, 1);
              return [...pixel.data].slice(0, 3);
            }""",
            [x, y],
        )
    )


def test_two_clicks_find_an_object(person: Person) -> None:
    person.sample("street")
    (bus,) = things("street", "bus")
    rows, columns = np.nonzero(bus)
    right = bus.copy()
    right[:, : int(np.median(columns)) + 10] = False
    person.click(inside(bus))
    person.click(inside(right))
    expect(person["image-prompts"]).to_contain_text("2 clicks")
    (found,) = person.found()
    print("two clicks IoU", round(iou(found, bus), 3), len(rows))
    assert iou(found, bus) >= RIGHT


@pytest.mark.parametrize(("picture", "name"), [("street", "bus"), ("fruit", "banana"), ("farm", "tractor")])
def test_a_box_finds_an_object(person: Person, picture: str, name: str) -> None:
    person.sample(picture)
    wanted = things(picture, name)[0]
    person.drag(box_around(wanted))
    (found,) = person.found()
    print("box", name, "IoU", round(iou(found, wanted), 3))
    assert iou(found, wanted) >= RIGHT


def test_a_negative_click_takes_away(person: Person) -> None:
    person.sample("fruit")
    apple, other = things("fruit", "apple")
    # A box around both says that both are meant; a click says that one is not.
    both = box_around(apple | other)
    person.drag(both)
    (before,) = person.found()
    person.click(inside(apple))
    person.click(inside(other), negative=True)
    (after,) = person.found()
    taken = (before & other).sum() - (after & other).sum()
    print("negative click:", int((before & other).sum()), "->", int((after & other).sum()), "pixels of the other")
    assert taken > 0.5 * other.sum() or (before & other).sum() == 0
    assert (after & other).sum() < 0.1 * other.sum() and iou(after, apple) >= 0.6


@pytest.mark.parametrize(("picture", "name"), [("fruit", "apple"), ("pets", "dog"), ("shapes", "triangle")])
def test_an_example_finds_what_is_like_it(person: Person, picture: str, name: str) -> None:
    if picture != "pets":
        person.sample(picture)
    wanted = things(picture, name)
    person.hold("example")
    person.drag(box_around(wanted[0]))
    found = person.found()
    ratios = overlaps(found, wanted)
    print("example", name, "IoU", [round(each, 3) for each in ratios])
    assert len(found) == len(wanted) and min(ratios) >= RIGHT


def test_a_negative_example_goes_to_the_chosen_concept(person: Person) -> None:
    person.find("animal")
    before = person.found()
    (cat,) = things("pets", "cat")
    person.hold("example", "-")
    person.drag(box_around(cat))
    expect(person["image-prompts"].get_by_role("listitem")).to_have_count(1)
    request = json.loads(person.requests[-1].post_data or "{}") if person.requests else {}
    sent = next(
        json.loads(each.post_data or "{}")
        for each in reversed(person.requests)
        if each.url.endswith("/v1/segment")
    )
    (prompt,) = sent["prompts"]
    assert prompt["text"] == "animal" and prompt["exemplars"][0]["positive"] is False, request
    assert overlaps(before, [cat])[0] >= RIGHT
    print("negative example: cat IoU", overlaps(person.found(), [cat]))


def test_the_threshold_works_at_once_and_without_a_request(person: Person) -> None:
    person.find("animal")
    shown = len(person.found())

    def raise_it() -> None:
        person["image-threshold"].fill("0.95")

    assert person.meanwhile("/v1/segment", raise_it) == 0
    expect(person["image-segments"].get_by_role("listitem")).to_have_count(0)
    expect(person["image-count"]).to_contain_text("below the score")
    person["image-threshold"].fill("0.2")
    assert len(person.found()) >= shown > 0


def test_what_was_done_is_undone_without_a_request(person: Person) -> None:
    person.find("dog")
    person.find("cat")
    dogs_and_cat = person["image-segments"].inner_text()

    def back_and_forth() -> None:
        person["image-undo"].click()
        expect(person["image-segments"]).not_to_have_text(dogs_and_cat)
        expect(person["image-prompts"].get_by_role("listitem")).to_have_count(1)
        person["image-redo"].click()
        expect(person["image-prompts"].get_by_role("listitem")).to_have_count(2)
        person["image-clear"].click()
        expect(person["image-prompts"].get_by_role("listitem")).to_have_count(0)
        person.page.keyboard.press("Control+z")
        expect(person["image-prompts"].get_by_role("listitem")).to_have_count(2)

    assert person.meanwhile("/v1/segment", back_and_forth) == 0
    assert person["image-segments"].inner_text() == dogs_and_cat


def test_hovering_shows_label_and_score(person: Person) -> None:
    person.find("cat")
    (cat,) = things("pets", "cat")
    person.page.mouse.move(*person.place(*inside(cat)))
    expect(person["image-tip"]).to_have_text(_SCORED)
    person.page.mouse.move(*person.place(2, 2))
    expect(person["image-tip"]).to_be_hidden()


_SCORED = re.compile(r"^cat 0\.\d\d$")


def test_the_keyboard_alone_does_it(visit: Callable[..., Person], service: Serving) -> None:
    person = visit(service.url)
    person.open()
    keyboard = person.page.keyboard
    # Words.
    keyboard.press("/")
    keyboard.type("cat")
    keyboard.press("Enter")
    person.answered()
    assert overlaps(person.found("cat"), things("pets", "cat"))[0] >= RIGHT
    # A click: the crosshair begins in the middle of the picture, on the large dog's ear or near it.
    keyboard.press("Shift+Delete")
    person["image-text"].blur()
    person["image-canvas"].focus()
    _steer(person, inside(things("pets", "cat")[0]))
    keyboard.press("Enter")
    person.answered()
    assert overlaps(person.found(), things("pets", "cat"))[0] >= 0.5
    # A box.
    keyboard.press("Shift+Delete")
    person["image-canvas"].focus()
    x0, y0, x1, y1 = box_around(things("pets", "cat")[0])
    _steer(person, (x0, y0))
    keyboard.press("b")
    _steer(person, (x1, y1), (x0, y0))
    keyboard.press("Enter")
    person.answered()
    assert overlaps(person.found(), things("pets", "cat"))[0] >= RIGHT
    # And what was asked is taken along.
    while person.page.evaluate("document.activeElement.id") != "image-coco":
        keyboard.press("Tab")
    keyboard.press("Enter")
    expect(person["image-copied"]).to_contain_text("is on the clipboard")


def _steer(person: Person, to: tuple[float, float], since: tuple[float, float] | None = None) -> None:
    """Move the crosshair by small steps, two screen pixels or one of the picture each."""
    scale = person.page.evaluate(
        "async () => (await import('/page/view.js')).fittingScale({ width: 384, height: 384 },"
        " document.getElementById('image-canvas'))"
    )
    step = max(1, round(2 / scale))
    at = since or person.steered or (192.5, 192.5)
    for axis, (less, more) in enumerate((("ArrowLeft", "ArrowRight"), ("ArrowUp", "ArrowDown"))):
        by = round((to[axis] - at[axis]) / step)
        for _ in range(abs(by)):
            person.page.keyboard.press(f"Shift+{more if by > 0 else less}")
    person.steered = to
