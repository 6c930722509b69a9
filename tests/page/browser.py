"""A real browser before a real service: what tests of the page see, and do as a person would."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray
from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, Playwright, Request, expect

from model_store.demo.evaluate import deepest, iou
from model_store.demo.tasks import box_of
from tests.tracked_clip import SAMPLES, decoded

# A browser beside a worker on two cores is slow, and nothing here measures it.
expect.set_options(timeout=60_000)

PICTURES = json.loads((SAMPLES / "samples.json").read_text("utf-8"))["pictures"]
DESK, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}
_QUIET = (
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--no-first-run",
)
# A camera that shows a moving pattern, and nobody who has to allow it.
FILMING = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")

Mask = NDArray[np.bool_]


@contextmanager
def launched(playwright: Playwright, command: str, *flags: str) -> Iterator[Browser]:
    """The machine's own Chromium, without a window."""
    browser = playwright.chromium.launch(executable_path=command, args=(*_QUIET, *flags))
    yield browser
    browser.close()


@contextmanager
def watched(browser: Browser, expected: set[str], **settings: Any) -> Iterator[Page]:
    """A page that is held to its promises: nothing of another host, nothing inline, no complaint.

    What the page's policy forbids the browser complains of. `expected` has parts of what it may complain of;
    `settings` are those of the browser's context, such as `color_scheme`.
    """
    context = browser.new_context(**{"viewport": DESK, **settings})
    page = context.new_page()
    hosts: set[str] = set()
    said: list[str] = []

    def asks(url: str) -> None:
        if (parts := urlsplit(url)).scheme not in ("blob", "data"):
            hosts.add(parts.netloc)

    def says(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            said.append(f"{message.text} ({message.location.get('url', '')})")

    page.on("request", lambda request: asks(request.url))
    page.on("websocket", lambda socket: asks(socket.url))
    page.on("console", says)
    page.on("pageerror", lambda error: said.append(str(error)))
    yield page
    inline = page.locator("script:not([src]), style").count()
    context.close()
    unexpected = [each for each in said if not any(part in each for part in expected)]
    assert not unexpected, "\n".join(unexpected)
    assert not inline and len(hosts) <= 1, (inline, hosts)


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
    """Somebody before the page's image mode."""

    def __init__(self, page: Page, url: str, expected: set[str]) -> None:
        self.page, self.url = page, url
        # Every request that left the page.
        self.requests: list[Request] = []
        # Where the keyboard's crosshair was steered to, pixels of the picture.
        self.steered: tuple[float, float] | None = None
        self._expected = expected
        page.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=url)
        page.on("request", lambda request: self.requests.append(request))

    def __getitem__(self, id: str) -> Locator:
        return self.page.locator(f"#{id}")

    def refused(self, *statuses: int) -> None:
        """These HTTP statuses are meant to come: a browser writes them into its console by itself."""
        self._expected |= {f"the server responded with a status of {status}" for status in statuses}

    def open(self, picture: str = "pets") -> None:
        """The page, with a sample picture."""
        self.page.goto(self.url)
        self.shows("pets.jpg", 384, 384)
        if picture != "pets":
            self.sample(picture)

    def sample(self, picture: str) -> None:
        """Choose another sample picture."""
        self.page.get_by_role("button", name=picture.capitalize(), exact=True).click()
        self.shows(f"{picture}.jpg", 384, 384)

    def shows(self, name: str, width: int, height: int) -> None:
        """Return when this picture is shown."""
        told = f"Picture {name}, {width} by {height} pixels"
        expect(self["image-canvas"]).to_have_attribute("aria-label", told)
        expect(self["image-busy"]).to_be_hidden()

    def find(self, text: str) -> None:
        """Type what to find."""
        self["image-text"].fill(text)
        self["image-text"].press("Enter")
        self.answered()

    def answered(self) -> None:
        """Return when everything that is asked has its answer."""
        expect(self["image-prompts"]).to_have_attribute("aria-busy", "false")
        expect(self.page.locator("#image-prompts .count", has_text="…")).to_have_count(0)

    def prompts(self) -> Locator:
        """The rows of what is asked."""
        return self.page.locator("#image-prompts > li")

    def segments(self) -> Locator:
        """The rows of what was found."""
        return self.page.locator("#image-segments > li")

    def hold(self, tool: str, sign: str = "+") -> None:
        """Take a tool: object, example or move."""
        for name, value in (("tool", tool), ("sign", sign)):
            choice = self.page.locator(f"[name=image-{name}][value='{value}']")
            self.page.locator("label", has=choice).click()
            expect(choice).to_be_checked()

    def scale(self) -> float:
        """Screen pixels of a pixel of the picture, 384 by 384, while the whole of it is shown."""
        return float(
            self.page.evaluate(
                "async () => (await import('/page/view.js')).fittingScale({ width: 384, height: 384 },"
                " document.getElementById('image-canvas'))"
            )
        )

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Where a pixel of the picture lies on the screen while the whole of it is shown."""
        scale, canvas = self.scale(), self["image-canvas"]
        canvas.scroll_into_view_if_needed()
        room = canvas.bounding_box()
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

    def sent(self, path: str) -> list[Request]:
        """The requests to that address so far."""
        return [each for each in self.requests if urlsplit(each.url).path == path]

    def meanwhile(self, path: str, do: Callable[[], None]) -> int:
        """How many requests to that address `do` caused."""
        before = len(self.sent(path))
        do()
        self.page.wait_for_timeout(300)
        return len(self.sent(path)) - before
