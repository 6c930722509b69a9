"""What is special about JPEG files: scans without end, and decoding at a reduced scale."""

import math
import re
from collections import Counter
from collections.abc import Iterator

from PIL import Image

from service.errors import Kind, ServiceError

# A picture is reduced if both its sides stay this many times the student's input: docs/parity.md has the
# measurement. An eighth would need more.
_SPARE = 2.5
_SCALES = (4, 2)
# A file's markers but its start and the restarts (D0..D7). The bytes of a scan hold no such pair.
_MARKER = re.compile(rb"\xff([\xc0-\xcf\xd9-\xfe])")
_END, _SCAN = 0xD9, 0xDA
# Frames made of cosine transforms, sequential and progressive. A lossless one has no reduced scale.
_COSINE = (0xC0, 0xC1, 0xC2)
# Every scan of a progressive file takes time for all the pixels, however few bytes it has. Encoders write
# about ten; libtiff draws the line at the same number.
_MAX_SCANS = 100
# And so many for pixels all together: a picture of 100 megapixels may have 20.
_MAX_SCANNED_PIXELS = 2_000_000_000
# Every segment takes Pillow a microsecond or two, however few bytes it has. Cameras write some thirty, a
# large colour profile 255.
_MAX_SEGMENTS = 10_000
# How a JPEG file begins.
_START = b"\xff\xd8"


def markers(data: bytes) -> Counter[int]:
    """How often each marker stands in the first picture of a JPEG file; nothing for other files.

    Raises `unsupported_image` for a file of so many scans or segments that it was made to take time, before
    anyone reads it.
    """
    found: Counter[int] = Counter()
    if not data.startswith(_START):
        return found
    for marker in _markers(data):
        found[marker] += 1
        if found[_SCAN] > _MAX_SCANS:
            raise _refused(f"over {_MAX_SCANS} scans")
        if found.total() > _MAX_SEGMENTS:
            raise _refused(f"over {_MAX_SEGMENTS:,} segments")
    return found


def check_scans(found: Counter[int], pixels: int) -> None:
    """Raise `unsupported_image` for a file of so many scans of so many pixels that it would take too long."""
    if (scans := found[_SCAN]) > 1 and scans * pixels > _MAX_SCANNED_PIXELS:
        most = _MAX_SCANNED_PIXELS // pixels
        raise _refused(f"over {most} scans of {pixels:,} pixels")


def reduce(image: Image.Image, found: Counter[int], image_size: int) -> int:
    """Have a large JPEG decoded at a reduced scale. `image` is not yet loaded; `found` are its `markers`.

    Returns the scale s, 1, 2 or 4: a pixel to come is the average of s x s, counted from the stored
    picture's top left corner. 1 for every other format.
    """
    side = math.ceil(_SPARE * image_size)
    if image.format not in ("JPEG", "MPO") or min(image.size) < min(_SCALES) * side:
        return 1
    # An average of CMYK is no average of RGB.
    if image.mode not in ("L", "RGB") or not any(found[frame] for frame in _COSINE):
        return 1
    scale = next((scale for scale in _SCALES if min(image.size) >= scale * side), 1)
    if scale > 1:
        image.draft(None, (image.width // scale, image.height // scale))
    return scale


def _refused(what: str) -> ServiceError:
    return ServiceError(Kind.UNSUPPORTED_IMAGE, f"image is a JPEG file of {what}, which is the limit.")


def _markers(data: bytes) -> Iterator[int]:
    """The markers of the file's first picture, in order, without its end."""
    place = 2
    while (found := _MARKER.search(data, place)) and (marker := found[1][0]) != _END:
        yield marker
        place = found.end() + int.from_bytes(data[found.end() : found.end() + 2])
