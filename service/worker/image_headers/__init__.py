"""Scans image files' structure in bounded time, before a decoder reads them.

Every decoder walks headers in its own way, and several do it in Python with the interpreter lock held. A scan
bounds what they will find, and hands them a file without the metadata that nothing here uses.
"""

from collections.abc import Sequence

from service.errors import Kind, ServiceError
from service.worker.image_headers import gif, jpeg, png, tiff, webp
from service.worker.image_headers.header import Header, damaged

__all__ = ["NAMES", "Header", "check_format", "damaged", "pixels_of", "scan"]

NAMES = {"JPEG": "JPEG", "PNG": "PNG", "WEBP": "WebP", "TIFF": "TIFF", "GIF": "GIF"}
"""Pillow's names of the formats -> those that people read."""

_SCANS = {"JPEG": jpeg.scan, "PNG": png.scan, "WEBP": webp.scan, "TIFF": tiff.scan, "GIF": gif.scan}
_SIZES = {"JPEG": jpeg.size, "PNG": png.size, "WEBP": webp.size, "TIFF": tiff.size, "GIF": gif.size}
_MAGIC = {
    b"\xff\xd8\xff": "JPEG",
    png.SIGNATURE: "PNG",
    b"RIFF": "WEBP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
    b"GIF8": "GIF",
}


def check_format(data: bytes, formats: Sequence[str]) -> str:
    """Return the format of an image file. Raises `unsupported_image` unless it is one of `formats`."""
    format = _format_of(data)
    if format is not None and format in formats:
        return format
    expected = " or ".join(", ".join(NAMES[name] for name in formats).rsplit(", ", 1))
    detail = f"image cannot be read: {expected} is expected."
    if format is not None:
        detail += f" It is a {NAMES[format]} file."
    raise ServiceError(Kind.UNSUPPORTED_IMAGE, detail)


def scan(data: bytes, formats: Sequence[str] = tuple(NAMES)) -> Header:
    """Return the header of an image file of one of the formats. Raises `unsupported_image`."""
    format = check_format(data, formats)
    header = _SCANS[format](data)
    # A budget was reserved for what `pixels_of` said.
    if (header.width, header.height) != _SIZES[format](data) or not header.pixels:
        raise damaged(NAMES[format])
    return header


def pixels_of(data: bytes) -> int:
    """Return the pixels of an image file's first picture; 0 for a file that `scan` refuses."""
    format = _format_of(data)
    try:
        width, height = _SIZES[format](data) if format else (0, 0)
    except ServiceError:
        return 0
    return width * height


def _format_of(data: bytes) -> str | None:
    found = next((name for magic, name in _MAGIC.items() if data.startswith(magic)), None)
    return None if found == "WEBP" and data[8:12] != b"WEBP" else found
