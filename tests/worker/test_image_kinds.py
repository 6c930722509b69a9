"""Every kind of file that a decoder may meet gives the right pixels, or an error that says why not."""

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from service.config import Limits
from service.errors import Kind, ServiceError
from service.worker.image import decode
from tests.worker.files import (
    BITS,
    COMPRESSION,
    HEIGHT,
    PHOTOMETRIC,
    PLANAR,
    SAMPLES,
    TILE_HEIGHT,
    TILE_WIDTH,
    WIDTH,
    chunk,
    deep_png,
    png_file,
    saved,
    tiff_file,
    tiff_of,
)

Array = NDArray[Any]
SIDE = 64
# TIFF's PhotometricInterpretation and ExtraSamples.
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, CMYK = 0, 1, 2, 5
ASSOCIATED, UNASSOCIATED = 1, 2
SIGNED, FLOAT = 2, 3
DEFLATE = 8

# Every level of grey, many hues, some alpha: as large as the input, so that no resize stands between.
GREY = np.arange(SIDE * SIDE).reshape(SIDE, SIDE, 1).astype(np.uint8)
COLOURS = np.concatenate((GREY, GREY.transpose(1, 0, 2), 255 - GREY), axis=2)
ALPHA = np.roll(GREY, 7, axis=0)
WITH_ALPHA = np.concatenate((COLOURS, ALPHA), axis=2)
DEEP_GREY, DEEP_COLOURS = (each.astype(np.uint16) * 257 for each in (GREY, COLOURS))
TWO = np.where(GREY > 127, np.uint8(255), np.uint8(0))
PALETTE = np.asarray(Image.fromarray(COLOURS).quantize(200).convert("RGB"))


def _pillow(mode: str) -> Image.Image:
    sources = {"1": TWO, "L": GREY, "LA": np.concatenate((GREY, ALPHA), axis=2), "RGBA": WITH_ALPHA}
    if mode == "1":
        return Image.fromarray(TWO[..., 0]).convert("1")
    if mode in ("P", "PA"):
        return Image.fromarray(COLOURS).quantize(200).convert(mode)
    if mode in sources:
        return Image.fromarray(sources[mode].squeeze())
    return Image.fromarray(COLOURS).convert(mode)


EXPECTED = {"1": TWO, "L": GREY, "LA": GREY, "P": PALETTE, "PA": PALETTE}
LOSSLESS = {"WEBP": {"lossless": True, "exact": True}}


def close(data: bytes, expected: Array, within: int = 0) -> None:
    result = decode(data, Limits(), SIDE)
    assert (result.width, result.height) == (SIDE, SIDE)
    assert np.abs(result.pixels.astype(int) - expected).max() <= within


def refused(data: bytes) -> str:
    with pytest.raises(ServiceError) as error:
        decode(data, Limits(), SIDE)
    assert error.value.kind == Kind.UNSUPPORTED_IMAGE
    return error.value.detail


