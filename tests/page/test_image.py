"""What a person asks of a picture: words, clicks, boxes, examples; and what they find."""

import io
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from model_store.demo.evaluate import iou
from tests.page.browser import Mask, Person, box_around, inside, overlaps, things
from tests.tracked_clip import SAMPLES

pytestmark = pytest.mark.page

# What counts as the right object: IoU with the sample's truth.
RIGHT = 0.8


@pytest.mark.parametrize(
    ("picture", "text"), [("fruit", "apple"), ("shapes", "triangle"), ("street", "tree"), ("farm", "tractor")]
)
def test_a_concept_finds_the_right_objects(person: Person, picture: str, text: str) -> None:
    person.sample(picture)
    person.find(text)
    found, wanted = person.found(text), things(picture, text)
    ratios = overlaps(found, wanted)
    print(f"{text}: IoU", [round(float(each), 3) for each in ratios])
    assert len(found) == len(wanted) and min(ratios) >= RIGHT


def test_several_concepts_are_found_each_in_its_colour(
    person: Person, shot: Callable[[Page, str], None]
) -> None:
    person.find("dog, cat")
    assert len(person.sent("/v1/images")) == 1
    assert [len(person.found(text)) for text in ("dog", "cat")] == [2, 1]
    colours = person.page.locator("#image-prompts .swatch").evaluate_all(
        "all => all.map((each) => getComputedStyle(each).backgroundColor)"
    )
    assert len(set(colours)) == 2
    # In a person's sight, too: where a mask lies the picture has taken on its colour, elsewhere it has not.
    with Image.open(SAMPLES / "pets.jpg") as picture:
        plain = np.asarray(picture.convert("RGB")).astype(int)
    shares = {each: person.found(each)[0] for each in ("dog", "cat")}
    for mask, colour in zip(shares.values(), colours, strict=True):
        x, y = inside(mask)
        mixed = 0.55 * plain[int(y), int(x)] + 0.45 * np.array(
            [int(each) for each in re.findall(r"\d+", colour)]
        )
        assert np.abs(_seen(person, (x, y)) - mixed).max() < 24
    x, y = inside(~np.logical_or.reduce(person.found()))
    assert np.abs(_seen(person, (x, y)) - plain[int(y), int(x)]).max() < 24
    shot(person.page, "image-concepts")
    person.prompts().filter(has_text="cat").get_by_role("button", name="Take cat away").click()
    assert [len(person.found(text)) for text in ("dog", "cat")] == [2, 0]


def _seen(person: Person, at: tuple[float, float]) -> Any:
    """The colour of the screen at a pixel of the picture: red, green, blue."""
    x, y = person.place(*at)
    screen = person.page.screenshot(clip={"x": round(x), "y": round(y), "width": 1, "height": 1})
    return np.array(Image.open(io.BytesIO(screen)).convert("RGB").getpixel((0, 0)))


def test_two_clicks_find_an_object(person: Person) -> None:
    person.sample("street")
    (bus,) = things("street", "bus")
    person.click(inside(bus))
    person.click(inside(_right_of_the_middle(bus)))
    expect(person.prompts()).to_have_count(1)
    expect(person.prompts()).to_contain_text("2 clicks")
    (found,) = person.found()
    print("two clicks: IoU", round(iou(found, bus), 3))
    assert iou(found, bus) >= RIGHT


def _right_of_the_middle(mask: Mask) -> Mask:
    right = mask.copy()
    right[:, : int(np.median(np.nonzero(mask)[1])) + 10] = False
    return right


@pytest.mark.parametrize(("picture", "name"), [("street", "bus"), ("fruit", "banana"), ("farm", "tractor")])
def test_a_box_finds_an_object(person: Person, picture: str, name: str) -> None:
    person.sample(picture)
    (wanted,) = things(picture, name)
    person.drag(box_around(wanted))
    (found,) = person.found()
    print(f"box around the {name}: IoU", round(iou(found, wanted), 3))
    assert iou(found, wanted) >= RIGHT


def test_a_negative_click_takes_away(person: Person, shot: Callable[[Page, str], None]) -> None:
    person.sample("fruit")
    apple, other = things("fruit", "apple")
    # A box around both says that both are meant; clicks say which one is.
    person.drag(box_around(apple | other))
    person.click(inside(apple))
    (before,) = person.found()
    person.click(inside(other), negative=True)
    (after,) = person.found()
    shares = [(mask & other).sum() / other.sum() for mask in (before, after)]
    print(
        "share of the other apple before and after a negative click:",
        [round(float(each), 3) for each in shares],
    )
    assert shares[1] < 0.1 and iou(after, apple) >= 0.7
    shot(person.page, "image-negative")


@pytest.mark.parametrize(("picture", "name"), [("fruit", "apple"), ("pets", "dog"), ("shapes", "triangle")])
def test_an_example_finds_what_is_like_it(person: Person, picture: str, name: str) -> None:
    if picture != "pets":
        person.sample(picture)
    wanted = things(picture, name)
    person.hold("example")
    person.drag(box_around(wanted[0]))
    found = person.found()
    ratios = overlaps(found, wanted)
    print(f"like the {name}: IoU", [round(float(each), 3) for each in ratios])
    assert len(found) == len(wanted) and min(ratios) >= RIGHT


def test_a_negative_example_goes_to_the_chosen_concept(person: Person) -> None:
    person.sample("farm")
    person.find("animal")
    (pig,) = things("farm", "pig")
    before = person.found()
    assert overlaps(before, [pig])[0] >= RIGHT
    person.hold("example", "-")
    person.drag(box_around(pig))
    expect(person.prompts()).to_have_count(1)
    expect(person.prompts()).to_contain_text("1 example")
    (prompt,) = person.sent("/v1/segment")[-1].post_data_json["prompts"]
    (exemplar,) = prompt["exemplars"]
    assert (prompt["text"], exemplar["positive"]) == ("animal", False)
    assert np.abs(np.subtract(exemplar["box"], box_around(pig))).max() < 2
    # What is like it is found no more; others are.
    after = person.found()
    assert overlaps(after, [pig])[0] < 0.1 and 0 < len(after) < len(before)


