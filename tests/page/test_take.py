"""What is taken along from the page: the request, to be run anywhere, and the answer as files."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect
from pycocotools import mask as coco_masks
from pycocotools.coco import COCO

from tests.page.browser import Mask, Person, box_around, inside, things
from tests.tracked_clip import SAMPLES

pytestmark = pytest.mark.page

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def asked(person: Person) -> Person:
    """Somebody who has asked for a concept, a click with a box, and an example."""
    (bone,), dogs = (things("pets", name) for name in ("bone", "dog"))
    person.find("cat")
    person.click(inside(bone))
    person.drag(box_around(bone))
    person.hold("example")
    person.page.keyboard.press("n")
    person.drag(box_around(dogs[0]))
    expect(person.prompts()).to_have_count(3)
    return person


def _annotations(person: Person) -> list[dict[str, Any]]:
    annotations: list[dict[str, Any]] = json.loads(person.copied("image-coco"))["annotations"]
    return annotations


def test_the_request_that_is_copied_as_curl_gives_what_is_shown(asked: Person) -> None:
    asked["image-threshold"].fill("0.6")
    shown = _annotations(asked)
    command = asked.copied("image-copy")
    assert command == asked["image-code"].inner_text()
    done = subprocess.run(["bash", "-ec", command], capture_output=True, text=True, check=True)
    answer = json.loads(done.stdout)
    segments = [segment for result in answer["results"] for segment in result["segments"]]
    assert len(answer["results"]) == 3 and len(segments) == len(shown) > 3
    assert [each["mask"]["counts"] for each in segments] == [each["segmentation"]["counts"] for each in shown]
    # The command for sending the picture again is one as well.
    (again,) = (line.removeprefix("# ") for line in command.splitlines() if line.startswith("# curl"))
    done = subprocess.run(["bash", "-ec", again], capture_output=True, text=True, check=True, cwd=SAMPLES)
    assert json.loads(done.stdout)["image"]["id"] == answer["image"]["id"]


def test_a_name_and_a_text_with_quotes_are_copied_whole(person: Person, tmp_path: Path) -> None:
    name, text = 'it\'s $(mine); "yes".jpg', 'dog\'s "toy" $HOME `id` \\ 100 %'
    content = (SAMPLES / "pets.jpg").read_bytes()
    (tmp_path / name).write_bytes(content)
    person.page.set_input_files("#image-file", {"name": name, "mimeType": "image/jpeg", "buffer": content})
    person.shows(name, 384, 384)
    person.find(text)
    command = person.copied("image-copy")
    done = subprocess.run(["bash", "-ec", command], capture_output=True, text=True, check=True)
    assert "results" in json.loads(done.stdout)
    assert json.dumps(text)[1:-1] in command.replace("'\\''", "'")
    (again,) = (line.removeprefix("# ") for line in command.splitlines() if line.startswith("# curl"))
    done = subprocess.run(["bash", "-ec", again], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert json.loads(done.stdout)["image"]["width"] == 384
    person.page.locator("label", has=person.page.locator("[name=image-code][value=python]")).click()
    _run_python(person.copied("image-copy"))


def _run_python(program: str) -> list[str]:
    """The lines that it prints."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, f"{program}\n{done.stderr}"
    return done.stdout.splitlines()


def test_the_request_that_is_copied_as_python_gives_what_is_shown(asked: Person) -> None:
    shown = _annotations(asked)
    asked.page.locator("label", has=asked.page.locator("[name=image-code][value=python]")).click()
    expect(asked["image-copy"]).to_have_text("Copy as Python")
    lines = _run_python(asked.copied("image-copy"))
    scores = [float(line.split(" (")[0].split(" [")[0].split()[-1]) for line in lines]
    assert len(scores) == len(shown)
    assert np.allclose(scores, [each["score"] for each in shown], atol=0.006)


def test_the_answer_is_copied_as_coco(
    asked: Person, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "annotations.json").write_text(asked.copied("image-coco"), "utf-8")
    coco = COCO(tmp_path / "annotations.json")
    capsys.readouterr()
    (image,) = coco.loadImgs(coco.getImgIds())
    assert (image["file_name"], image["width"], image["height"]) == ("pets.jpg", 384, 384)
    names = [each["name"] for each in coco.loadCats(coco.getCatIds())]
    assert names == ["cat", "object 1", "like example 1"]
    annotations = coco.loadAnns(coco.getAnnIds())
    assert len(annotations) == len(asked.segments().all()) > 3
    for each in annotations:
        mask = coco.annToMask(each)
        assert mask.shape == (384, 384) and mask.sum() == each["area"] > 0
        # A concept's box is the decoder's, which lies about its mask.
        x, y, width, height = (round(edge) for edge in each["bbox"])
        assert mask[y : y + height, x : x + width].sum() > 0.8 * mask.sum()


def test_the_picture_is_downloaded_with_what_is_shown_on_it(person: Person, tmp_path: Path) -> None:
    person.find("dog")
    (first, second) = person.found()
    with person.page.expect_download() as download:
        person["image-png"].click()
    assert download.value.suggested_filename == "pets-masks.png"
    download.value.save_as(tmp_path / "masks.png")
    with Image.open(tmp_path / "masks.png") as drawn, Image.open(SAMPLES / "pets.jpg") as plain:
        assert (drawn.format, drawn.size) == ("PNG", (384, 384))
        pixels = [np.asarray(each.convert("RGB")).astype(int) for each in (drawn, plain)]
    changed = np.abs(pixels[0] - pixels[1]).max(axis=2) > 12
    mask = first | second
    # An outline lies on the rim, as much within as without.
    assert changed[_within(mask)].mean() > 0.97 and changed[_within(~mask)].mean() < 0.01


def _within(mask: Mask, pixels: int = 4) -> Mask:
    """What lies further from the rim."""
    return cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 3) > pixels


def test_masks_are_decoded_and_outlined_to_the_pixel(person: Person) -> None:
    random = np.random.default_rng(0)
    masks = [
        np.zeros((7, 5), bool),
        np.ones((7, 5), bool),
        np.eye(9, dtype=bool),
        np.pad(np.zeros((3, 3), bool), 2, constant_values=True),
        *(random.random((40, 61)) < share for share in (0.02, 0.5, 0.98)),
        *things("pets", "cat"),
    ]
    for mask in masks:
        rle = coco_masks.encode(np.asfortranarray(mask.astype(np.uint8)))
        told = person.page.evaluate(_DECODE, {"size": list(mask.shape), "counts": rle["counts"].decode()})
        assert told["area"] == mask.sum()
        for way in ("pixels", "outline"):
            seen = np.array(list(told[way]), dtype=int).reshape(mask.shape)
            assert np.array_equal(seen.astype(bool), mask), (way, mask.shape)


# Every pixel by itself, and what is filled by the outline.
_DECODE = """async (rle) => {
  const mask = (await import("/page/rle.js")).decode(rle);
  const [height, width] = rle.size;
  let pixels = "";
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) pixels += mask.has(x + 0.5, y + 0.5) ? 1 : 0;
  }
  const context = new OffscreenCanvas(width, height).getContext("2d");
  context.fill(mask.path);
  const { data } = context.getImageData(0, 0, width, height);
  let outline = "";
  for (let place = 3; place < data.length; place += 4) outline += data[place] > 127 ? 1 : 0;
  return { area: mask.area, pixels, outline };
}"""
