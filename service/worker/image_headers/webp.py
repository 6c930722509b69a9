"""Reduces a WebP file to its first picture, and reads its orientation."""

import struct
from collections.abc import Iterator

from service.worker.image_headers import exif
from service.worker.image_headers.header import Header, damaged, over_limit

_MAX_CHUNKS = 1_000
# An animation's pictures are chunks too, and its metadata follows them.
_MAX_PICTURES = 10_000
_ANIMATION, _ALPHA = 0x02, 0x10


def scan(data: bytes) -> Header:
    """Return the header of a WebP file; its `data` has the first picture only. Raises `unsupported_image`."""
    chunks: dict[bytes, bytes] = {}
    for name, content in _chunks(data):
        chunks.setdefault(name, content)
    extended = chunks.get(b"VP8X", b"")
    if extended and len(extended) < 10:
        raise damaged("WebP")
    orientation = exif.orientation(chunks.get(b"EXIF", b""), chunks.get(b"XMP ", b""))
    if extended and extended[0] & _ANIMATION:
        return _animated(extended, chunks, orientation)
    pixels = b"VP8 " if b"VP8 " in chunks else b"VP8L"
    if pixels not in chunks:
        raise damaged("WebP")
    width, height = _size(pixels, chunks[pixels])
    parts = [(pixels, chunks[pixels])]
    if pixels == b"VP8 " and b"ALPH" in chunks and extended:
        shown = bytes([_ALPHA, 0, 0, 0]) + _dimension(width) + _dimension(height)
        parts = [(b"VP8X", shown), (b"ALPH", chunks[b"ALPH"]), *parts]
    if extended and (extended[4:7], extended[7:10]) != (_dimension(width), _dimension(height)):
        raise damaged("WebP")
    return Header("WEBP", width, height, _file(parts), orientation)


def size(data: bytes) -> tuple[int, int]:
    """Return width and height in pixels from a file's first chunk."""
    name, content = data[12:16], data[20:30]
    if name == b"VP8X" and len(content) == 10:
        return _canvas(content)
    return _size(name, content)


def _animated(extended: bytes, chunks: dict[bytes, bytes], orientation: int) -> Header:
    if b"ANIM" not in chunks or b"ANMF" not in chunks:
        raise damaged("WebP")
    width, height = _canvas(extended)
    flags = bytes([extended[0] & (_ANIMATION | _ALPHA), 0, 0, 0])
    parts = [(b"VP8X", flags + extended[4:10]), (b"ANIM", chunks[b"ANIM"]), (b"ANMF", chunks[b"ANMF"])]
    return Header("WEBP", width, height, _file(parts), orientation, animated=True)


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield name and content of each chunk, animations' later pictures left out."""
    end = min(len(data), 8 + int.from_bytes(data[4:8], "little"))
    place, count, has_picture = 12, 0, False
    while place + 8 <= end:
        name, length = data[place : place + 4], int.from_bytes(data[place + 4 : place + 8], "little")
        if place + 8 + length > end:
            raise damaged("WebP")
        count += 1
        if count > _MAX_CHUNKS and not has_picture:
            raise over_limit("WebP", f"{_MAX_CHUNKS:,} chunks")
        if count > _MAX_PICTURES:
            return
        if name != b"ANMF" or not has_picture:
            yield name, data[place + 8 : place + 8 + length]
        has_picture = has_picture or name == b"ANMF"
        place += 8 + length + (length & 1)


def _size(name: bytes, content: bytes) -> tuple[int, int]:
    if name == b"VP8 " and len(content) >= 10 and content[3:6] == b"\x9d\x01\x2a":
        width, height = struct.unpack_from("<HH", content, 6)
        return width & 0x3FFF, height & 0x3FFF
    if name == b"VP8L" and len(content) >= 5 and content[0] == 0x2F:
        bits = int.from_bytes(content[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    raise damaged("WebP")


def _canvas(extended: bytes) -> tuple[int, int]:
    return int.from_bytes(extended[4:7], "little") + 1, int.from_bytes(extended[7:10], "little") + 1


def _dimension(pixels: int) -> bytes:
    return (pixels - 1).to_bytes(3, "little") if pixels else b"\0\0\0"


def _file(parts: list[tuple[bytes, bytes]]) -> bytes:
    body = b"".join(
        name + struct.pack("<I", len(content)) + content + bytes(len(content) & 1) for name, content in parts
    )
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body
