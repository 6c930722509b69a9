"""The page's files as the gateway serves them: whole, bounded by their headers, off by a setting."""

import json
import re
from html.parser import HTMLParser
from urllib.parse import urljoin

import pytest

from service.gateway.page import FILES, SAMPLES
from tests.gateway.conftest import House
from tests.gateway.keyed import opened
from tests.keys import KeysFile

PATHS = ("/", "/page/app.js", "/page/page.css", "/page/icon.svg", "/page/samples/pets.jpg")


@pytest.fixture
def house(house: House) -> House:
    house.open()
    return house


@pytest.mark.parametrize("path", PATHS)
def test_every_file_has_the_headers_that_bound_the_page(house: House, path: str) -> None:
    answer = house.http.get(path)
    assert answer.status_code == 200
    policy = dict(part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; "))
    # Nothing but what is named, and of that nothing from elsewhere, inline, or made of text.
    assert (
        policy["default-src"]
        == policy["frame-ancestors"]
        == policy["base-uri"]
        == policy["form-action"]
        == "'none'"
    )
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert set(" ".join(policy.values()).split()) <= {"'none'", "'self'", "blob:", "data:"}
    told = {name: answer.headers[name] for name in ("x-content-type-options", "referrer-policy")}
    assert told == {"x-content-type-options": "nosniff", "referrer-policy": "no-referrer"}
    assert answer.headers["cross-origin-opener-policy"] == "same-origin"
    assert "camera=(self)" in answer.headers["permissions-policy"]
    assert "microphone=()" in answer.headers["permissions-policy"]


@pytest.mark.parametrize("path", PATHS)
def test_a_file_that_a_browser_has_is_not_sent_again(house: House, path: str) -> None:
    first = house.http.get(path)
    assert first.headers["cache-control"] == "no-cache"
    again = house.http.get(path, headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["content-security-policy"] == first.headers["content-security-policy"]
    changed = house.http.get(path, headers={"If-None-Match": '"another"'})
    assert (changed.status_code, changed.content) == (200, first.content)
    head = house.http.head(path)
    assert (head.status_code, head.headers["etag"], head.content) == (200, first.headers["etag"], b"")


def test_files_have_their_types_and_texts_are_compressed(house: House) -> None:
    types = {
        "/": "text/html",
        "/page/app.js": "text/javascript",
        "/page/page.css": "text/css",
        "/page/icon.svg": "image/svg+xml",
        "/page/samples/pets.jpg": "image/jpeg",
        "/page/samples/birds-and-bears.mp4": "video/mp4",
    }
    for path, type in types.items():
        answer = house.http.get(path, headers={"Accept-Encoding": "gzip"})
        assert answer.headers["content-type"].split(";")[0] == type, path
        # What is small, or compressed already, is sent as it is.
        assert answer.headers.get("content-encoding") == ("gzip" if type in _TEXTS else None), path
        plain = house.http.get(path, headers={"Accept-Encoding": "identity"})
        assert plain.content == answer.content and "content-encoding" not in plain.headers


_TEXTS = ("text/html", "text/javascript", "text/css")


class _Page(HTMLParser):
    """What a page names, and what it has inline."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.inline: list[str] = []
        self.ids: list[str] = []
        self.named: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = {name: value or "" for name, value in attrs}
        self.addresses += [told[name] for name in ("src", "href") if name in told]
        self.ids += [told[name] for name in ("id",) if name in told]
        for name in ("for", "aria-controls", "aria-labelledby", "aria-describedby"):
            self.named += told.get(name, "").split()
        self.inline += [f"{tag} {name}" for name in told if name == "style" or name.startswith("on")]
        if tag == "style" or (tag == "script" and "src" not in told):
            self.inline.append(tag)


@pytest.fixture
def front(house: House) -> _Page:
    page = _Page()
    page.feed(house.http.get("/").text)
    return page


def test_nothing_is_inline_and_everything_that_is_named_is_there(front: _Page, house: House) -> None:
    assert not front.inline
    assert len(front.addresses) > 4
    for address in front.addresses:
        assert not re.match(r"(\w+:|/)", address), f"{address} is not relative to the page"
        assert house.http.get(f"/{address}").status_code == 200, address
    assert len(set(front.ids)) == len(front.ids) and set(front.named) <= set(front.ids)


def test_every_module_is_there_and_names_no_other_host(house: House) -> None:
    for file in sorted(FILES.iterdir()):
        answer = house.http.get(f"/page/{file.name}")
        assert (answer.status_code, answer.content) == (200, file.read_bytes())
        # The names of XML's languages are no addresses.
        assert not re.search(r"//[\w.-]+\.\w", re.sub(r"http://www\.w3\.org/\S+|// .*", "", answer.text)), (
            file.name
        )
        for module in re.findall(r'(?:from|import)\s*\(?"([^"]+)"', answer.text):
            address = urljoin(f"/page/{file.name}", module)
            assert house.http.get(address).status_code == 200, (file.name, module)


def test_the_samples_that_it_offers_are_there_with_what_is_to_be_found_on_them(house: House) -> None:
    facts = json.loads((SAMPLES / "samples.json").read_text("utf-8"))
    things = {each["file"]: each["things"] for each in facts["pictures"].values()}
    offered = re.findall(
        r'file: "([^"]+)".*?texts: \[([^\]]*)\]', house.http.get("/page/samples.js").text, re.S
    )
    assert {file for file, _ in offered} == things.keys()
    for file, texts in offered:
        known = {name for thing in things[file] for name in thing["names"]}
        assert set(re.findall(r'"([^"]+)"', texts)) <= known, file
        assert house.http.get(f"/page/samples/{file}").content == (SAMPLES / file).read_bytes()


@pytest.mark.parametrize("path", ["/page/nothing.js", "/page/", "/page/samples/", "/page/%2e%2e/config.py"])
def test_nothing_else_is_served(house: House, path: str) -> None:
    answer = house.http.get(path)
    assert (answer.status_code, answer.json()["type"]) == (404, "/problems/not_found")


@pytest.mark.parametrize("path", PATHS)
def test_nothing_is_sent_to_it(house: House, path: str) -> None:
    answer = house.http.post(path, content=b"x")
    assert (answer.status_code, answer.json()["type"]) == (405, "/problems/method_not_allowed")
    assert answer.headers["allow"] == "GET, HEAD"


def test_it_needs_no_key_and_what_it_asks_for_does(house: House, keys: KeysFile) -> None:
    house.stop()
    opened(house, keys)
    for path in PATHS:
        assert house.http.get(path).status_code == 200, path
    assert house.http.get("/v1/variants").status_code == 401


@pytest.mark.parametrize("path", PATHS)
def test_a_gateway_may_do_without_it(house: House, path: str) -> None:
    house.stop()
    house.open(page=False)
    answer = house.http.get(path)
    assert (answer.status_code, answer.json()["type"]) == (404, "/problems/not_found")
    assert house.http.get("/v1/variants").status_code == 200
