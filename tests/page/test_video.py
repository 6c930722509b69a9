"""The page's video mode in a browser: what a person does with a clip, a file of their own and a camera.

What the page draws is checked by pointing at it: the tip tells whose mask lies there. What it is drawn from
is checked by what its WebSocket brings.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, expect

from service.client import Client
from tests.deployment import Deployment
from tests.keys import KeysFile, secret
from tests.page.browser import DESK, PHONE, box_around, inside
from tests.page.tracking import (
    FRAMES,
    PATIENCE_MS,
    ask,
    click,
    drag,
    likest,
    opened,
    points_at,
    rows,
    run,
    show,
    stands,
    things,
    truth,
    when,
)
from tests.page.wire import Wire
from tests.place import DEMO
from tests.redis_server import RedisServer
from tests.serving import Serving
from tests.tracked_clip import SAMPLES, found

pytestmark = pytest.mark.page

BEARS, LIGHTS = "birds-and-bears.mp4", "traffic-lights.mp4"


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """The embedded student on two workers before one gateway; sessions outlive either worker."""
    folder = tmp_path_factory.mktemp("video")
    redis = RedisServer(folder / "redis")
    # Fixed: a frame's masks do not depend on what else is computed.
    settings = {"workers": 2, "gateways": 1, "batching": "fixed", "precision": "f32"}
    with redis.running(), Deployment(DEMO, folder, redis.url, **settings) as deployment:
        yield deployment
        assert "Traceback" not in deployment.logs()


@pytest.fixture
def url(deployment: Deployment) -> str:
    """The page's address, with both workers ready."""
    deployment.complete()
    return deployment.urls[0]


@pytest.fixture
def wire(page: Page) -> Wire:
    return Wire(page)


@pytest.fixture
def video(page: Page, url: str, wire: Wire) -> Page:
    """The page in video mode, with a sample on its first frame."""
    return opened(page, url)


def undisturbed(url: str, wire: Wire, prompts: dict[int, list[Any]]) -> list[Any]:
    """What a session of its own finds on the frames that the page sent, when nothing happens to it."""
    with Client(url) as client:
        session = client.open_session(frames_total=len(wire.frames()))
        return [
            found(session.add(image, prompts.get(index, ())))["objects"]
            for index, image in enumerate(wire.frames())
        ]


def test_a_text_is_followed_through_a_killed_worker(
    video: Page, url: str, wire: Wire, deployment: Deployment, shot: Callable[[Page, str], None]
) -> None:
    show(video, BEARS)
    ask(video, "polar bear")
    expect(rows(video)).to_have_count(2)
    shot(video, "video-first-frame")
    killed = deployment.busiest()
    run(video)
    when(video, 8, killed.kill)
    stands(video, FRAMES - 1)
    shot(video, "video-tracked")
    assert not killed.runs and sorted(wire.last()) == list(range(FRAMES))
    # The frame that the killed worker computed is sent again by the page.
    assert [refusal["type"] for refusal in wire.refusals] in ([], ["/problems/unavailable"])
    assert len(wire.sessions()) == 1
    told = [wire.last()[index]["objects"] for index in range(FRAMES)]
    assert told == undisturbed(url, wire, {0: [{"text": "polar bear"}]})
    bears = [thing for thing in things(BEARS) if "polar bear" in thing["names"]]
    for bear in bears:
        ratio, object = likest(wire.last()[0], truth(bear))
        assert ratio >= 0.8 and object["label"] == "polar bear"
    expect(video.locator("#video-rate")).to_contain_text(re.compile(r"\d"))
    expect(video.locator("#video-stages dt").first).to_be_visible()


def test_what_is_drawn_lies_where_the_object_is(video: Page) -> None:
    show(video, LIGHTS)
    ask(video, "traffic light")
    expect(rows(video)).to_have_count(2)
    light = things(LIGHTS)[1]
    points_at(video, truth(light), "traffic light")
    run(video)
    stands(video, FRAMES - 1)
    points_at(video, truth(light, FRAMES - 1), "traffic light")
    # Back to a frame that was answered, as it was then; and what is prompted is refused there.
    video.locator("#video-cursor").fill("3")
    stands(video, 3)
    points_at(video, truth(light, 3), "traffic light")
    click(video, (20, 20))
    expect(video.locator("#video-run-error")).to_contain_text("the last frame that was tracked")


