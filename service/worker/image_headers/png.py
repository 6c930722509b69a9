"""Bounds the chunks of a PNG file before Pillow walks them in Python."""

import struct

from service.worker.image_headers.header import Header, damaged, over_limit

SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Pillow takes some 8 us for each. libpng writes 8 KiB of pixels per chunk, so that 32 MiB have 4,096.
_MAX_PIXEL_CHUNKS = 32_768
_MAX_OTHER_CHUNKS = 1_000


def size(data: bytes) -> tuple[int, int]:
    """Return width and height in pixels."""
    if data[12:16] != b"IHDR" or len(data) < 33:
        raise damaged("PNG")
    width, height = struct.unpack_from(">II", data, 16)
    return width, height


def scan(data: bytes) -> Header:
    """Return the header of a PNG file. Raises `unsupported_image`."""
    width, height = size(data)
    place, pixel_chunks, other_chunks, animated = len(SIGNATURE), 0, 0, False
    while place + 8 <= len(data):
        (length,) = struct.unpack_from(">I", data, place)
        name = data[place + 4 : place + 8]
        if name == b"IEND" or (name == b"fcTL" and animated and pixel_chunks):
            # Pillow reads an animation's later pictures on request only.
            break
        animated = animated or name == b"acTL"
        if name == b"IDAT":
            pixel_chunks += 1
        else:
            other_chunks += 1
        if pixel_chunks > _MAX_PIXEL_CHUNKS:
            raise over_limit("PNG", f"{_MAX_PIXEL_CHUNKS:,} chunks of pixels")
        if other_chunks > _MAX_OTHER_CHUNKS:
            raise over_limit("PNG", f"{_MAX_OTHER_CHUNKS:,} chunks of metadata")
        place += 12 + length
    return Header("PNG", width, height, data, animated=animated)
