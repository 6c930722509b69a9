"""Mask prompts whose sizes and counts overflow, at every entry point that takes a mask."""

import base64
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.entry_points import PROMPTED, VIDEOS, Send, is_plain, segment_json, video_http
from tests.hostile_images import png_bomb
from tests.hostile_videos import written
from tests.pictures import encoded, street
from tests.place import DEMO
from tests.serving import Serving
from tests.worker.files import chunk, png_file

JPEG = encoded(street(160, 120))
OVER_JSON: tuple[Send, ...] = (segment_json, video_http)
REFUSALS = ("invalid_argument", "payload_too_large")


def rle(counts: str, *size: float) -> dict[str, Any]:
    return {"format": "rle", "size": list(size or (120, 160)), "counts": counts}


def png(file: bytes, *size: int) -> dict[str, Any]:
    return {"format": "png", "size": list(size), "png": base64.b64encode(file).decode()}


def logits(data: bytes, *size: int) -> dict[str, Any]:
    return {"format": "logits", "size": list(size), "logits": base64.b64encode(data).decode()}


def polygon(*size: int) -> dict[str, Any]:
    return {"format": "polygon", "size": list(size), "rings": [{"xy": [0, 0, 5, 0, 5, 5]}]}


# Runs of COCO's counts have 5 bits a character: "o" goes on, and "0" is a zero.
MASKS: dict[str, dict[str, Any]] = {
    "a run of more than 64 bits": rle(40 * "o" + "0"),
    "a run of 2^63": rle(12 * "P" + "8"),
    "negative runs": rle(40 * "P" + "0"),
    "runs that wrap to the size": rle("PPPPPP4PPPPPP4"),
    "a run that does not end": rle("oooo"),
    "counts of no mask": rle(""),
    "counts that are no ASCII": rle("\u4e2d\u0660"),
    "sides that overflow 32 bits": rle("0", 65_536, 65_537),
    "sides that overflow 64 bits": rle("0", 2**32 - 1, 2**32 - 1),
    "no rows": rle("0", 0, 160),
    "a PNG of other sides": png(png_bomb(6_000, 6_000, 1), 8, 8),
    "a PNG of huge sides": png(png_bomb(8, 8, 1), 2**31, 2**31),
    "a PNG that is none": png(b"\x89PNG\r\n\x1a\n", 8, 8),
    "logits of huge sides": logits(bytes(8), 2**31, 2**31),
    "logits whose size wraps to theirs": logits(bytes(8), 2**16 + 2, 2**16),
    "logits of another size": logits(bytes(7), 2, 2),
    "logits that are no numbers": logits(b"\xff\x7f" * 4, 2, 2),
    "a polygon of huge sides": polygon(2**31, 2**31),
}
# Sizes that only JSON can express.
JSON_SIZES: list[list[Any]] = [
    [2**32, 2**32],
    [2**63, 1],
    [2**64 + 120, 160],
    [-1, -1],
    [1e308, 1e308],
    [10**400, 1],
    [120.5, 160],
    ["120", 160],
    [True, True],
    [120],
    [120, 160, 3],
    [None, 160],
]


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """The embedded student behind a gateway, with one worker that must live to the end."""
    with Serving(DEMO, tmp_path_factory.mktemp("masks") / "log", precision="f32") as serving:
        before = serving.workers()
        yield serving
        assert serving.workers() == before
        assert "Traceback" not in serving.log.read_text()


@pytest.fixture(scope="module")
def clip() -> bytes:
    return written(160, 120, 2)


@pytest.mark.parametrize("send", (*PROMPTED, *VIDEOS))
def test_a_mask_that_overflows_is_refused(serving: Serving, clip: bytes, send: Send) -> None:
    file = clip if send in VIDEOS else JPEG
    for name, mask in MASKS.items():
        outcome = send(serving, file, {"mask": mask})
        assert outcome[0] in REFUSALS and is_plain(outcome), (name, outcome)
        assert "mask" in outcome[1], (name, outcome)


@pytest.mark.parametrize("send", OVER_JSON)
def test_a_size_beyond_32_bits_is_refused(serving: Serving, clip: bytes, send: Send) -> None:
    file = clip if send in VIDEOS else JPEG
    for size in JSON_SIZES:
        for mask in (rle("0", *size), {**polygon(), "size": size}, {**logits(bytes(8)), "size": size}):
            outcome = send(serving, file, {"mask": mask})
            assert outcome[0] in REFUSALS and is_plain(outcome), (size, outcome)


@pytest.mark.parametrize("send", PROMPTED)
def test_a_mask_may_have_a_text_named_transparency(serving: Serving, send: Send) -> None:
    text = chunk(b"tEXt", b"transparency\0none")
    mask = png_file(30, 10, 8, 0, (b"\0" + bytes(15) + 15 * b"\xff") * 10, text)
    assert send(serving, JPEG, {"mask": png(mask, 10, 30)}) == ("ok", "")
