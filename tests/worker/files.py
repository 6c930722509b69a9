"""Image files that Pillow cannot write, made by hand."""

import io
import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[Any]

# Tags of a TIFF file.
WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC = 256, 257, 258, 259, 262
STRIPS, SAMPLES, ROWS_PER_STRIP, STRIP_BYTES, PLANAR = 273, 277, 278, 279, 284
TILE_WIDTH, TILE_HEIGHT, TILES, TILE_BYTES = 322, 323, 324, 325
EXTRA_SAMPLES, SAMPLE_FORMAT = 338, 339


def saved(image: Image.Image, file_format: str = "PNG", **options: Any) -> bytes:
    """The image as a file's bytes, written by Pillow."""
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def chunk(name: bytes, content: bytes) -> bytes:
    """One chunk of a PNG file."""
    checksum = struct.pack(">I", zlib.crc32(name + content))
    return struct.pack(">I", len(content)) + name + content + checksum


def png_file(width: int, height: int, bits: int, colour: int, rows: bytes, *before: bytes) -> bytes:
    """A PNG file: `rows` as PNG stores them, each with its filter byte; `before` are chunks of any kind."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(before) + body


def deep_png(levels: Array) -> bytes:
    """(H, W, channels) of 0..65535 -> a 16-bit PNG file: grey, grey and alpha, RGB, or RGB and alpha."""
    height, width, channels = levels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in levels)
    return png_file(width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], rows)


def tiff_file(tags: Mapping[int, Sequence[int]], parts: Sequence[bytes], order: str = "<") -> bytes:
    """A TIFF file of one directory. Tags' values are written as 32 bits; `parts` are its strips or tiles."""
    offsets, lengths = (TILES, TILE_BYTES) if TILE_WIDTH in tags else (STRIPS, STRIP_BYTES)
    sizes = [len(part) for part in parts]
    entries: dict[int, Sequence[int]] = {**tags, lengths: sizes, offsets: sizes}
    values_at = 8 + 2 + 12 * len(entries) + 4
    data_at = values_at + sum(4 * len(values) for values in entries.values() if len(values) > 1)
    entries[offsets] = [data_at + sum(sizes[:index]) for index in range(len(parts))]
    directory, beyond = struct.pack(order + "H", len(entries)), b""
    for tag in sorted(entries):
        packed = struct.pack(f"{order}{len(entries[tag])}I", *entries[tag])
        directory += struct.pack(order + "HHI", tag, 4, len(entries[tag]))
        directory += packed if len(packed) == 4 else struct.pack(order + "I", values_at + len(beyond))
        beyond += packed if len(packed) > 4 else b""
    start = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(order + "I", 8)
    return start + directory + bytes(4) + beyond + b"".join(parts)


def tiff_of(samples: Array, photometric: int, order: str = "<", **tags: int) -> bytes:
    """(H, W, channels) of any type -> an uncompressed TIFF file of one strip."""
    height, width, channels = samples.shape
    bits = samples.dtype.itemsize * 8
    described = {
        WIDTH: [width],
        HEIGHT: [height],
        BITS: [bits] * channels,
        COMPRESSION: [1],
        PHOTOMETRIC: [photometric],
        SAMPLES: [channels],
        ROWS_PER_STRIP: [height],
    }
    named = {"extra": EXTRA_SAMPLES, "sample_format": SAMPLE_FORMAT}
    repeated = {"extra": 1, "sample_format": channels}
    described |= {named[name]: [value] * repeated[name] for name, value in tags.items()}
    return tiff_file(described, [samples.astype(samples.dtype.newbyteorder(order)).tobytes()], order)


def lossless_jpeg(levels: Array) -> bytes:
    """(H, W) uint8 -> a JPEG file without a cosine transform: each pixel predicted by the one to its left."""
    first = np.concatenate(([128], levels[:-1, 0])).astype(int)
    steps = np.diff(levels.astype(int), axis=1, prepend=first[:, np.newaxis])
    bits = []
    for step in steps.ravel().tolist():
        # The size of the step in four bits, then the step; a negative one is stored less one.
        size = abs(step).bit_length()
        bits.append(f"{size:04b}")
        bits.append(format(step if step > 0 else step + (1 << size) - 1, f"0{size}b") if size else "")
    joined = "".join(bits)
    joined += "1" * (-len(joined) % 8)
    scan = int(joined, 2).to_bytes(len(joined) // 8, "big").replace(b"\xff", b"\xff\0")
    height, width = levels.shape
    sizes = bytes([0, 0, 0, 0, 9]) + bytes(12) + bytes(range(9))
    segments = (
        (0xC3, struct.pack(">BHHB", 8, height, width, 1) + bytes([1, 0x11, 0])),
        (0xC4, sizes),
        (0xDA, bytes([1, 1, 0, 1, 0, 0])),
    )
    head = b"".join(bytes([0xFF, code]) + struct.pack(">H", len(body) + 2) + body for code, body in segments)
    return b"\xff\xd8" + head + scan + b"\xff\xd9"
