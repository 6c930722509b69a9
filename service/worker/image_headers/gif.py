"""Bounds the blocks before a GIF file's first picture, and removes comments and application data."""

import struct

from service.worker.image_headers.header import Header, damaged, over_limit

_EXTENSION, _PICTURE, _END = 0x21, 0x2C, 0x3B
_GRAPHIC_CONTROL = 0xF9
# An XMP packet of 300 kB takes some 4,000 blocks.
_MAX_BLOCKS = 16_384
_MAX_GRAPHIC_CONTROLS = 100
# Stray bytes between blocks, which decoders skip one by one.
_MAX_STRAY = 1_024


def size(data: bytes) -> tuple[int, int]:
    """Return width and height in pixels of a canvas that holds the screen and the first picture.

    Raises `unsupported_image`.
    """
    place, _ = _before_picture(data, _after_header(data))
    return _canvas(data, place)


def scan(data: bytes) -> Header:
    """Return the header of a GIF file; its `data` has no metadata before the first picture.

    Raises `unsupported_image`.
    """
    first = _after_header(data)
    place, controls = _before_picture(data, first)
    clean = data if place == first else b"".join((data[:first], *controls, data[place:]))
    return Header("GIF", *_canvas(data, place), clean)


def _after_header(data: bytes) -> int:
    if len(data) < 13 or data[:6] not in (b"GIF87a", b"GIF89a"):
        raise damaged("GIF")
    flags = data[10]
    return 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)


def _canvas(data: bytes, place: int) -> tuple[int, int]:
    if place + 10 > len(data):
        raise damaged("GIF")
    width, height = struct.unpack_from("<HH", data, 6)
    left, top, frame_width, frame_height = struct.unpack_from("<HHHH", data, place + 1)
    return max(width, left + frame_width), max(height, top + frame_height)


def _before_picture(data: bytes, place: int) -> tuple[int, list[bytes]]:
    """Return where the first picture begins, and the graphic control extensions before it."""
    controls: list[bytes] = []
    blocks = stray = 0
    while place < len(data) and data[place] not in (_PICTURE, _END):
        if data[place] != _EXTENSION:
            place, stray = place + 1, stray + 1
            if stray > _MAX_STRAY:
                raise damaged("GIF")
            continue
        start, place = place, place + 2
        while place < len(data) and data[place]:
            place, blocks = place + 1 + data[place], blocks + 1
            if blocks > _MAX_BLOCKS:
                raise over_limit("GIF", f"{_MAX_BLOCKS:,} blocks of metadata")
        place += 1
        if data[start + 1 : start + 2] == bytes([_GRAPHIC_CONTROL]):
            controls.append(data[start:place])
            if len(controls) > _MAX_GRAPHIC_CONTROLS:
                raise over_limit("GIF", f"{_MAX_GRAPHIC_CONTROLS} graphic control extensions")
    if place >= len(data) or data[place] == _END:
        raise damaged("GIF")
    return place, controls
