"""The one door for image bytes: header, limits, decoding, orientation, RGB, resize; and masks sent as PNG.

Alpha is dropped, not composed, and colour profiles and gamma are not applied: the students' reference sees
pictures through Pillow's `convert("RGB")`, which does neither. A decoded picture exists once, at its own
depth, and is converted and resized in strips.
"""

import io
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

from service.config import Limits
from service.errors import Kind, ServiceError
from service.worker import image_headers, jpeg
from service.worker.image_headers import NAMES, Header, exif
from service.worker.resize import stretch_strips

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
# Those after which rows are columns, and those after which the first row or column is the last.
_ON_SIDE = tuple(_TURNS[orientation] for orientation in (5, 6, 7, 8))
_REVERSED = tuple(_TURNS[orientation] for orientation in (3, 4, 7, 8))
# TIFF's values of PhotometricInterpretation, SampleFormat and PlanarConfiguration.
_WHITE_IS_ZERO, _SIGNED, _PLANES = 0, 2, 2
# Bytes of a file that are decoded at once; between two blocks decoding can stop.
_BLOCK_BYTES = 16_384
# Rows of a mask that are converted at once.
_ROWS = 64
# The time after which memory that was short may be free again.
_MEMORY_RETRY_S = 1.0
# Characters of an EXIF block that a PNG holds as hexadecimal text.
_MAX_HEX_CHARS = 1 << 20

CheckCanceled = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded image."""

    # Pixels, as displayed (EXIF orientation applied).
    width: int
    height: int
    # (image_size, image_size, 3) uint8 RGB: the whole image, stretched.
    pixels: NDArray[np.uint8]


def decode(data: bytes, limits: Limits, image_size: int, go_on: CheckCanceled = lambda: None) -> Picture:
    """Decode an image file (its first frame) and stretch it to image_size x image_size.

    More than 8 bits are scaled to 8; the resize is that of `resize.stretch`. A large JPEG is decoded at a
    reduced scale. Raises `payload_too_large` from the header alone, before anything is decoded,
    `unsupported_image`, `overloaded` where memory is short, and what `go_on` raises: it is called before the
    decoding and between blocks of the file.
    """
    with _decoding():
        go_on()
        markers = jpeg.markers(data)
        header = image_headers.scan(data)
        _check_size(header, limits)
        jpeg.check_scans(markers, header.pixels)
        if header.format == "WEBP" and not header.animated:
            pixels = _decode_webp(header)
            return _stretched(_Stored(Image.Image(), pixels, _turn(header.orientation)), image_size, go_on)
        with _open(header, go_on) as image:
            _check_samples(image)
            scale = jpeg.reduce(image, markers, image_size)
            _load(image)
            turn = _turn(header.orientation if header.orientation is not None else _orientation(image))
            # Metadata decides nothing from here on, and it may be of any type.
            samples, image.info = _Samples.of(image), {}
            if scale == 1:
                return _stretched(_Stored(image, None, turn, samples), image_size, go_on)
            return _reduced(header, _Stored(image, None, None, samples), scale, turn, image_size, go_on)


def grey(data: bytes, width: int, height: int) -> NDArray[np.uint8]:
    """Decode a grey PNG of that size: (height, width) uint8 levels.

    Colour modes are taken as far as every pixel is grey and opaque, 16 bits are scaled to 8. Raises
    `unsupported_image`, whose detail begins with "image", and `overloaded` where memory is short; the size is
    compared before anything is decoded.
    """
    with _decoding():
        header = image_headers.scan(data, ("PNG",))
        if (header.width, header.height) != (width, height):
            found, expected = (f"{w:,} x {h:,}" for w, h in ((header.width, header.height), (width, height)))
            raise _unsupported(
                f"image is {found} pixels (width x height), not the {expected} that its size says."
            )
        with _open(header) as image:
            _load(image)
            # A text may have this keyword too.
            if not isinstance(image.info.get("transparency", 0), int | bytes | tuple):
                image.info = {}
            samples, levels = _Samples.of(image), np.empty((height, width), np.uint8)
            for row in range(0, height, _ROWS):
                strip = image.crop((0, row, width, min(row + _ROWS, height)))
                levels[row : row + _ROWS] = _grey_levels(strip, samples)
            return levels


@dataclass(frozen=True, slots=True)
class _Samples:
    """The meaning of a deep grey image's samples."""

    bits: int = 16
    white_is_zero: bool = False

    @classmethod
    def of(cls, image: Image.Image) -> "_Samples":
        if image.mode not in _DEEP_GREY or not isinstance(image, TiffImagePlugin.TiffImageFile):
            return cls()
        photometric = image.tag_v2.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION)
        return cls(image.tag_v2[TiffImagePlugin.BITSPERSAMPLE][0], photometric == _WHITE_IS_ZERO)


