"""Removes metadata from a JPEG file's header, which Pillow joins and parses at great cost."""

import re
from collections.abc import Iterator

from service.worker.image_headers import exif
from service.worker.image_headers.header import Header, damaged, over_limit

# Markers but the start and the restarts.
_MARKER = re.compile(rb"\xff([\xc0-\xcf\xd9-\xfe])")
_END, _SCAN, _APP1, _APP14, _COMMENT = 0xD9, 0xDA, 0xE1, 0xEE, 0xFE
# Frames: all of C0 to CF but Huffman tables, an extension and arithmetic conditioning.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
# What a decoder needs is kept: JFIF (APP0), Adobe's color transform (APP14), tables and the frame.
_METADATA = frozenset(range(_APP1, 0xF0)) - {_APP14} | {_COMMENT}
# Pillow unpacks tables in Python. Four of each kind take 2 KiB.
_MAX_HEADER_BYTES = 65_536
# Large EXIF blocks are split at 64 KiB.
_MAX_EXIF_SEGMENTS = 16
_EXIF, _XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"


def size(data: bytes) -> tuple[int, int]:
    """Return width and height in pixels as stored."""
    for marker, start, _ in _segments(data):
        if marker in _FRAMES:
            return _frame_size(data, start)
    raise damaged("JPEG")


def scan(data: bytes) -> Header:
    """Return the header of a JPEG file; its `data` has no metadata. Raises `unsupported_image`."""
    kept, kept_bytes = [data[:2]], 0
    sizes: list[tuple[int, int]] = []
    exif_parts: list[bytes] = []
    xmp, rest = b"", len(data)
    for marker, start, end in _segments(data):
        if marker == _SCAN:
            rest = start
            break
        if marker not in _METADATA:
            kept.append(data[start:end])
            kept_bytes += end - start
            if marker in _FRAMES:
                sizes.append(_frame_size(data, start))
        elif marker == _APP1:
            content = data[start + 4 : end]
            if content.startswith(_EXIF) and len(exif_parts) < _MAX_EXIF_SEGMENTS:
                exif_parts.append(content[len(_EXIF) :])
            elif content.startswith(_XMP):
                xmp = content
        if kept_bytes > _MAX_HEADER_BYTES:
            raise over_limit("JPEG", f"{_MAX_HEADER_BYTES:,} bytes of tables")
    if len(sizes) != 1 or rest == len(data):
        raise damaged("JPEG")
    orientation = exif.orientation(b"".join(exif_parts), xmp)
    return Header("JPEG", *sizes[0], b"".join((*kept, data[rest:])), orientation)


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield marker, begin and end of each segment up to the first scan."""
    place = 2
    while (found := _MARKER.search(data, place)) and (marker := found[1][0]) != _END:
        place = found.end() + int.from_bytes(data[found.end() : found.end() + 2])
        if place < found.end() + 2 or place > len(data):
            raise damaged("JPEG")
        yield marker, found.start(), place
        if marker == _SCAN:
            return


def _frame_size(data: bytes, start: int) -> tuple[int, int]:
    height, width = (int.from_bytes(data[start + place : start + place + 2]) for place in (5, 7))
    return width, height
