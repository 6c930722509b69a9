"""What surrounds the picture: variants, keys, how the service is, what goes wrong; what the page weighs."""

import json
import re
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from playwright.sync_api import Page, Response, expect

from tests.keys import KeysFile, secret
from tests.page.browser import DESK, PHONE, Person, box_around, inside, overlaps, things
from tests.place import DEMO
from tests.serving import Serving

pytestmark = pytest.mark.page

# Of the page's files together as they are sent, without the samples.
MAX_LOAD_BYTES = 200_000
CLICKS = 15


def test_it_is_small_and_asks_its_own_service_alone(visit: Callable[..., Person], service: Serving) -> None:
    person, answers = visit(service.url), list[Response]()
    person.page.on("response", lambda answer: answers.append(answer))
    person.open()
    person.page.wait_for_load_state("networkidle")
    loaded = [each for each in answers if not urlsplit(each.url).path.startswith("/page/samples/")]
    sizes = [each.request.sizes() for each in loaded]
    sent = sum(each["responseBodySize"] + each["responseHeadersSize"] for each in sizes)
    print(f"first load: {len(loaded)} answers, {sent} bytes with what the service was asked")
    assert all(each.ok for each in answers) and len(loaded) > 10
    assert 0 < sent < MAX_LOAD_BYTES


# When the pointer was lifted, and when the next frame has an outline that was filled.
_STOPWATCH = """() => {
  const canvas = document.getElementById("image-canvas");
  const painting = CanvasRenderingContext2D.prototype;
  const { fill } = painting;
  window.timed = new Promise((resolve) => {
    let clicked = 0;
    const lifted = (event) => (clicked = event.timeStamp);
    canvas.addEventListener("pointerup", lifted, { once: true, capture: true });
    painting.fill = function (...given) {
      fill.apply(this, given);
      if (!clicked || !(given[0] instanceof Path2D)) return;
      painting.fill = fill;
      requestAnimationFrame(() => {
        const shown = new MessageChannel();
        shown.port1.onmessage = () => resolve([clicked, performance.now()]);
        shown.port2.postMessage(null);
      });
    };
  });
}"""
_TIMED = """async () => {
  const [clicked, shown] = await window.timed;
  const requests = performance.getEntriesByType("resource");
  const asked = requests.findLast(({ name }) => name.endsWith("/v1/segment"));
  return { whole: shown - clicked, answer: asked.responseEnd - asked.startTime };
}"""


