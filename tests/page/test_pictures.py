"""Where pictures come from: a file, the clipboard, something dropped, the camera; and which are refused."""

import base64
import io
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from tests.page.browser import Person, inside, overlaps, things
from tests.page.conftest import MAX_BODY_BYTES
from tests.serving import Serving
from tests.tracked_clip import SAMPLES

pytestmark = pytest.mark.page

# A file as a browser has it, of these bytes in base64: what `how` does with it.
_GIVE = """([content, name, type, how]) => {
  const bytes = Uint8Array.from(atob(content), (each) => each.charCodeAt(0));
  const data = new DataTransfer();
  data.items.add(new File([bytes], name, { type }));
  const place = document.getElementById("image-drop");
  const told = { bubbles: true, cancelable: true };
  if (how === "paste") document.dispatchEvent(new ClipboardEvent("paste", { clipboardData: data, ...told }));
  else place.dispatchEvent(new DragEvent(how, { dataTransfer: data, ...told }));
}"""


def _file(picture: Image.Image, form: str, **options: object) -> bytes:
    content = io.BytesIO()
    picture.save(content, form, **options)
    return content.getvalue()


@pytest.fixture
def pets() -> Image.Image:
    with Image.open(SAMPLES / "pets.jpg") as picture:
        return picture.convert("RGB")


def _give(person: Person, content: bytes, name: str, how: str) -> None:
    person.page.evaluate(_GIVE, [base64.b64encode(content).decode(), name, "image/png", how])


@pytest.mark.parametrize("sample", ["fruit", "street", "farm", "shapes"])
def test_every_sample_is_there_with_texts_to_try(person: Person, sample: str) -> None:
    person.sample(sample)
    expect(person.page.locator(f"#image-samples button[data-file='{sample}.jpg']")).to_have_attribute(
        "aria-pressed", "true"
    )
    first = person.page.locator("#image-try button").first
    text = first.inner_text()
    first.click()
    person.answered()
    assert max(overlaps(person.found(text), things(sample, text))) >= 0.5


def test_a_file_of_ones_own_is_shown_upright_and_sent_once(person: Person, pets: Image.Image) -> None:
    # It lies on its side, and its EXIF block says so.
    exif = Image.Exif()
    exif[0x0112] = 6
    content = _file(pets.crop((0, 0, 384, 300)).rotate(90, expand=True), "JPEG", quality=95, exif=exif)
    name = "my pets' picture.jpg"
    person.page.set_input_files("#image-file", {"name": name, "mimeType": "image/jpeg", "buffer": content})
    person.shows(name, 384, 300)
    expect(person["image-samples"].locator("[aria-pressed=true]")).to_have_count(0)
    before = len(person.sent("/v1/images"))
    person.find("dog")
    person.find("cat")
    wanted = [mask[:300] for mask in things("pets", "dog")]
    assert min(overlaps(person.found("dog"), wanted)) >= 0.7
    assert len(person.sent("/v1/images")) == before == 2


def test_a_picture_is_pasted(person: Person, pets: Image.Image) -> None:
    _give(person, _file(pets.resize((200, 100)), "PNG"), "pasted.png", "paste")
    person.shows("pasted.png", 200, 100)


def test_a_picture_is_dropped(person: Person, pets: Image.Image) -> None:
    content = _file(pets.resize((100, 200)), "PNG")
    _give(person, content, "dropped.png", "dragenter")
    expect(person["image-drop"]).to_have_class("canvas dropping")
    _give(person, content, "dropped.png", "drop")
    person.shows("dropped.png", 100, 200)
    expect(person["image-drop"]).to_have_class("canvas")


def test_the_camera_gives_a_picture(
    camera: Page, service: Serving, shot: Callable[[Page, str], None]
) -> None:
    camera.goto(service.url)
    expect(camera.locator("#image-busy")).to_be_hidden()
    camera.locator("#image-camera").click()
    expect(camera.locator("#camera-take")).to_be_enabled()
    shot(camera, "image-camera")
    camera.locator("#camera-take").click()
    expect(camera.locator("#camera")).to_be_hidden()
    expect(camera.locator("#image-canvas")).to_have_attribute(
        "aria-label", "Picture camera.jpg, 640 by 480 pixels"
    )


def test_a_camera_that_cannot_be_had_is_told(person: Person) -> None:
    person["image-camera"].click()
    expect(person["camera-error"]).to_contain_text("camera")
    expect(person["camera-take"]).to_be_disabled()
    person.page.keyboard.press("Escape")
    expect(person["camera"]).to_be_hidden()


@pytest.mark.parametrize("case", ["no picture", "a broken one", "one that is too large"])
def test_an_upload_that_is_refused_is_explained_and_what_was_there_stays(
    person: Person, pets: Image.Image, tmp_path: Path, case: str, shot: Callable[[Page, str], None]
) -> None:
    content, status, says = {
        "no picture": (b"Dear diary", 415, "image"),
        "a broken one": (_file(pets, "JPEG", quality=95)[:9000], 415, "image"),
        "one that is too large": (bytes(MAX_BODY_BYTES + 1), 413, f"{MAX_BODY_BYTES:,}"),
    }[case]
    (tmp_path / "mine.jpg").write_bytes(content)
    person.find("cat")
    person.refused(status)
    person.page.set_input_files("#image-file", tmp_path / "mine.jpg")
    expect(person["image-error"]).to_contain_text("mine.jpg: ")
    expect(person["image-error"]).to_contain_text(says)
    print(case, "is told as:", person["image-error"].inner_text())
    shot(person.page, f"image-refused-{case.replace(' ', '-')}")
    person.shows("pets.jpg", 384, 384)
    assert len(person.found("cat")) == 1
    # And it is forgotten with the next that is taken.
    person.sample("fruit")
    expect(person["image-error"]).to_be_empty()


def test_a_picture_that_browsers_cannot_show_is_told(person: Person, pets: Image.Image) -> None:
    buffer = _file(pets, "TIFF", compression="tiff_deflate")
    person.page.set_input_files(
        "#image-file", {"name": "scan.tif", "mimeType": "image/tiff", "buffer": buffer}
    )
    expect(person["image-error"]).to_contain_text("This browser cannot show scan.tif")


def test_a_picture_that_the_service_forgot_is_sent_again(person: Person, service: Serving) -> None:
    person.find("dog")
    (image,) = {each.post_data_json["image"]["id"] for each in person.sent("/v1/segment")}
    assert httpx.delete(f"{service.url}/v1/images/{image}").status_code == 204
    person.refused(404)
    (cat,) = things("pets", "cat")
    person.find("cat")
    assert overlaps(person.found("cat"), [cat])[0] >= 0.7
    assert len(person.sent("/v1/images")) == 2
    person.click(inside(cat))
    assert len(person.sent("/v1/images")) == 2
