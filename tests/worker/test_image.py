"""Image bytes of every kind, sound and unsound, through the one door."""

import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from service.config import Limits
from service.errors import Kind, ServiceError
from service.worker.image import decode
from tests.worker.conftest import blank, picture
from tests.worker.files import chunk, png_file, saved

LIMITS = Limits(max_image_pixels=1_000_000, max_image_side=5_000)
SIDE = 24
ORIENTATION = 0x0112
RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def corners() -> Image.Image:
    """48 x 24: red at the top left, green at the top right, blue at the bottom left, black elsewhere."""
    image = Image.new("RGB", (48, 24))
    for colour, place in ((RED, (0, 0)), (GREEN, (36, 0)), (BLUE, (0, 16))):
        image.paste(colour, (*place, place[0] + 12, place[1] + 8))
    return image


def decoded(data: bytes) -> np.ndarray[Any, Any]:
    return decode(data, LIMITS, SIDE).pixels


def refused(data: bytes, limits: Limits = LIMITS) -> ServiceError:
    with pytest.raises(ServiceError) as error:
        decode(data, limits, SIDE)
    return error.value


def test_a_picture_has_its_size_and_stretched_pixels() -> None:
    result = decode(saved(corners()), LIMITS, SIDE)
    assert (result.width, result.height) == (48, 24)
    assert (result.pixels.shape, result.pixels.dtype) == ((SIDE, SIDE, 3), np.uint8)
    assert tuple(result.pixels[0, 0]) == RED
    assert tuple(result.pixels[0, -1]) == GREEN
    assert tuple(result.pixels[-1, 0]) == BLUE


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF", "GIF"])
def test_every_format_is_read(file_format: str) -> None:
    image = Image.linear_gradient("L").convert("RGB")
    pixels = decoded(saved(image, file_format))
    expected = np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BILINEAR), int)
    assert np.abs(pixels - expected).max() <= 6


