"""What a person does with a video before the page, and what is in the sample clips."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from playwright.sync_api import Locator, Page, expect

from model_store.demo.evaluate import iou
from tests.page.browser import inside
from tests.tracked_clip import SAMPLES, decoded

FRAMES = 32
# Longer than a worker takes to start beside a browser.
PATIENCE_MS = 180_000

Mask = NDArray[np.bool_]


def opened(page: Page, url: str) -> Page:
    page.goto(url)
    page.get_by_role("tab", name="Video").click()
    return page


def show(page: Page, file: str, frames: int = FRAMES) -> None:
    """Choose a sample, and wait for its first frame."""
    page.locator(f"#video-samples button[data-file='{file}']").click()
    stands(page, 0, frames)


def stands(page: Page, index: int, frames: int = FRAMES) -> None:
    """Wait until the page shows that frame and nothing is on its way."""
    expect(page.locator("#video-place")).to_have_text(f"Frame {index + 1} of {frames}", timeout=PATIENCE_MS)
    expect(page.locator("#video-objects")).to_have_attribute("aria-busy", "false", timeout=PATIENCE_MS)


def ask(page: Page, text: str) -> None:
    page.locator("#video-text").fill(text)
    page.locator("#video-text").press("Enter")


def rows(page: Page) -> Locator:
    """Of the objects that are followed."""
    return page.locator("#video-objects > li")


def place_of(page: Page, x: float, y: float) -> dict[str, float]:
    """Where a pixel of the frame lies on the canvas, which shows it whole: centred, as large as it fits."""
    box = page.locator("#video-canvas").bounding_box()
    assert box is not None
    margin = min(24, box["width"] * 0.03)
    scale = min((box["width"] - 2 * margin) / 256, (box["height"] - 2 * margin) / 256, 8)
    return {
        "x": (box["width"] - 256 * scale) / 2 + x * scale,
        "y": (box["height"] - 256 * scale) / 2 + y * scale,
    }


def click(page: Page, xy: tuple[float, float], **how: Any) -> None:
    page.locator("#video-canvas").click(position=place_of(page, *xy), **how)


def drag(page: Page, box: list[float]) -> None:
    canvas = page.locator("#video-canvas").bounding_box()
    assert canvas is not None
    for (x, y), act in ((box[:2], page.mouse.down), (box[2:], page.mouse.up)):
        place = place_of(page, x, y)
        page.mouse.move(canvas["x"] + place["x"], canvas["y"] + place["y"], steps=4)
        act()


def run(page: Page) -> None:
    page.locator("#video-run").click()


def points_at(page: Page, mask: Mask, label: str) -> None:
    """Point at what is drawn there: the tip tells whose it is."""
    page.mouse.move(1, 1)
    page.locator("#video-canvas").hover(position=place_of(page, *inside(mask)))
    expect(page.locator("#video-tip")).to_contain_text(label)


def when(page: Page, frame: int, act: Callable[[], object]) -> None:
    """Do it once that frame is shown, or a later one."""
    page.wait_for_function(
        "index => parseInt(document.getElementById('video-place').textContent.split(' ')[1]) > index",
        arg=frame,
        timeout=PATIENCE_MS,
    )
    act()


def things(file: str) -> list[dict[str, Any]]:
    """What is in a sample clip."""
    clips = json.loads((SAMPLES / "samples.json").read_text("utf-8"))["clips"]
    found: list[dict[str, Any]] = next(clip["things"] for clip in clips.values() if clip["file"] == file)
    return found


def truth(thing: dict[str, Any], frame: int = 0) -> Mask:
    return decoded(thing["masks"][frame])


def likest(answer: dict[str, Any], mask: Mask) -> tuple[float, dict[str, Any]]:
    """The object of an answer that is likest the mask: their IoU, and it."""
    seen = [each for each in answer["objects"] if each["visible"]]
    return max(((iou(decoded(each["mask"]), mask), each) for each in seen), key=lambda pair: pair[0])
