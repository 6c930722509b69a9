"""The one door for image bytes: header, limits, decoding, orientation, RGB, resize; and masks sent as PNG.

Alpha is dropped, not composed, and colour profiles and gamma are not applied: the students' reference sees
pictures through Pillow's `convert("RGB")`, which does neither.
"""

import io
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, TiffImagePlugin

from service.config import Limits
from service.errors import Kind, ServiceError
from service.worker import jpeg
from service.worker.resize import stretch

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "GIF")
# How a file begins.
_BEGINNINGS = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG": "PNG",
    b"RIFF": "WebP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"GIF8": "GIF",
}
# Pillow's modes for grey with more than eight bits. PNG's 16 bits come as one or the other by its release.
_DEEP_GREY = ("I;16", "I;16B", "I;16L", "I;16N", "I")
# EXIF's orientation -> what brings the stored picture upright.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ON_SIDE = tuple(_TURNS[orientation] for orientation in (5, 6, 7, 8))
# TIFF's values of PhotometricInterpretation, SampleFormat and PlanarConfiguration.
_WHITE_IS_ZERO, _SIGNED, _PLANES = 0, 2, 2


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded image."""

    # Pixels, as displayed (EXIF orientation applied).
    width: int
    height: int
    # (image_size, image_size, 3) uint8 RGB: the whole image, stretched.
    pixels: NDArray[np.uint8]


def decode(data: bytes, limits: Limits, image_size: int) -> Picture:
    """Decode an image file (its first frame) and stretch it to image_size x image_size.

    More than 8 bits are scaled to 8; the resize is that of `resize.stretch`. A large JPEG is decoded at a
    reduced scale. Raises `payload_too_large` from the header alone, before anything is decoded, and
    `unsupported_image`.
    """
    with warnings.catch_warnings():
        # Pillow warns about odd files and about sizes; the first are decoded or refused, and the limits
        # are ours.
        warnings.simplefilter("ignore")
        markers = jpeg.markers(data)
        with _open(data, FORMATS) as image:
            _check_size(image, limits)
            _check_samples(image)
            size = image.size
            scale = jpeg.reduce(image, markers, image_size)
            _load(image)
            width, height, pixels = _upright(image, size, scale, image_size)
    return Picture(width, height, pixels)


def grey(data: bytes, width: int, height: int) -> NDArray[np.uint8]:
    """Decode a grey PNG of that size: (height, width) uint8 levels.

    Colour modes are taken as far as every pixel is grey and opaque, 16 bits are scaled to 8. Raises
    `unsupported_image`, whose detail begins with "image"; the size is compared before anything is decoded.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with _open(data, ("PNG",)) as image:
            if image.size != (width, height):
                found, expected = (f"{w:,} x {h:,}" for w, h in (image.size, (width, height)))
                raise _unsupported(
                    f"image is {found} pixels (width x height), not the {expected} that its size says."
                )
            _load(image)
            if image.mode in _DEEP_GREY:
                return _deep_grey(image)
            if image.mode in ("1", "L") and "transparency" not in image.info:
                return np.asarray(image.convert("L"))
            red, green, blue, alpha = (np.asarray(band) for band in image.convert("RGBA").split())
    if not (np.array_equal(red, green) and np.array_equal(red, blue)):
        raise _unsupported("image has colours: send grey levels.")
    if alpha.min() < 255:
        raise _unsupported("image has transparent pixels: send grey levels without alpha.")
    return red


def _open(data: bytes, formats: tuple[str, ...]) -> Image.Image:
    # Pillow's own bound is a fixed number of pixels; our callers follow at once with theirs.
    Image.MAX_IMAGE_PIXELS = None
    try:
        return Image.open(io.BytesIO(data), formats=formats)
    except MemoryError:
        raise
    except Exception as error:  # whatever a decoder makes of bytes from outside
        name = next((name for begin, name in _BEGINNINGS.items() if data.startswith(begin)), "")
        if name.upper() in formats:
            detail = f"image is a damaged {name} file, or one of a kind that is not supported."
            raise _unsupported(detail) from error
        expected = " or ".join(", ".join(formats).replace("WEBP", "WebP").rsplit(", ", 1))
        raise _unsupported(f"image cannot be read: {expected} is expected.") from error