def test_the_threshold_works_at_once_and_without_a_request(person: Person) -> None:
    person.find("animal")
    shown = len(person.found())

    def raise_it() -> None:
        person["image-threshold"].fill("0.95")
        expect(person.segments()).to_have_count(0)

    assert person.meanwhile("/v1/segment", raise_it) == 0
    expect(person["image-count"]).to_contain_text("below the score")
    person["image-threshold"].fill("0.2")
    assert len(person.found()) >= shown > 0


def test_what_was_done_is_undone_without_a_request(person: Person) -> None:
    person.find("dog")
    person.find("cat")
    both = person["image-segments"].inner_text()

    def back_and_forth() -> None:
        person["image-undo"].click()
        expect(person.prompts()).to_have_count(1)
        expect(person.segments()).to_have_count(2)
        person["image-redo"].click()
        expect(person.prompts()).to_have_count(2)
        person["image-clear"].click()
        expect(person.prompts()).to_have_count(0)
        expect(person["image-clear"]).to_be_disabled()
        person.page.keyboard.press("Control+z")
        expect(person.prompts()).to_have_count(2)

    assert person.meanwhile("/v1/segment", back_and_forth) == 0
    assert person["image-segments"].inner_text() == both


def test_hovering_shows_label_and_score(person: Person) -> None:
    person.find("cat")
    (cat,) = things("pets", "cat")
    person.page.mouse.move(*person.place(*inside(cat)))
    expect(person["image-tip"]).to_have_text(re.compile(r"^cat 0\.\d\d$"))
    expect(person.segments()).to_have_class("hovered")
    person.page.mouse.move(*person.place(2, 2))
    expect(person["image-tip"]).to_be_hidden()


def test_what_is_found_lies_where_it_is_at_any_zoom(
    person: Person, shot: Callable[[Page, str], None]
) -> None:
    person.find("cat")
    place = person.place(*inside(things("pets", "cat")[0]))
    person.page.mouse.move(*place)
    for _ in range(8):
        person.page.mouse.wheel(0, -200)
    # What was beneath the pointer still is, and its outline is as sharp as the screen.
    expect(person["image-tip"]).to_contain_text("cat")
    person.page.mouse.move(5, 5)
    shot(person.page, "image-zoomed")
    # Moved away, and back as a whole.
    person.hold("move")
    person.page.mouse.move(*place)
    person.page.mouse.down()
    person.page.mouse.move(place[0] - 300, place[1], steps=4)
    person.page.mouse.up()
    expect(person.prompts()).to_have_count(1)
    person["image-fit"].click()
    person.page.mouse.move(*place)
    expect(person["image-tip"]).to_contain_text("cat")


def test_the_keyboard_alone_does_it(person: Person) -> None:
    keyboard = person.page.keyboard
    _tab_to(person, "[data-file='farm.jpg']")
    keyboard.press("Enter")
    person.shows("farm.jpg", 384, 384)
    wanted = things("farm", "tractor")
    keyboard.press("/")
    keyboard.type("tractor")
    keyboard.press("Enter")
    person.answered()
    _tab_to(person, "#image-coco")
    keyboard.press("Enter")
    expect(person["image-copied"]).to_contain_text("is on the clipboard")
    assert overlaps(person.found("tractor"), wanted)[0] >= RIGHT
    # A click.
    keyboard.press("Shift+Delete")
    _tab_to(person, "#image-canvas")
    _steer(person, inside(wanted[0]))
    keyboard.press("Enter")
    person.answered()
    expect(person.prompts()).to_contain_text("1 click")
    keyboard.press("Control+z")
    expect(person.prompts()).to_have_count(0)
    # A box.
    x0, y0, x1, y1 = box_around(wanted[0])
    _steer(person, (x0, y0))
    keyboard.press("b")
    _steer(person, (x1, y1))
    keyboard.press("Enter")
    person.answered()
    expect(person.prompts()).to_contain_text("box")
    assert overlaps(person.found(), wanted)[0] >= RIGHT
    keyboard.press("x")
    expect(person.page.locator("[name=image-sign][value='-']")).to_be_checked()
    keyboard.press("e")
    expect(person.page.locator("[name=image-tool][value=example]")).to_be_checked()
    keyboard.press("?")
    expect(person["help"]).to_be_visible()
    keyboard.press("Escape")
    expect(person["help"]).to_be_hidden()


def _tab_to(person: Person, selector: str) -> None:
    """Press Tab until this has the focus."""
    for _ in range(80):
        if person.page.evaluate("selector => document.activeElement.matches(selector)", selector):
            return
        person.page.keyboard.press("Tab")
    raise AssertionError(f"no Tab leads to {selector}")


def _steer(person: Person, to: tuple[float, float]) -> None:
    """Move the crosshair there: by small steps, each two pixels of the screen or one of the picture."""
    step = max(1, round(2 / person.scale()))
    at = list(person.steered or (192.5, 192.5))
    for axis, (less, more) in enumerate((("ArrowLeft", "ArrowRight"), ("ArrowUp", "ArrowDown"))):
        steps = round((to[axis] - at[axis]) / step)
        for _ in range(abs(steps)):
            person.page.keyboard.press(f"Shift+{more if steps > 0 else less}")
        at[axis] += steps * step
    person.steered = (at[0], at[1])