def test_a_click_is_on_the_screen_as_soon_as_it_is_answered(person: Person) -> None:
    """What the page adds to the answer, which is for people to read: the middle of several clicks."""
    x, y = inside(things("pets", "dog")[1])
    times = []
    for index in range(CLICKS):
        # Another place each time, since what is known is not asked again.
        person.page.evaluate(_STOPWATCH)
        person.click((x + index % 4, y + index // 4))
        times.append(person.page.evaluate(_TIMED))
        assert len(person.found()) == 1
        person["image-clear"].click()
    added = sorted(each["whole"] - each["answer"] for each in times[1:])
    answer = statistics.median(each["answer"] for each in times[1:])
    print(
        f"click to mask on the screen: {statistics.median(added):.1f} ms beside the answer's {answer:.1f} ms"
    )
    print("of each click, ms:", [round(each, 1) for each in added])
    assert len(person.sent("/v1/segment")) == CLICKS


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_it_is_accessible_and_fits(
    visit: Callable[..., Person],
    service: Serving,
    accessible: Callable[[Page], None],
    shot: Callable[[Page, str], None],
    scheme: str,
    size: dict[str, int],
) -> None:
    person = visit(service.url, viewport=size, color_scheme=scheme)
    page, name = person.page, f"image-{scheme}-{size['width']}"
    person.open()
    accessible(page)
    shot(page, f"{name}-empty")
    person.find("dog, cat")
    person.drag(box_around(things("pets", "bone")[0]))
    page.mouse.move(*person.place(*inside(things("pets", "cat")[0])))
    expect(person["image-tip"]).to_be_visible()
    accessible(page)
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    page.evaluate("window.scrollTo(0, 0)")
    shot(page, name)
    person["image-tip"].evaluate("() => document.getElementById('help').showModal()")
    accessible(page)
    shot(page, f"{name}-keys")


def test_it_works_on_a_phone_that_is_touched(
    visit: Callable[..., Person], service: Serving, shot: Callable[[Page, str], None]
) -> None:
    person = visit(service.url, viewport=PHONE, has_touch=True, is_mobile=True, device_scale_factor=2)
    person.open()
    person["image-text"].fill("dog")
    person["image-find-button"].tap()
    person.answered()
    assert len(person.found("dog")) == 2
    (cat,) = things("pets", "cat")
    person["image-canvas"].scroll_into_view_if_needed()
    person.page.touchscreen.tap(*person.place(*inside(cat)))
    person.answered()
    assert overlaps(person.found("object 1"), [cat])[0] >= 0.7
    assert person.page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    person["image-canvas"].scroll_into_view_if_needed()
    shot(person.page, "image-phone-touched")


def test_the_strip_tells_how_the_service_is(person: Person) -> None:
    strip = person["status"]
    expect(strip).to_contain_text("demo 1 of 1 worker ready")
    person.find("dog")
    person.find("cat")
    expect(strip).to_contain_text(re.compile(r"Queue 0"))
    expect(strip).to_contain_text(re.compile(r"Images [1-9]\d* % from cache"))
    expect(strip).to_contain_text("Sessions kept by the workers")
    paths = {urlsplit(each.url).path for each in person.requests}
    asked = {path for path in paths if not path.startswith("/page/")}
    assert asked == {"/", "/readyz", "/metrics", "/v1/variants", "/v1/images", "/v1/segment"}


def test_a_text_that_is_refused_is_explained_beside_it_and_the_others_are_answered(
    person: Person, shot: Callable[[Page, str], None]
) -> None:
    person.refused(400)
    person.find("dog")
    person.find("x" * 1001)
    said = person.prompts().nth(1).get_by_role("alert")
    expect(said).to_contain_text("has 1,001 characters; the limit is 1,000")
    print("a text that is too long is told as:", said.inner_text())
    panel = person.page.locator("#image .panel")
    assert panel.evaluate("(panel) => panel.scrollWidth <= panel.clientWidth")
    person.find("cat")
    assert [len(person.found(text)) for text in ("dog", "cat")] == [2, 1]
    shot(person.page, "image-refused-text")


def test_nothing_to_find_is_told(person: Person) -> None:
    person["image-find-button"].click()
    expect(person["image-text-error"]).to_contain_text("Type what to find")
    person.find("elephant")
    expect(person["image-count"]).to_contain_text("nothing")
    expect(person["image-text-error"]).to_be_empty()


def test_a_service_that_cannot_be_reached_is_told_and_asked_again(person: Person, expected: set[str]) -> None:
    expected.add("net::ERR_INTERNET_DISCONNECTED")
    person.find("dog")
    person.page.context.set_offline(True)
    person["image-text"].fill("cat")
    person["image-text"].press("Enter")
    expect(person["image-ask-error"]).to_contain_text("The service cannot be reached from here.")
    expect(person["status"]).to_contain_text("cannot be reached")
    # What is known needs nobody.
    assert len(person.found("dog")) == 2
    person.page.context.set_offline(False)
    expect(person["image-ask-error"]).to_be_empty()
    person.answered()
    assert len(person.found("cat")) == 1
    expect(person["status"]).to_contain_text("1 of 1 worker ready")


def test_a_worker_that_dies_costs_time_alone(visit: Callable[..., Person], tmp_path: Path) -> None:
    with Serving(DEMO, tmp_path / "log", precision="f32") as serving:
        person = visit(serving.url)
        person.open()
        person.find("dog")
        # The picture was with the worker.
        person.refused(404, 503)
        (worker,) = serving.workers()
        worker.kill()
        person.find("cat")
        assert [len(person.found(text)) for text in ("dog", "cat")] == [2, 1]


@pytest.fixture
def keyed(tmp_path: Path) -> Iterator[Serving]:
    """A service behind keys."""
    keys = KeysFile(tmp_path / "keys.toml", alice={}, bob={})
    with Serving(DEMO, tmp_path / "log", precision="f32", keys_file=keys.path) as serving:
        yield serving
        assert "secret-of" not in serving.log.read_text()


def test_behind_keys_it_asks_for_one_and_keeps_it_to_the_tab(
    keyed: Serving,
    visit: Callable[..., Person],
    accessible: Callable[[Page], None],
    shot: Callable[[Page, str], None],
) -> None:
    person = visit(keyed.url)
    person.refused(401)
    page = person.page
    page.goto(keyed.url)
    expect(person["key-form"]).to_be_visible()
    expect(person["key-error"]).to_have_text("This service asks for a key.")
    accessible(page)
    shot(page, "key")
    for key in ("wrong", secret("alice")):
        person["key"].fill(key)
        person["key"].press("Enter")
        if key == "wrong":
            expect(person["key-error"]).to_contain_text("The key is not known here.")
    person.shows("pets.jpg", 384, 384)
    expect(person["key-error"]).to_be_empty()
    person.find("dog")
    assert len(person.found("dog")) == 2
    # The request as it is copied has no key in it, but the place for one.
    command = person.copied("image-copy")
    assert secret("alice") not in command
    environment = {"EFFICIENTSAM3_KEY": secret("alice"), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        ["bash", "-ec", command], capture_output=True, text=True, check=True, env=environment
    )
    assert len(json.loads(done.stdout)["results"][0]["segments"]) == 2
    # It is kept for a reload, and nowhere else.
    page.reload()
    person.shows("pets.jpg", 384, 384)
    assert not any(secret("alice") in each.url for each in person.requests)
    assert page.evaluate("document.cookie + JSON.stringify(localStorage)") == "{}"
    other = page.context.new_page()
    other.goto(keyed.url)
    expect(other.locator("#key-error")).to_have_text("This service asks for a key.")
    # Another's key, and pictures of one's own: it is sent anew where the first was somebody else's.
    person.refused(404)
    person["key"].fill(secret("bob"))
    person["key"].press("Enter")
    person.find("cat")
    assert len(person.found("cat")) == 1


CONCEPTS, OBJECTS = "es-ev-s-mc-s0", "es-ev-m"
_LACKING: dict[str, dict[str, Any]] = {
    CONCEPTS: {"prompts": ["text", "exemplar_box", "exemplar_point"], "memory": None},
    OBJECTS: {"prompts": ["points", "box", "mask"]},
}


@pytest.fixture
def several(tmp_path: Path) -> Iterator[Serving]:
    """The embedded student, and beside it one that finds concepts alone and one that finds objects alone."""
    store = tmp_path / "store"
    for name, lacks in _LACKING.items():
        folder = store / name
        folder.mkdir(parents=True)
        for file in DEMO.iterdir():
            shutil.copy(file, folder)
        manifest = json.loads((DEMO / "manifest.json").read_text("utf-8"))
        unserved = {
            kind: "its file has no such part" for kind in manifest["prompts"] if kind not in lacks["prompts"]
        }
        changed = {**manifest, **lacks, "variant": name, "unserved": unserved}
        (folder / "manifest.json").unlink()
        (folder / "manifest.json").write_text(json.dumps(changed), "utf-8")
    with Serving(store / "demo", tmp_path / "log", also=tuple(_LACKING), precision="f32") as serving:
        for name in _LACKING:
            serving.wait_until_ready(variant=name)
        yield serving


def test_what_a_variant_cannot_do_is_disabled_and_says_why(
    several: Serving, visit: Callable[..., Person], shot: Callable[[Page, str], None]
) -> None:
    person = visit(several.url)
    person.open()
    variant = person["variant"]
    assert variant.evaluate("all => [...all.options].map((each) => each.value)") == [
        "demo",
        CONCEPTS,
        OBJECTS,
    ]
    tool = {
        name: person.page.locator(f"[name=image-tool][value={name}]")
        for name in ("object", "example", "move")
    }
    person.find("cat")
    (cat,) = things("pets", "cat")
    person.click(inside(cat))
    assert len(person.found()) == 2

    # What it can do is asked of it, with the picture sent once more to where it is not known.
    person.refused(404)
    variant.select_option(CONCEPTS)
    expect(tool["object"]).to_be_disabled()
    expect(person["image-tool-why"]).to_contain_text(f"{CONCEPTS} takes no")
    expect(tool["example"]).to_be_checked()
    expect(person["image-text"]).to_be_enabled()
    person.answered()
    assert person.sent("/v1/segment")[-1].post_data_json["variant"] == CONCEPTS
    assert [len(person.found(label)) for label in ("cat", "object 1")] == [1, 0]
    expect(person.prompts().nth(1)).to_contain_text(f"{CONCEPTS} takes no clicks")
    shot(person.page, "variant-concepts")

    variant.select_option(OBJECTS)
    for each in ("image-text", "image-find-button"):
        expect(person[each]).to_be_disabled()
    expect(person["image-text-why"]).to_contain_text(f"{OBJECTS} takes no texts")
    expect(tool["example"]).to_be_disabled()
    expect(tool["object"]).to_be_enabled()
    person.answered()
    assert [len(person.found(label)) for label in ("cat", "object 1")] == [0, 1]
    shot(person.page, "variant-objects")

    variant.select_option("demo")
    expect(tool["object"]).to_be_enabled()
    expect(person["image-text"]).to_be_enabled()
    expect(person["image-tool-why"]).to_be_empty()
    person.answered()
    assert [len(person.found(label)) for label in ("cat", "object 1")] == [1, 1]
    expect(person["status"]).to_contain_text(f"{OBJECTS} 1 of 1 worker ready")


def test_a_variant_without_a_worker_is_told_and_waited_for(
    visit: Callable[..., Person], tmp_path: Path
) -> None:
    serving = Serving(DEMO, tmp_path / "log", precision="f32")
    try:
        # The gateway is there before its worker is.
        _answers(serving)
        person = visit(serving.url)
        person.open()
        person.find("cat")
        assert len(person.found("cat")) == 1
    finally:
        serving.__exit__(None, None, None)


def _answers(serving: Serving) -> None:
    """Return when the gateway answers, ready or not."""
    while True:
        try:
            serving.client.get("/healthz")
            return
        except httpx.TransportError:
            assert serving.process.poll() is None
            time.sleep(0.02)