def _check_size(image: Image.Image, limits: Limits) -> None:
    width, height = image.size
    shown = f"image is {width:,} x {height:,} pixels"
    if width * height > limits.max_image_pixels:
        total = f"{width * height:,} in all; the limit is {limits.max_image_pixels:,} pixels"
        raise ServiceError(Kind.PAYLOAD_TOO_LARGE, f"{shown}, {total}.")
    if max(width, height) > limits.max_image_side:
        limit = f"the limit for a side is {limits.max_image_side:,} pixels"
        raise ServiceError(Kind.PAYLOAD_TOO_LARGE, f"{shown}; {limit}.")


def _check_samples(image: Image.Image) -> None:
    """Raise `unsupported_image` for samples that have no range, or that Pillow would read wrongly."""
    if image.mode == "F":
        raise _unsupported("image has floating-point pixels, whose range is unknown: send 8 or 16 bits.")
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return
    if image.mode == "I" or _SIGNED in image.tag_v2.get(TiffImagePlugin.SAMPLEFORMAT, ()):
        raise _unsupported(
            "image has signed or 32-bit samples, whose range is unknown: send unsigned ones of 8 or 16 bits."
        )
    bits = image.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE, (1,))
    in_planes = image.tag_v2.get(TiffImagePlugin.PLANAR_CONFIGURATION) == _PLANES
    is_raw = any(tile.codec_name == "raw" for tile in image.tile)
    if in_planes and is_raw and len(bits) > 1 and max(bits) > 8:
        raise _unsupported(
            "image is an uncompressed TIFF of planes with more than 8 bits: compress it, or interleave them."
        )


def _load(image: Image.Image) -> None:
    try:
        image.load()
    except MemoryError:
        raise
    except Exception as error:  # see _open
        raise _unsupported(f"image is a damaged or truncated {image.format} file.") from error


def _upright(
    image: Image.Image, size: tuple[int, int], scale: int, side: int
) -> tuple[int, int, NDArray[np.uint8]]:
    """Width and height as displayed, and the pixels of a loaded image, stretched."""
    turn = _turn(image)
    rgb = _to_rgb(image)
    if scale == 1:
        rgb = rgb if turn is None else rgb.transpose(turn)
        return rgb.width, rgb.height, stretch(np.asarray(rgb), side)
    # The averages are counted from the stored picture's corner, so that the resize comes first.
    pixels = stretch(np.asarray(rgb), side, scale, size)
    if turn is None:
        return *size, pixels
    width, height = size[::-1] if turn in _ON_SIDE else size
    return width, height, np.asarray(Image.fromarray(pixels).transpose(turn))


def _turn(image: Image.Image) -> Image.Transpose | None:
    try:
        orientation: Any = image.getexif().get(ExifTags.Base.Orientation)
        return _TURNS.get(orientation)
    except MemoryError:
        raise
    except Exception:  # an unreadable EXIF block says nothing about the pixels
        return None


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in _DEEP_GREY:
        image = Image.fromarray(_deep_grey(image))
    try:
        return image.convert("RGB")
    except ValueError as error:
        raise _unsupported(f"image has the colour mode {image.mode}, which has no way to RGB.") from error


def _deep_grey(image: Image.Image) -> NDArray[np.uint8]:
    """(H, W) uint8: the levels of an image in one of the deep modes, scaled to 8 bits and rounded."""
    bits = 16
    levels = np.asarray(image).astype(np.uint32)
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        bits = image.tag_v2[TiffImagePlugin.BITSPERSAMPLE][0]
        if image.tag_v2.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == _WHITE_IS_ZERO:
            levels = (1 << bits) - 1 - levels
    top = (1 << bits) - 1
    levels *= 255
    levels += top // 2
    levels //= top
    return levels.astype(np.uint8)


def _unsupported(detail: str) -> ServiceError:
    return ServiceError(Kind.UNSUPPORTED_IMAGE, detail)
