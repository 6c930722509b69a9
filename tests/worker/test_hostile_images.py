"""Image files that are made to harm: refused or decoded at little cost, and never with another error."""

import subprocess
import sys
import tracemalloc

import pytest

from service.config import Limits
from service.errors import Kind, ServiceError
from service.pb.efficientsam3.v1 import segmentation_pb2 as pb
from service.prompts import MAX_RLE_CHARS
from service.worker.image import decode, grey
from tests.hostile_images import CHEAP, REFUSED, TRANSPARENCY, damaged, png_bomb
from tests.worker.conftest import Start, asking, picture, run

LIMITS = Limits()
SIDE = 24
MIB = 2**20


@pytest.mark.parametrize("name", REFUSED)
def test_structures_over_a_limit_are_unsupported(name: str) -> None:
    with pytest.raises(ServiceError) as error:
        decode(REFUSED[name], LIMITS, SIDE)
    assert error.value.kind is Kind.UNSUPPORTED_IMAGE
    assert error.value.detail.startswith("image is a ")


@pytest.mark.parametrize("name", CHEAP)
def test_metadata_is_neither_copied_nor_interpreted(name: str) -> None:
    data = CHEAP[name]
    tracemalloc.start()
    try:
        result = decode(data, LIMITS, SIDE)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert result.pixels.shape == (SIDE, SIDE, 3)
    assert peak < 4 * len(data) + 8 * MIB


def test_a_mask_may_have_a_text_named_transparency() -> None:
    assert grey(TRANSPARENCY, 30, 10).shape == (10, 30)


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF", "GIF"])
def test_damage_is_refused_or_decoded(file_format: str) -> None:
    outcomes = set()
    for data in damaged(file_format, 300, seed=19):
        try:
            assert decode(data, Limits(max_image_pixels=100_000), SIDE).pixels.shape == (SIDE, SIDE, 3)
            outcomes.add("decoded")
        except ServiceError as error:
            assert error.kind in (Kind.UNSUPPORTED_IMAGE, Kind.PAYLOAD_TOO_LARGE)
            assert not any(word in error.detail for word in ("/", "0x", "Error", "PIL", "cv2"))
            outcomes.add(error.kind)
    assert {"decoded", Kind.UNSUPPORTED_IMAGE} <= outcomes


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "GIF"])
def test_decoding_stops_between_blocks_when_the_answer_is_not_wanted(file_format: str) -> None:
    data = picture(3_000, 2_000, file_format)
    calls = 0

    def go_on() -> None:
        nonlocal calls
        calls += 1
        if calls == stop_at:
            raise ServiceError(Kind.DEADLINE_EXCEEDED, "stopped")

    stop_at = -1
    decode(data, LIMITS, SIDE, go_on)
    needed = calls
    assert needed > 30, "it is asked in every strip too"
    for stop_at in (1, 2, needed // 2, needed):
        calls = 0
        with pytest.raises(ServiceError) as error:
            decode(data, LIMITS, SIDE, go_on)
        assert error.value.kind is Kind.DEADLINE_EXCEEDED and calls == stop_at


_MEASURED = """
import resource, sys
from service.config import Limits
from service.errors import ServiceError
from service.worker.image import decode
data = sys.stdin.buffer.read()
before = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
limit = before + int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
try:
    print("decoded", decode(data, Limits(), 1008).width)
except ServiceError as error:
    print(error.kind, error.retry_after_s)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits address space as Linux does")
@pytest.mark.parametrize(("pixel_bytes", "expected"), [(8, "decoded 5000"), (2, "overloaded 1.0")])
def test_a_picture_is_decoded_within_eight_bytes_a_pixel_and_never_an_internal_error(
    pixel_bytes: int, expected: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _MEASURED, str(pixel_bytes * 5_000 * 5_000)],
        input=png_bomb(5_000, 5_000),
        capture_output=True,
        timeout=300,
    )
    assert done.stdout.decode().strip() == expected, done.stderr.decode()


def test_a_worker_answers_beside_hostile_files(start: Start) -> None:
    async def scenario() -> None:
        async with start() as client:
            assert (await client.segment(asking(data=TRANSPARENCY))).image.width == 30
            for data in list(REFUSED.values())[:3]:
                assert (await client.refused(asking(data=data))).kind is Kind.UNSUPPORTED_IMAGE
            assert (await client.segment(asking())).results

    run(scenario())


def test_only_formats_that_a_setting_names_are_taken(start: Start) -> None:
    async def scenario() -> None:
        async with start(image_formats=["jpeg", "png"]) as client:
            for file_format in ("JPEG", "PNG"):
                assert (await client.segment(asking(data=picture(file_format=file_format)))).results
            for file_format, name in (("TIFF", "TIFF"), ("WEBP", "WebP"), ("GIF", "GIF")):
                error = await client.refused(asking(data=picture(file_format=file_format)))
                assert error.kind is Kind.UNSUPPORTED_IMAGE
                assert error.detail == f"image cannot be read: JPEG or PNG is expected. It is a {name} file."

    run(scenario())


def test_mask_prompts_are_bounded_by_their_size_before_they_are_read(start: Start) -> None:
    """Neither a PNG nor counts say how much is decoded: the size does, and must be theirs."""
    bomb = pb.Mask(height=8, width=8, png=png_bomb(6_000, 6_000, 1))
    huge = pb.Mask(height=8, width=8, rle="oooooo?" * 500_000)
    wide = pb.Mask(height=2**31, width=2**31, rle="0")

    async def scenario() -> None:
        async with start() as client:
            for mask, kind in (
                (bomb, Kind.INVALID_ARGUMENT),
                (huge, Kind.INVALID_ARGUMENT),
                (wide, Kind.PAYLOAD_TOO_LARGE),
                (pb.Mask(height=8, width=8, rle="0" * (MAX_RLE_CHARS + 1)), Kind.PAYLOAD_TOO_LARGE),
            ):
                assert (await client.refused(asking(pb.Prompt(mask=mask)))).kind is kind

    run(scenario())