def test_clicks_and_boxes_are_refined_and_tracking_goes_on(
    video: Page, wire: Wire, shot: Callable[[Page, str], None]
) -> None:
    show(video, LIGHTS)
    first, second, _ = things(LIGHTS)
    click(video, inside(truth(first)))
    expect(rows(video)).to_have_count(1)
    # The box begins another object.
    drag(video, box_around(truth(second)))
    expect(rows(video)).to_have_count(2)
    both = wire.answered(0, 1)
    for thing in (first, second):
        assert likest(both, truth(thing))[0] >= 0.8
    # A click on the other one adds it to the object; the next, where it was, takes that away again.
    video.keyboard.press("Control+z")
    wire.answered(0, 2)
    expect(rows(video)).to_have_count(1)
    click(video, inside(truth(second)))
    larger = wire.answered(0, 3)["objects"][0]["area"]
    click(video, inside(truth(second)), button="right")
    assert wire.answered(0, 4)["objects"][0]["area"] < larger
    for index in (1, 2):
        video.locator("#video-step").click()
        stands(video, index)
    # On a later frame: what is prompted now belongs to it, and tracking goes on from there.
    drag(video, box_around(truth(second, 2)))
    refined = wire.answered(2, 1)
    expect(rows(video)).to_have_count(2)
    assert likest(refined, truth(second, 2))[0] >= 0.8
    shot(video, "video-refined")
    run(video)
    stands(video, FRAMES - 1)
    request = next(request for request, _ in wire.sent if request["frame"] == 3)
    assert request["follows"] == 1 and not request["prompts"]
    assert [each["object"] for each in wire.last()[FRAMES - 1]["objects"]] == [1, 2]
    assert not wire.refusals


def test_the_session_survives_its_connection(
    video: Page, url: str, wire: Wire, deployment: Deployment
) -> None:
    before = deployment.told("sessions_total")
    show(video, BEARS)
    ask(video, "polar bear")
    expect(rows(video)).to_have_count(2)
    video.locator("#video-step").click()
    stands(video, 1)
    # While it pauses: the last answer is given again, the same to the bit.
    video.locator("#video-hang-up").click()
    expect(video.locator("#video-survived")).to_contain_text("to the bit")
    before_that, again = wire.settled()[-2:]
    assert again["frame"] == 1 and again["objects"] == before_that["objects"]
    # While frames are in flight: they are sent again.
    run(video)
    when(video, 6, video.locator("#video-hang-up").click)
    stands(video, FRAMES - 1)
    assert len(wire.urls) == 3 and len(wire.sessions()) == 1
    assert deployment.told("sessions_total") == before + 1
    told = [wire.last()[index]["objects"] for index in range(FRAMES)]
    assert told == undisturbed(url, wire, {0: [{"text": "polar bear"}]})


def test_the_gateway_dies_and_comes_back(
    video: Page, wire: Wire, deployment: Deployment, expected: set[str]
) -> None:
    # What a browser writes of connections that nobody takes.
    expected |= {"WebSocket connection to", "ERR_CONNECTION_REFUSED", "ERR_CONNECTION_RESET"}
    show(video, LIGHTS)
    ask(video, "traffic light")
    wire.answered(0)
    run(video)
    when(video, 6, deployment.gateways[0].kill)
    expect(video.locator("#video-busy")).to_contain_text("Trying again")
    deployment.complete()
    stands(video, FRAMES - 1)
    assert sorted(wire.last()) == list(range(FRAMES)) and len(wire.sessions()) == 1
    expect(video.locator("#video-facts")).to_contain_text("sent again")


def test_a_worker_that_dies_between_two_corrections_is_sent_the_picture_again(
    video: Page, wire: Wire, deployment: Deployment
) -> None:
    show(video, LIGHTS)
    first, second, _ = things(LIGHTS)
    click(video, inside(truth(first)))
    expect(rows(video)).to_have_count(1)
    deployment.busiest().kill()
    drag(video, box_around(truth(second)))
    expect(rows(video)).to_have_count(2)
    assert [refusal["type"] for refusal in wire.refusals] == ["/problems/image_required"]
    (without, _), (again, image) = wire.sent[-2:]
    assert without["revision"] == again["revision"] == 1 and without["known_image"]
    assert image is not None and "known_image" not in again


def test_a_file_of_ones_own(video: Page, wire: Wire) -> None:
    video.set_input_files("#video-file", SAMPLES / LIGHTS)
    stands(video, 0)
    ask(video, "traffic light")
    expect(rows(video)).to_have_count(2)
    ask(video, "traffic light")
    expect(video.locator("#video-text-error")).to_contain_text("followed already")
    run(video)
    stands(video, FRAMES - 1)
    assert sorted(wire.last()) == list(range(FRAMES))


def test_a_file_that_is_no_video_is_refused_in_words(video: Page, tmp_path: Path) -> None:
    show(video, BEARS)
    (tmp_path / "notes.mp4").write_text("no video")
    video.set_input_files("#video-file", tmp_path / "notes.mp4")
    expect(video.locator("#video-error")).to_contain_text("cannot play notes.mp4")
    # What was there stays.
    ask(video, "polar bear")
    expect(rows(video)).to_have_count(2)


