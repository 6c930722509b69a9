"""The embedded student behind a gateway, and a browser before it. All of this folder has the marker `page`."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.place import DEMO
from tests.serving import Serving

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from tests.page.browser import Person, Screenshots

_HERE = Path(__file__).parent
# Of a body: less than the picture that a test has refused.
MAX_BODY_BYTES = 1_000_000


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if _HERE in item.path.parents:
            item.add_marker(pytest.mark.page)


@pytest.fixture(scope="package")
def browser() -> Iterator["Browser"]:
    from tests.page.browser import launched

    with launched() as browser:
        yield browser


@pytest.fixture(scope="package")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """The embedded student, as `make serve` has it."""
    log = tmp_path_factory.mktemp("page") / "log"
    with Serving(DEMO, log, precision="f32", max_body_bytes=MAX_BODY_BYTES) as serving:
        yield serving


@pytest.fixture
def visit(browser: "Browser") -> Iterator[Callable[..., "Person"]]:
    """Makes people before pages: (address, size, settings of the browser). What they saw is checked at the end."""
    from tests.page.browser import Person

    people: list[Person] = []

    def visiting(url: str, *arguments: Any, **settings: Any) -> Person:
        people.append(Person(browser, url, *arguments, **settings))
        return people[-1]

    yield visiting
    for person in people:
        person.close()
    for person in people:
        person.check()


@pytest.fixture
def person(visit: Callable[..., "Person"], service: Serving) -> "Person":
    """Somebody who has opened the page on a screen of 1280 by 800."""
    person = visit(service.url)
    person.open()
    return person


@pytest.fixture
def screenshots(tmp_path: Path) -> "Screenshots":
    from tests.page.browser import Screenshots

    return Screenshots(tmp_path)