@pytest.mark.parametrize(
    ("file_format", "mode"),
    [
        *(("PNG", mode) for mode in ("1", "L", "LA", "P", "RGB", "RGBA")),
        *(("TIFF", mode) for mode in ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK")),
        *(("WEBP", mode) for mode in ("L", "RGB", "RGBA")),
        *(("GIF", mode) for mode in ("1", "L", "P")),
    ],
)
def test_a_lossless_file_of_any_mode_gives_its_pixels(file_format: str, mode: str) -> None:
    data = saved(_pillow(mode), file_format, **LOSSLESS.get(file_format, {}))
    close(data, EXPECTED.get(mode, COLOURS))


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_a_jpeg_of_any_mode_gives_nearly_its_pixels(mode: str) -> None:
    smooth = Image.linear_gradient("L").resize((SIDE, SIDE)).convert(mode)
    close(saved(smooth, "JPEG", quality=98), np.asarray(smooth.convert("RGB")), within=3)


def test_cmyk_jpegs_hold_inverted_ink_as_adobe_writes_it_marked_or_not() -> None:
    data = saved(Image.new("CMYK", (SIDE, SIDE), (0, 255, 255, 0)), "JPEG", quality=98)
    place = data.index(b"\xff\xee\0\x0eAdobe")
    for file in (data, data[:place] + data[place + 16 :]):
        close(file, np.array([255, 0, 0]), within=3)


def test_ycck_jpegs_are_read() -> None:
    # Stored are 255, 128, 128, 255: as luminance and chroma they are white, the inverse of full ink.
    data = bytearray(saved(Image.new("CMYK", (SIDE, SIDE), (0, 127, 127, 0)), "JPEG", quality=98))
    data[data.index(b"\xff\xee\0\x0eAdobe") + 15] = 2
    close(bytes(data), np.array([0, 0, 0]), within=3)


def test_ycbcr_and_lab_tiffs_become_rgb() -> None:
    ycbcr = Image.new("RGB", (SIDE, SIDE), (200, 100, 50)).convert("YCbCr")
    close(saved(ycbcr, "TIFF"), np.array([200, 100, 50]), within=2)
    close(saved(Image.new("LAB", (SIDE, SIDE), (255, 128, 128)), "TIFF"), np.array([255, 255, 255]), within=2)


@pytest.mark.parametrize(
    "compression", ["raw", "packbits", "tiff_lzw", "tiff_deflate", "tiff_adobe_deflate", "lzma", "zstd"]
)
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_compressed_tiffs_are_read(compression: str, mode: str) -> None:
    close(saved(_pillow(mode), "TIFF", compression=compression), EXPECTED.get(mode, COLOURS))


@pytest.mark.parametrize("compression", ["group3", "group4", "tiff_ccitt"])
def test_faxes_are_read(compression: str) -> None:
    close(saved(_pillow("1"), "TIFF", compression=compression), TWO)


@pytest.mark.parametrize("order", ["<", ">"])
def test_tiffs_of_either_byte_order_are_read(order: str) -> None:
    ink = np.concatenate((255 - COLOURS, np.zeros_like(GREY)), axis=2)
    halved = np.concatenate((COLOURS // 2, np.full_like(GREY, 128)), axis=2)
    close(tiff_of(GREY, BLACK_IS_ZERO, order), GREY)
    close(tiff_of(255 - GREY, WHITE_IS_ZERO, order), GREY)
    close(tiff_of(DEEP_GREY, BLACK_IS_ZERO, order), GREY)
    close(tiff_of(DEEP_COLOURS, RGB, order), COLOURS)
    close(tiff_of(WITH_ALPHA.astype(np.uint16) * 257, RGB, order, extra=UNASSOCIATED), COLOURS)
    close(tiff_of(halved, RGB, order, extra=ASSOCIATED), COLOURS, within=2)
    close(tiff_of(ink, CMYK, order), COLOURS)
    close(tiff_of(ink.astype(np.uint16) * 257, CMYK, order), COLOURS)


def test_deep_grey_tiffs_keep_their_range() -> None:
    close(tiff_of(65_535 - DEEP_GREY, WHITE_IS_ZERO), GREY)
    # Twelve bits, two samples in three bytes.
    levels = np.round(GREY / 255 * 4095).astype(int)
    bits = (levels >> np.arange(11, -1, -1)) & 1
    packed = np.packbits(bits.astype(np.uint8).reshape(SIDE, -1), axis=1).tobytes()
    tags = {WIDTH: [SIDE], HEIGHT: [SIDE], BITS: [12], COMPRESSION: [1], PHOTOMETRIC: [BLACK_IS_ZERO]}
    close(tiff_file(tags, [packed]), GREY)


TILED = {WIDTH: [SIDE], HEIGHT: [SIDE], COMPRESSION: [1], PHOTOMETRIC: [RGB], SAMPLES: [3], BITS: [8] * 3}


@pytest.mark.parametrize("compression", [1, DEFLATE])
def test_tiled_tiffs_and_tiffs_of_planes_are_read(compression: int) -> None:
    pack = zlib.compress if compression == DEFLATE else bytes
    tags = {**TILED, COMPRESSION: [compression]}
    # Three by three tiles of 32 reach over the edge.
    room = np.zeros((96, 96, 3), np.uint8)
    room[:SIDE, :SIDE] = COLOURS
    tiles = [pack(room[y : y + 32, x : x + 32].tobytes()) for y in (0, 32) for x in (0, 32)]
    close(tiff_file({**tags, TILE_WIDTH: [32], TILE_HEIGHT: [32]}, tiles), COLOURS)
    planes = [pack(np.ascontiguousarray(COLOURS[..., band]).tobytes()) for band in range(3)]
    close(tiff_file({**tags, PLANAR: [2]}, planes), COLOURS)


def test_deep_planes_are_read_where_they_can_be_and_refused_where_not() -> None:
    planes = [np.ascontiguousarray(DEEP_COLOURS[..., band]).tobytes() for band in range(3)]
    tags = {**TILED, BITS: [16] * 3, PLANAR: [2]}
    packed = [zlib.compress(plane) for plane in planes]
    close(tiff_file({**tags, COMPRESSION: [DEFLATE]}, packed), COLOURS)
    assert "planes with more than 8 bits" in refused(tiff_file(tags, planes))


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_sixteen_bit_pngs_are_scaled_to_eight(channels: int) -> None:
    source = {1: GREY, 2: np.concatenate((GREY, ALPHA), axis=2), 3: COLOURS, 4: WITH_ALPHA}[channels]
    close(deep_png(source.astype(np.uint16) * 257), GREY if channels < 3 else COLOURS)
    # Levels between two of the eight bits' go to one of them.
    close(deep_png(source.astype(np.uint16) * 256), GREY if channels < 3 else COLOURS, within=1)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_pngs_of_few_bits_are_spread_or_looked_up(bits: int) -> None:
    levels = GREY[..., 0] % (1 << bits)
    packed = np.unpackbits(levels[..., np.newaxis], axis=2)[..., -bits:]
    rows = b"".join(b"\0" + np.packbits(row).tobytes() for row in packed)
    close(
        png_file(SIDE, SIDE, bits, 0, rows), (levels.astype(int) * 255 // ((1 << bits) - 1))[..., np.newaxis]
    )
    palette = COLOURS[:1, : 1 << bits].reshape(-1, 3)
    file = png_file(SIDE, SIDE, bits, 3, rows, chunk(b"PLTE", palette.tobytes()))
    close(file, palette[levels])


UNKNOWN_RANGE = {
    "signed 8 bits": tiff_of(GREY.astype(np.int8), BLACK_IS_ZERO, sample_format=SIGNED),
    "signed 16 bits": tiff_of(GREY.astype(np.int16), BLACK_IS_ZERO, sample_format=SIGNED),
    "signed 32 bits": tiff_of(GREY.astype(np.int32), BLACK_IS_ZERO, sample_format=SIGNED),
    "unsigned 32 bits": tiff_of(GREY.astype(np.uint32), BLACK_IS_ZERO),
    "floats": tiff_of(GREY.astype(np.float32), BLACK_IS_ZERO, sample_format=FLOAT),
}
NOT_READ = {
    "float colours": tiff_of(COLOURS.astype(np.float32), RGB, sample_format=FLOAT),
    "half floats": tiff_of(GREY.astype(np.float16), BLACK_IS_ZERO, sample_format=FLOAT),
    "32-bit colours": tiff_of(COLOURS.astype(np.uint32), RGB),
}


@pytest.mark.parametrize("name", UNKNOWN_RANGE)
def test_samples_without_a_range_are_refused(name: str) -> None:
    assert "range is unknown: send" in refused(UNKNOWN_RANGE[name])


@pytest.mark.parametrize("name", NOT_READ)
def test_a_kind_that_is_not_read_is_not_called_another_format(name: str) -> None:
    assert refused(NOT_READ[name]) == "image is a damaged TIFF file, or one of a kind that is not supported."


@pytest.mark.parametrize("file_format", ["GIF", "WEBP", "TIFF", "PNG", "MPO"])
def test_the_first_picture_of_several_is_taken(file_format: str) -> None:
    red, green = (Image.new("RGB", (SIDE, SIDE), colour) for colour in ("red", "lime"))
    data = saved(red, file_format, save_all=True, append_images=[green])
    with Image.open(io.BytesIO(data)) as image:
        assert getattr(image, "n_frames", 1) == 2
    close(data, np.array([255, 0, 0]), within=2)


def test_a_gif_frame_smaller_than_its_screen_stands_in_its_place() -> None:
    data = bytearray(saved(Image.new("RGB", (SIDE, SIDE), "red"), "GIF"))
    frame = data.index(b"\x2c", 13 + 3 * (2 << (data[10] & 7)) * (data[10] >> 7))
    struct.pack_into("<HH", data, 6, 2 * SIDE, SIDE)
    struct.pack_into("<HH", data, frame + 1, SIDE, 0)
    result = decode(bytes(data), Limits(), SIDE)
    assert (result.width, result.height) == (2 * SIDE, SIDE)
    assert (result.pixels[:, SIDE // 2 + 1 :] == (255, 0, 0)).all()
