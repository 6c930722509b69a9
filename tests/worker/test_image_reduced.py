"""A large JPEG is decoded at a reduced scale, and the student sees what it would have seen."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from service.config import Limits
from service.errors import Kind, ServiceError
from service.worker import jpeg
from service.worker.image import decode
from service.worker.resize import stretch
from tests.worker.files import lossless_jpeg, saved

Array = NDArray[Any]
LIMITS = Limits()
ORIENTATION = 0x0112


def landscape(width: int, height: int) -> Image.Image:
    """Noise whose amplitude falls with its frequency, most of it in all the colours, as a photograph's."""
    random = np.random.default_rng(11)
    frequency = np.hypot(np.fft.fftfreq(height)[:, np.newaxis], np.fft.rfftfreq(width))
    fall = 1 / np.maximum(frequency, 2 / max(width, height)) ** 1.2
    noise = [np.fft.rfft2(random.normal(size=(height, width))) for _ in range(4)]
    waves = [np.fft.irfft2(each * fall, s=(height, width)) for each in noise]
    shared, *own = (wave / wave.std() for wave in waves)
    pixels = np.stack([128 + 40 * shared + 15 * colour for colour in own], axis=2)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def in_full(data: bytes, side: int) -> Array:
    with Image.open(io.BytesIO(data)) as image:
        return stretch(np.asarray(ImageOps.exif_transpose(image).convert("RGB")), side)


def scale(data: bytes, side: int) -> int:
    with Image.open(io.BytesIO(data)) as image:
        return jpeg.reduce(image, jpeg.markers(data), side)


def alike(seen: Array, expected: Array) -> None:
    """The tolerance that docs/parity.md states for photographs."""
    difference = np.abs(seen.astype(int) - expected)
    assert difference.mean() <= 0.5
    assert (difference <= 3).mean() >= 0.999


@pytest.mark.parametrize(("side", "expected"), [(1008, 1), (241, 1), (240, 2), (121, 2), (120, 4), (24, 4)])
def test_both_sides_stay_two_and_a_half_times_the_input(side: int, expected: int) -> None:
    data = saved(Image.new("RGB", (1800, 1200)), "JPEG")
    assert scale(data, side) == expected
    assert scale(saved(Image.new("RGB", (1800, 1200)), "PNG"), side) == 1


@pytest.mark.parametrize("side", [240, 120])
@pytest.mark.parametrize("options", [{"quality": 95, "subsampling": 0}, {"quality": 75, "progressive": True}])
def test_photographs_are_seen_alike(reference: Path, side: int, options: dict[str, int]) -> None:
    """The sharpest there are: made smaller once, they have detail in every pixel."""
    for name in ("truck.jpg", "groceries.jpg", "test_image.jpg"):
        with Image.open(reference / "pictures" / name) as picture:
            data = saved(picture.convert("RGB").resize((1800, 1200)), "JPEG", **options)
        assert scale(data, side) > 1
        alike(decode(data, LIMITS, side).pixels, in_full(data, side))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(600, 480), (501, 403), (410, 797)])
def test_a_turned_picture_of_any_size_is_seen_alike(orientation: int, size: tuple[int, int]) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    data = saved(landscape(*size), "JPEG", quality=90, exif=exif.tobytes())
    assert scale(data, 80) == 2
    result = decode(data, LIMITS, 80)
    assert (result.width, result.height) == (size if orientation < 5 else size[::-1])
    alike(result.pixels, in_full(data, 80))


def test_grey_pictures_are_reduced_too() -> None:
    data = saved(landscape(500, 500).convert("L"), "JPEG")
    assert scale(data, 50) == 4
    alike(decode(data, LIMITS, 50).pixels, in_full(data, 50))


def test_other_jpegs_are_decoded_in_full_to_the_bit() -> None:
    """Smaller ones, those whose colours are ink, and those that have no reduced scale."""
    small, ink = saved(landscape(499, 399), "JPEG"), saved(landscape(500, 400).convert("CMYK"), "JPEG")
    lossless = lossless_jpeg(np.asarray(landscape(500, 400).convert("L")))
    for data in (small, ink, lossless):
        assert scale(data, 80) == 1
        assert np.array_equal(decode(data, LIMITS, 80).pixels, in_full(data, 80))


def test_what_follows_the_picture_is_not_judged() -> None:
    """A film or other pictures, which may hold any bytes."""
    data = saved(landscape(64, 64), "JPEG", progressive=True)
    assert decode(data + b"\0\2" + b"\xff\xda\0\2" * 1000, LIMITS, 24).width == 64


def test_a_file_of_endless_scans_is_refused() -> None:
    data = saved(landscape(64, 64), "JPEG", progressive=True)
    last, end = data.rindex(b"\xff\xda"), data.rindex(b"\xff\xd9")
    present = data.count(b"\xff\xda")
    most = data[:end] + data[last:end] * (100 - present) + data[end:]
    assert decode(most, LIMITS, 24).width == 64
    with pytest.raises(ServiceError) as refused:
        decode(data[:end] + data[last:end] * (101 - present) + data[end:], LIMITS, 24)
    assert refused.value.kind == Kind.UNSUPPORTED_IMAGE
    assert refused.value.detail == "image is a JPEG file of over 100 scans, which is the limit."


def test_a_file_of_endless_segments_is_refused() -> None:
    data = saved(landscape(64, 64), "JPEG")
    assert decode(data[:2] + b"\xff\xfe\x00\x02" * 9_900 + data[2:], LIMITS, 24).width == 64
    with pytest.raises(ServiceError) as refused:
        decode(data[:2] + b"\xff\xfe\x00\x02" * 10_001 + data[2:], LIMITS, 24)
    assert refused.value.detail == "image is a JPEG file of over 10,000 segments, which is the limit."