def test_shrinking_is_antialiased() -> None:
    stripes = np.zeros((240, 240), np.uint8)
    stripes[:, ::2] = 255
    assert np.abs(decoded(saved(Image.fromarray(stripes))).astype(int) - 127).max() < 30


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "I;16"])
def test_every_colour_mode_becomes_the_same_rgb(mode: str) -> None:
    half = np.zeros((SIDE, SIDE), np.uint8)
    half[:, SIDE // 2 :] = 255
    grey = Image.fromarray(half)
    image = Image.fromarray(half.astype(np.uint16) * 257) if mode == "I;16" else grey.convert(mode)
    assert image.mode == mode
    file_format = "PNG" if mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16") else "TIFF"
    pixels = decoded(saved(image, file_format))
    assert np.abs(pixels.astype(int) - half[..., np.newaxis]).max() <= 1


def test_transparency_is_dropped_and_not_composed() -> None:
    image = Image.new("RGBA", (30, 30), (200, 100, 50, 0))
    assert set(map(tuple, decoded(saved(image)).reshape(-1, 3))) == {(200, 100, 50)}
    palette = Image.new("P", (30, 30), 3)
    palette.putpalette([*range(9), 200, 100, 50])
    seen = decoded(saved(palette, transparency=bytes([255, 255, 255, 0])))
    assert set(map(tuple, seen.reshape(-1, 3))) == {(200, 100, 50)}


@pytest.mark.parametrize(("level", "expected"), [(0, 0), (257, 1), (30_000, 117), (65_535, 255)])
def test_sixteen_bits_of_grey_are_scaled_to_eight(level: int, expected: int) -> None:
    for file_format in ("PNG", "TIFF"):
        image = Image.fromarray(np.full((30, 30), level, np.uint16))
        assert np.unique(decoded(saved(image, file_format))).tolist() == [expected]


# What a camera of that orientation would have stored of an upright picture.
STORED = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", STORED)
def test_a_photograph_is_seen_upright(file_format: str, orientation: int) -> None:
    back = STORED[orientation]
    stored = corners() if back is None else corners().transpose(back)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    result = decode(saved(stored, file_format, exif=exif.tobytes()), LIMITS, SIDE)
    assert (result.width, result.height) == (48, 24)
    for place, colour in (((0, 0), RED), ((0, -1), GREEN), ((-1, 0), BLUE), ((-1, -1), (0, 0, 0))):
        assert np.abs(result.pixels[place].astype(int) - colour).max() < 8


def test_an_orientation_in_the_xmp_counts_where_exif_has_none() -> None:
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf tiff:Orientation="6"/></x:xmpmeta>'
    assert decode(saved(corners(), "WEBP", xmp=xmp), LIMITS, SIDE).width == 24


def test_an_unreadable_exif_block_costs_nothing() -> None:
    data = saved(corners(), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff broken")
    assert decode(data, LIMITS, SIDE).width == 48


@pytest.mark.parametrize("kind", range(20))
def test_an_orientation_counts_whatever_stands_beside_it(kind: int) -> None:
    # The other tag's value is of any type, known or not, and its place beyond the block's end.
    directory = struct.pack("<HHHIIHHII", 2, ORIENTATION, 3, 1, 6, 0x927C, kind, 70_000, 0xFFFF)
    width_tag = struct.pack("<HHHIIHHI4s", 2, ORIENTATION, 3, 1, 6, 0x0100, kind, 1, b"abcd")
    for entries in (directory, width_tag):
        exif = b"Exif\0\0II*\0\x08\0\0\0" + entries + bytes(4)
        result = decode(saved(corners(), "JPEG", exif=exif), LIMITS, SIDE)
        assert (result.width, result.height) == (24, 48)


def test_limits_are_judged_by_the_header_alone() -> None:
    error = refused(blank(12_000, 12_000), Limits(max_image_pixels=100_000_000))
    assert error.kind == Kind.PAYLOAD_TOO_LARGE
    assert "12,000 x 12,000" in error.detail and "100,000,000" in error.detail
    # A header with no pixels behind it: nothing could be decoded.
    assert refused(png_file(400_000, 400_000, 8, 2, b"")).kind == Kind.PAYLOAD_TOO_LARGE


def test_a_side_has_a_limit_of_its_own() -> None:
    error = refused(blank(5_001, 2))
    assert error.kind == Kind.PAYLOAD_TOO_LARGE
    assert "5,001 x 2" in error.detail and "5,000" in error.detail
    assert decode(blank(5_000, 2), LIMITS, SIDE).width == 5_000


def _bmp() -> bytes:
    return saved(corners(), "BMP")


# Small files that would grow to 256 MiB.
_BOMB = zlib.compress(bytes(1 << 28))
_ROWS = bytes(31 * 10)
DAMAGED = {
    "nothing": b"",
    "a zero": b"\0",
    "a compressed text without end": png_file(30, 10, 8, 0, _ROWS, chunk(b"zTXt", b"a\0\0" + _BOMB)),
    "a colour profile without end": png_file(30, 10, 8, 0, _ROWS, chunk(b"iCCP", b"a\0\0" + _BOMB)),
    "text": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "a format not taken": _bmp(),
    "half a JPEG": picture(300, 200, "JPEG")[:900],
    "half a PNG": picture(300, 200)[:300],
    "half a WebP": picture(300, 200, "WEBP")[:200],
    "half a TIFF": picture(300, 200, "TIFF")[:20_000],
    "a PNG with a wrong byte": picture(300, 200)[:200] + b"\xff" + picture(300, 200)[201:],
    "floating-point pixels": saved(Image.new("F", (30, 30)), "TIFF"),
    "32 bits of grey": saved(Image.fromarray(np.full((9, 9), 70_000, np.int32)), "TIFF"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_what_cannot_be_read_is_unsupported(name: str) -> None:
    error = refused(DAMAGED[name])
    assert error.kind == Kind.UNSUPPORTED_IMAGE
    assert error.detail.startswith("image ")


def test_pixels_beyond_the_header_are_not_looked_at() -> None:
    result = decode(png_file(30, 10, 8, 0, bytes(1 << 26)), LIMITS, SIDE)
    assert (result.width, result.height) == (30, 10)


def test_a_name_or_a_type_decides_nothing_and_the_bytes_do() -> None:
    assert (
        refused(picture(30, 20)[4:]).detail
        == "image cannot be read: JPEG, PNG, WebP, TIFF or GIF is expected."
    )


def test_random_damage_is_refused_or_decoded_and_never_anything_else() -> None:
    random = np.random.default_rng(7)
    for file_format in ("JPEG", "PNG", "WEBP", "TIFF", "GIF"):
        whole = picture(120, 90, file_format)
        for _ in range(60):
            data = bytearray(whole)
            for place in random.integers(0, len(data), 4):
                data[place] = random.integers(256)
            try:
                assert decode(bytes(data), LIMITS, SIDE).pixels.shape == (SIDE, SIDE, 3)
            except ServiceError as error:
                assert error.kind in (Kind.UNSUPPORTED_IMAGE, Kind.PAYLOAD_TOO_LARGE)