def test_a_session_that_is_gone_is_told_and_begun_anew(video: Page, url: str, wire: Wire) -> None:
    show(video, BEARS)
    ask(video, "polar bear")
    expect(rows(video)).to_have_count(2)
    (session,) = wire.sessions()
    httpx.delete(f"{url}/v1/sessions/{session}").raise_for_status()
    video.locator("#video-step").click()
    expect(video.locator("#video-run-error")).to_contain_text("There is no session")
    video.locator("#video-anew").click()
    stands(video, 0)
    ask(video, "polar bear")
    expect(rows(video)).to_have_count(2)
    assert len(wire.sessions()) == 2


def test_objects_and_texts_are_followed_no_more(video: Page, wire: Wire) -> None:
    show(video, LIGHTS)
    ask(video, "flamingo")
    wire.answered(0)
    first, second, _ = things(LIGHTS)
    for revision, light in enumerate((first, second), 1):
        drag(video, box_around(truth(light)))
        wire.answered(0, revision)
    expect(rows(video)).to_have_count(3)
    # Of this frame's own it is as if it had not been prompted; of what was followed before it is said.
    no_more = rows(video).get_by_role("button", name=re.compile("^Follow no more: object"))
    no_more.last.click()
    assert len(wire.answered(0, 3)["objects"]) == 2
    video.locator("#video-step").click()
    stands(video, 1)
    no_more.click()
    assert [each["label"] for each in wire.answered(1, 1)["objects"]] == ["flamingo"]
    expect(rows(video)).to_have_count(1)
    expect(rows(video).get_by_role("button", name="Follow no more")).to_have_count(0)
    video.locator("#video-texts").get_by_role("button", name="Follow flamingo no more").click()
    assert wire.answered(1, 2)["objects"] == []
    expect(rows(video)).to_have_count(0)


def test_by_the_keyboard_alone(page: Page, url: str, wire: Wire) -> None:
    page.goto(url)
    page.get_by_role("tab", name="Image").focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#video")).to_be_visible()
    stands(page, 0)
    page.keyboard.press("/")
    page.keyboard.type("animal")
    page.keyboard.press("Enter")
    expect(rows(page)).not_to_have_count(0)
    page.keyboard.press("Escape")
    page.keyboard.press(".")
    stands(page, 1)
    page.keyboard.press("k")
    stands(page, FRAMES - 1)
    assert not wire.refusals


def test_behind_keys_the_stream_brings_the_key(
    page: Page, wire: Wire, expected: set[str], tmp_path: Path
) -> None:
    expected.add("status of 401")
    keys = KeysFile(tmp_path / "keys.toml", alice={})
    with Serving(DEMO, tmp_path / "log", precision="f32", keys_file=keys.path) as keyed:
        opened(page, keyed.url)
        page.locator("#key").fill(secret("alice"))
        page.locator("#key").press("Enter")
        stands(page, 0)
        ask(page, "polar bear")
        wire.answered(0)
        page.locator("#video-step").click()
        wire.answered(1)
        # Of a connection the first message has it, and no address.
        assert [request.get("key") for request, _ in wire.sent] == [secret("alice"), None]
        assert not any(secret("alice") in url for url in wire.urls)


def test_a_camera_is_followed(camera: Page, url: str) -> None:
    """Chromium's own: a moving pattern."""
    wire = Wire(camera)
    opened(camera, url)
    camera.locator("#video-camera").click()
    expect(camera.locator("#video-place")).to_contain_text("Live", timeout=PATIENCE_MS)
    camera.locator("#video-canvas").click()
    expect(rows(camera)).to_have_count(1)
    run(camera)
    when(camera, 5, lambda: run(camera))
    expect(camera.locator("#video-run")).to_have_text("Track")
    answered = sorted(wire.last())
    assert len(answered) > 5 and answered == list(range(len(answered))) and not wire.refusals


def test_a_camera_that_is_not_allowed_is_told(video: Page) -> None:
    video.locator("#video-camera").click()
    expect(video.locator("#video-error")).to_contain_text("camera")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_it_is_accessible_and_fits(
    page: Page,
    url: str,
    scheme: Any,
    size: Any,
    accessible: Callable[[Page], None],
    shot: Callable[[Page, str], None],
) -> None:
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size(size)
    opened(page, url)
    show(page, BEARS)
    accessible(page)
    ask(page, "polar bear")
    expect(rows(page)).to_have_count(2)
    page.locator("#video-step").click()
    stands(page, 1)
    accessible(page)
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    shot(page, f"video-{scheme}-{size['width']}")
