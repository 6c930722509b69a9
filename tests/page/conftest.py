"""A real Chromium, and pages in it that may ask nobody but their own service and complain of nothing.

Everything here needs the extra `page`, and a Chromium: `make test-page` brings both.
"""

import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from tests.place import DEMO
from tests.serving import Serving

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Page, Playwright

_PARTS = ("playwright", "axe_playwright_python")
_QUIET = (
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--no-first-run",
)
# A moving pattern, which no person has to allow.
_CAMERA = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
DESK, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}


class _Absent(pytest.Module):
    """A file of tests that cannot be read here."""

    def collect(self) -> Iterable[Any]:
        pytest.skip(
            "needs the extra `page` and Chromium, which `make test-page` installs", allow_module_level=True
        )


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    if all(find_spec(part) for part in _PARTS):
        return None
    return _Absent.from_parent(parent, path=module_path)


@pytest.fixture(scope="session")
def chromium() -> str:
    """The browser's command: the one that CHROMIUM names, else the machine's own."""
    named = os.environ.get("CHROMIUM", "chromium")
    if found := shutil.which(named):
        return found
    reason = f"no Chromium: there is no command {named}, and CHROMIUM names no other"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


# Of a module: while Playwright runs, nothing else in the thread can run an event loop of its own.
@pytest.fixture(scope="module")
def playwright(chromium: str) -> "Iterator[Playwright]":
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        yield playwright


@pytest.fixture(scope="module")
def browser(playwright: "Playwright", chromium: str) -> "Iterator[Browser]":
    browser = playwright.chromium.launch(executable_path=chromium, args=_QUIET)
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def filming(playwright: "Playwright", chromium: str) -> "Iterator[Browser]":
    """A browser that has a camera."""
    browser = playwright.chromium.launch(executable_path=chromium, args=(*_QUIET, *_CAMERA))
    yield browser
    browser.close()


@pytest.fixture
def expected() -> set[str]:
    """What the browser may complain of: parts of its messages, such as "status of 415", added by the test.

    A request that is refused is written to the console by the browser itself, whatever the page does about it.
    """
    return set()


@pytest.fixture
def page(browser: "Browser", expected: set[str]) -> "Iterator[Page]":
    with _watched(browser, expected, viewport=DESK) as page:
        yield page


@pytest.fixture
def phone(browser: "Browser", expected: set[str]) -> "Iterator[Page]":
    """A page on a small screen that is touched."""
    with _watched(
        browser, expected, viewport=PHONE, has_touch=True, is_mobile=True, device_scale_factor=2
    ) as page:
        yield page


@pytest.fixture
def camera(filming: "Browser", expected: set[str]) -> "Iterator[Page]":
    """A page that may have the camera."""
    with _watched(filming, expected, viewport=DESK) as page:
        yield page


@contextmanager
def _watched(browser: "Browser", expected: set[str], **how: Any) -> "Iterator[Page]":
    """A page that is held to its promises: nothing of another host, nothing inline, no complaint.

    What the page's policy forbids, the browser complains of.
    """
    context = browser.new_context(**how)
    page = context.new_page()
    hosts: set[str] = set()
    said: list[str] = []

    def asks(url: str) -> None:
        if (parts := urlsplit(url)).scheme not in ("blob", "data"):
            hosts.add(parts.netloc)

    def says(message: "ConsoleMessage") -> None:
        if message.type == "error":
            said.append(f"{message.text} ({message.location.get('url')})")

    page.on("request", lambda request: asks(request.url))
    page.on("websocket", lambda socket: asks(socket.url))
    page.on("console", says)
    page.on("pageerror", lambda error: said.append(str(error)))
    yield page
    inline = page.locator("script:not([src]), style, link[rel=stylesheet][href^='data:']").count()
    context.close()
    unexpected = [each for each in said if not any(part in each for part in expected)]
    assert (unexpected, inline) == ([], 0)
    assert len(hosts) <= 1, hosts


@pytest.fixture
def shot(tmp_path: Path) -> "Callable[[Page, str], None]":
    """(page, name): keep what it looks like, in the folder that EFFICIENTSAM3_SCREENSHOTS names."""
    folder = Path(os.environ.get("EFFICIENTSAM3_SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)

    def keep(page: "Page", name: str) -> None:
        page.screenshot(path=folder / f"{name}.png")

    return keep


@pytest.fixture
def accessible() -> "Callable[[Page], None]":
    """(page): axe finds nothing to complain of in what is shown."""
    from axe_playwright_python.sync_playwright import Axe

    axe = Axe()

    def check(page: "Page") -> None:
        # Colours that change are looked at once they have.
        page.wait_for_function("() => document.getAnimations().every((each) => each.playState !== 'running')")
        found = axe.run(page)
        assert found.violations_count == 0, found.generate_report()

    return check


@pytest.fixture(scope="package")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """The embedded student behind gateway and worker, in processes of their own."""
    with Serving(DEMO, tmp_path_factory.mktemp("page") / "log", precision="f32") as serving:
        yield serving
        assert "Traceback" not in serving.log.read_text()
