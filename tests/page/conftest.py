"""The embedded student behind a gateway, and a browser before it: the machine's own Chromium.

Everything here needs the extra `page`, and a Chromium: `make test-page` brings both. What imports Playwright
is imported once it is known to be there.
"""

import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.place import DEMO
from tests.serving import Serving

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Playwright

    from tests.page.browser import Person

# Of a body: less than the picture that a test has refused.
MAX_BODY_BYTES = 1_000_000


class _Absent(pytest.Module):
    """A file of tests that cannot be read here."""

    def collect(self) -> Iterable[Any]:
        pytest.skip("it needs the extra `page`, which `make test-page` installs", allow_module_level=True)


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    if find_spec("playwright") and find_spec("axe_playwright_python"):
        return None
    return _Absent.from_parent(parent, path=module_path)


@pytest.fixture(scope="session")
def chromium() -> str:
    """The browser's command: what CHROMIUM names, else the machine's own."""
    named = os.environ.get("CHROMIUM", "chromium")
    if found := shutil.which(named):
        return found
    reason = f"there is no command {named}; `make test-page` installs Chromium where it can"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


# Of a module: while Playwright runs, nothing else in the thread can have an event loop.
@pytest.fixture(scope="module")
def playwright(chromium: str) -> "Iterator[Playwright]":
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        yield playwright


@pytest.fixture(scope="module")
def browser(playwright: "Playwright", chromium: str) -> "Iterator[Browser]":
    from tests.page.browser import launched

    with launched(playwright, chromium) as browser:
        yield browser


@pytest.fixture(scope="module")
def filming(playwright: "Playwright", chromium: str) -> "Iterator[Browser]":
    """A browser that has a camera."""
    from tests.page.browser import FILMING, launched

    with launched(playwright, chromium, *FILMING) as browser:
        yield browser


@pytest.fixture
def expected() -> set[str]:
    """What the browser may complain of in this test: parts of its messages."""
    return set()


@pytest.fixture
def page(browser: "Browser", expected: set[str]) -> "Iterator[Page]":
    """An empty one, on a screen of 1280 by 800."""
    from tests.page.browser import watched

    with watched(browser, expected) as page:
        yield page


@pytest.fixture
def camera(filming: "Browser", expected: set[str]) -> "Iterator[Page]":
    """A page that may have the camera."""
    from tests.page.browser import watched

    with watched(filming, expected) as page:
        yield page


@pytest.fixture
def visit(browser: "Browser", expected: set[str]) -> "Iterator[Callable[..., Person]]":
    """(address, settings of the browser's context) -> somebody before a page that is not opened yet."""
    from tests.page.browser import Person, watched

    with ExitStack() as pages:

        def visiting(url: str, **settings: Any) -> Person:
            return Person(pages.enter_context(watched(browser, expected, **settings)), url, expected)

        yield visiting


@pytest.fixture(scope="package")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """The embedded student, as `make serve` has it."""
    log = tmp_path_factory.mktemp("page") / "log"
    with Serving(DEMO, log, precision="f32", max_body_bytes=MAX_BODY_BYTES) as serving:
        yield serving
        assert "Traceback" not in serving.log.read_text()


@pytest.fixture
def person(visit: "Callable[..., Person]", service: Serving) -> "Person":
    """Somebody who has opened the page on a screen of 1280 by 800."""
    person = visit(service.url)
    person.open()
    return person


@pytest.fixture
def shot(tmp_path: Path) -> "Callable[[Page, str], None]":
    """(page, name): keep what it looks like, in the folder that SCREENSHOTS names, else in the test's own."""
    folder = Path(os.environ.get("SCREENSHOTS") or tmp_path)
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
