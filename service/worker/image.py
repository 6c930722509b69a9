"""The one door for image bytes: header, limits, decoding, orientation, RGB, resize."""

import io
import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from service.config import Limits
from service.errors import Kind, ServiceError
from service.prompts import image_id
from service.worker.resize import stretch

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "GIF")
# Pillow's modes for grey with more than eight bits. PNG's 16 bits come as one or the other by its release.
_DEEP_GREY = ("I;16", "I;16B", "I;16L", "I;16N", "I")


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded image."""

    # `sha256:` and the hexadecimal digest of the bytes.
    id: str
    # Pixels, as displayed (EXIF orientation applied).
    width: int
    height: int
    # (image_size, image_size, 3) uint8 RGB: the whole image, stretched.
    pixels: NDArray[np.uint8]


def decode(data: bytes, limits: Limits, image_size: int) -> Picture:
    """Decode an image file (its first frame) and stretch it to image_size x image_size.

    Transparency is dropped, as Pillow's `convert("RGB")` does; deep grey is scaled to 8 bits; the resize is
    that of `resize.stretch`. Raises `payload_too_large` from the header
    alone, before anything is decoded, and `unsupported_image`.
    """
    with warnings.catch_warnings():
        # Pillow warns about odd files and about sizes; the first are decoded or refused, and the limits
        # are ours.
        warnings.simplefilter("ignore")
        with _open(data) as image:
            _check_size(image, limits)
            upright = _load_upright(image)
            rgb = _to_rgb(upright)
            stretched = stretch(np.asarray(rgb), image_size)
    return Picture(image_id(data), rgb.width, rgb.height, stretched)


def _open(data: bytes) -> Image.Image:
    # Pillow's own bound is a fixed number of pixels; `_check_size` follows at once with the operator's.
    Image.MAX_IMAGE_PIXELS = None
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except MemoryError:
        raise
    except Exception as error:  # whatever a decoder makes of bytes from outside
        names = "JPEG, PNG, WebP, TIFF or GIF"
        raise _unsupported(f"image cannot be read: {names} is expected.") from error


def _check_size(image: Image.Image, limits: Limits) -> None:
    width, height = image.size
    shown = f"image is {width:,} x {height:,} pixels"
    if width * height > limits.max_image_pixels:
        total = f"{width * height:,} in all; the limit is {limits.max_image_pixels:,} pixels"
        raise ServiceError(Kind.PAYLOAD_TOO_LARGE, f"{shown}, {total}.")
    if max(width, height) > limits.max_image_side:
        limit = f"the limit for a side is {limits.max_image_side:,} pixels"
        raise ServiceError(Kind.PAYLOAD_TOO_LARGE, f"{shown}; {limit}.")


def _load_upright(image: Image.Image) -> Image.Image:
    try:
        image.load()
    except MemoryError:
        raise
    except Exception as error:  # see _open
        raise _unsupported(f"image is a damaged or truncated {image.format} file.") from error
    try:
        return ImageOps.exif_transpose(image)
    except MemoryError:
        raise
    except Exception:  # an unreadable EXIF block says nothing about the pixels
        return image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in _DEEP_GREY:
        image = Image.fromarray(_to_8_bits(np.asarray(image)))
    if image.mode == "F":
        raise _unsupported("image has floating-point pixels, whose range is unknown: send 8 or 16 bits.")
    try:
        return image.convert("RGB")
    except ValueError as error:
        raise _unsupported(f"image has the colour mode {image.mode}, which has no way to RGB.") from error


def _to_8_bits(grey: NDArray[np.generic]) -> NDArray[np.uint8]:
    """(H, W) integers of 0..65535 -> (H, W) uint8, rounded."""
    values = grey.astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise _unsupported("image has grey levels outside of 0..65535: send 8 or 16 bits.")
    scaled: NDArray[np.uint8] = ((values + 128) // 257).astype(np.uint8)
    return scaled


def _unsupported(detail: str) -> ServiceError:
    return ServiceError(Kind.UNSUPPORTED_IMAGE, detail)