@dataclass(frozen=True, slots=True)
class _Stored:
    """A decoded picture as it was stored, read in strips as it is displayed."""

    image: Image.Image
    # (H, W, 3) uint8 BGR, which stands for `image` where it is given.
    pixels: NDArray[np.uint8] | None
    # The rotation from stored to displayed.
    turn: Image.Transpose | None = None
    samples: _Samples = _Samples()

    @property
    def size(self) -> tuple[int, int]:
        """Width and height as displayed."""
        size = self.image.size if self.pixels is None else (self.pixels.shape[1], self.pixels.shape[0])
        return size[::-1] if self.turn in _ON_SIDE else size

    def strip(self, first: int, end: int) -> NDArray[np.uint8]:
        """Return the displayed rows from `first` to before `end`: (rows, W, 3) uint8 RGB."""
        width, height = self.size
        if self.turn in _REVERSED:
            first, end = height - end, height - first
        box = (first, 0, end, width) if self.turn in _ON_SIDE else (0, first, width, end)
        if self.pixels is None:
            strip = _to_rgb(self.image.crop(box), self.samples)
        else:
            left, top, right, bottom = box
            strip = Image.fromarray(np.ascontiguousarray(self.pixels[top:bottom, left:right, ::-1]))
        return np.asarray(strip if self.turn is None else strip.transpose(self.turn))


def _stretched(stored: _Stored, side: int, go_on: CheckCanceled) -> Picture:
    return Picture(*stored.size, stretch_strips(_strips(stored, go_on), stored.size, side))


def _reduced(
    header: Header,
    stored: _Stored,
    scale: int,
    turn: Image.Transpose | None,
    side: int,
    go_on: CheckCanceled,
) -> Picture:
    """Return a picture that was decoded at a reduced scale."""
    whole = (header.width, header.height)
    # The averages are counted from the stored picture's corner, so that the resize comes first.
    pixels = stretch_strips(_strips(stored, go_on), stored.size, side, scale, whole)
    if turn is None:
        return Picture(*whole, pixels)
    width, height = whole[::-1] if turn in _ON_SIDE else whole
    return Picture(width, height, np.asarray(Image.fromarray(pixels).transpose(turn)))


def _strips(stored: _Stored, go_on: CheckCanceled) -> Callable[[int, int], NDArray[np.uint8]]:
    def strip(first: int, end: int) -> NDArray[np.uint8]:
        go_on()
        return stored.strip(first, end)

    return strip


@contextmanager
def _decoding() -> Iterator[None]:
    """Raise a ServiceError, and nothing else, for what decoders make of bytes from outside."""
    try:
        with warnings.catch_warnings():
            # Pillow warns about odd files and about sizes; the first are decoded or refused, and the limits
            # are ours.
            warnings.simplefilter("ignore")
            yield
    except ServiceError:
        raise
    except MemoryError as error:
        # The header's bounds passed, so that the file is not to blame: other work has the memory.
        raise ServiceError(
            Kind.OVERLOADED,
            "The worker is short of memory to decode this image.",
            retry_after_s=_MEMORY_RETRY_S,
        ) from error
    except Exception as error:  # whatever a decoder makes of them
        raise _unsupported("image is damaged, or of a kind that is not supported.") from error


class _Source(io.BytesIO):
    """A file in memory whose reads fail once nobody waits for the picture."""

    def __init__(self, data: bytes, go_on: CheckCanceled) -> None:
        super().__init__(data)
        self._go_on = go_on

    def read(self, size: int | None = -1) -> bytes:
        self._go_on()
        return super().read(size)


