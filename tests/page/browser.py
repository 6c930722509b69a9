"""A real browser before a real service: what tests of the page see and do as a person would."""

import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from numpy.typing import NDArray

from model_store.demo.evaluate import deepest, iou
from model_store.demo.tasks import box_of
from tests.tracked_clip import SAMPLES, decoded

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, Request

_playwright = pytest.importorskip("playwright.sync_api", reason="`make test-page` installs Playwright")
expect = _playwright.expect
# A browser on two busy cores is slow, and nothing here measures it.
expect.set_options(timeout=60_000)

PICTURES = json.loads((SAMPLES / "samples.json").read_text("utf-8"))["pictures"]
DESKTOP, PHONE = (1280, 800), (390, 844)
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # A camera that shows a moving picture, and nobody who has to allow it.
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
)

Mask = NDArray[np.bool_]


@contextmanager
def launched() -> Iterator["Browser"]:
    """Debian's Chromium. Where it is missing the test is skipped, and fails where `CI` is set."""
    path = shutil.which("chromium")
    if path is None:
        reason = "there is no chromium here; `make test-page` installs it where it can"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    with _playwright.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=_FLAGS)
        yield browser
        browser.close()


def things(picture: str, name: str) -> list[Mask]:
    """The masks of what the sample picture has of that name, as it was drawn."""
    found = PICTURES[picture]["things"]
    return [decoded(each["mask"]) for each in found if name in each["names"]]


def inside(mask: Mask) -> tuple[float, float]:
    """The middle of the pixel that lies deepest in the mask."""
    x, y = deepest(mask)
    return x + 0.5, y + 0.5


def box_around(mask: Mask) -> list[float]:
    """Its box, xyxy in pixels."""
    return [float(edge) for edge in box_of(mask) * mask.shape[0]]


def overlaps(found: Sequence[Mask], wanted: Sequence[Mask]) -> list[float]:
    """For each wanted thing the IoU of what was found and covers it best."""
    return [max((iou(mask, one) for mask in found), default=0.0) for one in wanted]