def _open(header: Header, go_on: CheckCanceled = lambda: None) -> Image.Image:
    # Pillow's own bound is a fixed number of pixels; ours was applied to the header.
    Image.MAX_IMAGE_PIXELS = None
    try:
        image = Image.open(_Source(header.data, go_on), formats=(header.format,))
    except (MemoryError, ServiceError):
        raise
    except Exception as error:  # whatever a decoder makes of bytes from outside
        raise image_headers.damaged(NAMES[header.format]) from error
    if image.size != (header.width, header.height):
        raise image_headers.damaged(NAMES[header.format])
    image.decodermaxblock = _BLOCK_BYTES
    return image


def _decode_webp(header: Header) -> NDArray[np.uint8]:
    """Return (H, W, 3) uint8 BGR. Pillow would hold the picture four times, with four channels."""
    pixels = cv2.imdecode(
        np.frombuffer(header.data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    )
    if pixels is None or pixels.shape != (header.height, header.width, 3):
        raise _unsupported("image is a damaged or truncated WEBP file.")
    return np.asarray(pixels, np.uint8)


def _check_size(header: Header, limits: Limits) -> None:
    width, height = header.width, header.height
    shown = f"image is {width:,} x {height:,} pixels"
    if header.pixels > limits.max_image_pixels:
        total = f"{header.pixels:,} in all; the limit is {limits.max_image_pixels:,} pixels"
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
    except (MemoryError, ServiceError):
        raise
    except Exception as error:  # see _open
        raise _unsupported(f"image is a damaged or truncated {image.format} file.") from error


def _orientation(image: Image.Image) -> int:
    """Return what a loaded PNG says, which has its blocks before or behind the pixels."""
    info = image.info
    block, text = info.get("exif", b""), info.get("Raw profile type exif")
    if not block and isinstance(text, str) and len(text) <= _MAX_HEX_CHARS:
        try:
            block = bytes.fromhex("".join(text.split("\n")[3:]))
        except ValueError:
            block = b""
    xmp = info.get("XML:com.adobe.xmp", info.get("xmp", b""))
    if isinstance(xmp, str):
        xmp = xmp.encode()
    return exif.orientation(
        block if isinstance(block, bytes) else b"", xmp if isinstance(xmp, bytes) else b""
    )


def _turn(orientation: int | None) -> Image.Transpose | None:
    return None if orientation is None else _TURNS.get(orientation)


def _to_rgb(strip: Image.Image, samples: _Samples) -> Image.Image:
    if strip.mode in _DEEP_GREY:
        strip = Image.fromarray(_deep_grey(strip, samples))
    try:
        return strip.convert("RGB")
    except ValueError as error:
        raise _unsupported(f"image has the colour mode {strip.mode}, which has no way to RGB.") from error


def _deep_grey(strip: Image.Image, samples: _Samples) -> NDArray[np.uint8]:
    """(H, W) uint8: the levels of an image in one of the deep modes, scaled to 8 bits and rounded."""
    levels = np.asarray(strip).astype(np.uint32)
    top = (1 << samples.bits) - 1
    if samples.white_is_zero:
        levels = top - levels
    levels *= 255
    levels += top // 2
    levels //= top
    return levels.astype(np.uint8)


def _grey_levels(strip: Image.Image, samples: _Samples) -> NDArray[np.uint8]:
    """(H, W) uint8: the levels of a strip of a mask. Raises `unsupported_image` for colours and alpha."""
    if strip.mode in _DEEP_GREY:
        return _deep_grey(strip, samples)
    if strip.mode in ("1", "L") and "transparency" not in strip.info:
        return np.asarray(strip.convert("L"))
    red, green, blue, alpha = (np.asarray(band) for band in strip.convert("RGBA").split())
    if not (np.array_equal(red, green) and np.array_equal(red, blue)):
        raise _unsupported("image has colours: send grey levels.")
    if alpha.min() < 255:
        raise _unsupported("image has transparent pixels: send grey levels without alpha.")
    return red


def _unsupported(detail: str) -> ServiceError:
    return ServiceError(Kind.UNSUPPORTED_IMAGE, detail)