class Person:
    """Somebody before the page. At the end `check` says whether the page kept to itself and without errors."""

    def __init__(self, browser: "Browser", url: str, size: tuple[int, int] = DESKTOP, **settings: Any) -> None:
        """`settings` are those of the browser's context, such as `color_scheme`."""
        width, height = size
        self.url = url
        # Where the keyboard's crosshair was steered to, pixels of the picture.
        self.steered: tuple[float, float] | None = None
        self._context = browser.new_context(viewport={"width": width, "height": height}, **settings)
        self._context.grant_permissions(["clipboard-read", "clipboard-write"], origin=url)
        self.page: Page = self._context.new_page()
        # Every request that left the page, what went wrong, and what of that is meant to.
        self.requests: list[Request] = []
        self._errors: list[str] = []
        self._expected: list[str] = []
        self.page.on("request", self.requests.append)
        self.page.on("console", self._said)
        self.page.on("pageerror", lambda error: self._errors.append(str(error)))

    def _said(self, message: "ConsoleMessage") -> None:
        if message.type in ("error", "warning"):
            self._errors.append(f"{message.text} ({message.location.get('url', '')})")

    def refused(self, *statuses: int) -> None:
        """These HTTP statuses are meant to come: a browser writes them into its console, whatever a page does."""
        self._expected += [f"the server responded with a status of {status}" for status in statuses]

    def check(self) -> None:
        """Nothing was asked of another host, and nothing was said in the console that a test did not mean."""
        hosts = {urlsplit(request.url).netloc for request in self.requests if "://" in request.url}
        assert hosts <= {urlsplit(self.url).netloc, ""}, hosts
        unmeant = [each for each in self._errors if not any(meant in each for meant in self._expected)]
        assert not unmeant, "\n".join(unmeant)

    def close(self) -> None:
        self._context.close()

    def __getitem__(self, id: str) -> "Locator":
        return self.page.locator(f"#{id}")

    def open(self, picture: str = "pets") -> None:
        """The page, with a sample picture."""
        self.page.goto(self.url)
        expect(self["image-busy"]).to_be_hidden()
        expect(self["image-canvas"]).to_have_attribute("aria-label", "Picture pets.jpg, 384 by 384 pixels")
        if picture != "pets":
            self.sample(picture)

    def sample(self, picture: str) -> None:
        """Choose another sample picture."""
        self.page.get_by_role("button", name=picture.capitalize(), exact=True).click()
        expect(self["image-canvas"]).to_have_attribute("aria-label", f"Picture {picture}.jpg, 384 by 384 pixels")

    def find(self, text: str) -> None:
        """Type what to find."""
        self["image-text"].fill(text)
        self.page.keyboard.press("Enter")
        self.answered()

    def answered(self) -> None:
        """Return when everything that is asked has its answer."""
        expect(self["image-prompts"]).to_have_attribute("aria-busy", "false")
        expect(self.page.locator("#image-prompts .count", has_text="…")).to_have_count(0)

    def hold(self, tool: str, sign: str = "+") -> None:
        """Take a tool: object, example or move."""
        self.page.locator(f"[name=image-tool][value={tool}]").check(force=True)
        self.page.locator(f"[name=image-sign][value='{sign}']").check(force=True)

    def place(self, x: float, y: float, canvas: str = "image-canvas") -> tuple[float, float]:
        """Where a pixel of the picture, 384 by 384, lies on the screen while the whole of it is shown."""
        scale = self.page.evaluate(
            "async (id) => (await import('/page/view.js')).fittingScale({ width: 384, height: 384 },"
            " document.getElementById(id))",
            canvas,
        )
        self[canvas].scroll_into_view_if_needed()
        room = self[canvas].bounding_box()
        assert room
        middle = room["x"] + room["width"] / 2, room["y"] + room["height"] / 2
        return middle[0] + (x - 192) * scale, middle[1] + (y - 192) * scale

    def click(self, at: tuple[float, float], negative: bool = False) -> None:
        """Click on a pixel of the picture."""
        self.page.mouse.click(*self.place(*at), button="right" if negative else "left")
        self.answered()

    def drag(self, box: Sequence[float]) -> None:
        """Drag a box around a part of the picture, xyxy."""
        self.page.mouse.move(*self.place(*box[:2]))
        self.page.mouse.down()
        self.page.mouse.move(*self.place(*box[2:]), steps=4)
        self.page.mouse.up()
        self.answered()

    def copied(self, button: str) -> str:
        """What a button puts on the clipboard."""
        self[button].click()
        expect(self["image-copied"]).to_contain_text("is on the clipboard")
        return str(self.page.evaluate("navigator.clipboard.readText()"))

    def found(self, label: str | None = None) -> list[Mask]:
        """The masks that are shown, of one label or of all: as they are copied."""
        told = json.loads(self.copied("image-coco"))
        names = {each["id"]: each["name"] for each in told["categories"]}
        shown = [each for each in told["annotations"] if label in (None, names[each["category_id"]])]
        return [decoded(each["segmentation"]) for each in shown]

    def asked(self, path: str) -> int:
        """Requests to that address so far."""
        return sum(urlsplit(request.url).path == path for request in self.requests)

    def meanwhile(self, path: str, do: Callable[[], None]) -> int:
        """Requests to that address that `do` caused."""
        before = self.asked(path)
        do()
        self.page.wait_for_timeout(300)
        return self.asked(path) - before


class Screenshots:
    """Pictures of the page, for people to look at: in the folder that `SCREENSHOTS` names, else in a test's own."""

    def __init__(self, folder: Path) -> None:
        self._folder = Path(os.environ.get("SCREENSHOTS") or folder)
        self._folder.mkdir(parents=True, exist_ok=True)

    def take(self, person: Person, name: str, *, whole: bool = False) -> None:
        """What is seen now, or with all that lies below it."""
        # The pointer is on nothing.
        person.page.mouse.move(1, 1)
        person.page.screenshot(path=self._folder / f"{name}.png", full_page=whole)


def near(one: Sequence[float], other: Sequence[float], within: float) -> bool:
    """Whether no value is further from its like."""
    return all(math.isclose(a, b, abs_tol=within) for a, b in zip(one, other, strict=True))
