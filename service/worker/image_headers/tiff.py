"""Rebuilds a TIFF file's first directory from the few tags that describe its pixels.

Pillow and libtiff read every tag of a file, whatever its type and length: 16 MB of strip offsets take seconds
and 1 GB. The rebuilt file has one directory, at the end of the unchanged bytes, with checked tags only.
"""

import struct
from dataclasses import dataclass

from service.worker.image_headers import exif
from service.worker.image_headers.header import Header, damaged, over_limit

Values = tuple[int, ...]

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _COLOR_MAP = 256, 257, 258, 259, 320
_STRIP_OFFSETS, _SAMPLES, _STRIP_ROWS, _STRIP_SIZES, _PLANES = 273, 277, 278, 279, 284
_TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_SIZES = 322, 323, 324, 325
_ORIENTATION, _JPEG_TABLES, _XMP = 274, 347, 700
# Tags of whole numbers and the most values that each may have: photometric interpretation, fill order, fax
# options, predictor, ink set, extra samples, sample format and the sampling of YCbCr.
_NUMBERS = {
    **dict.fromkeys((_WIDTH, _HEIGHT, _COMPRESSION, _SAMPLES, _STRIP_ROWS, _PLANES), 1),
    **dict.fromkeys((_TILE_WIDTH, _TILE_HEIGHT, 262, 266, 292, 293, 317, 332, 531), 1),
    **dict.fromkeys((_BITS, 338, 339), 8),
    530: 2,
    _COLOR_MAP: 768,
}
# YCbCr's coefficients, and the levels of black and white.
_RATIONALS = {529: 3, 532: 6}
# None, fax, LZW, JPEG, deflate, PackBits, LZMA, Zstandard and WebP.
_COMPRESSIONS = {1, 2, 3, 4, 5, 7, 8, 32773, 32946, 34925, 50000, 50001}
# Types of whole numbers and struct's letter: BYTE, SHORT, LONG, IFD, and BigTIFF's LONG8 and IFD8.
_WHOLE = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
# Type -> bytes of a value.
_SIZES = {
    1: 1,
    2: 1,
    3: 2,
    4: 4,
    5: 8,
    6: 1,
    7: 1,
    8: 2,
    9: 4,
    10: 8,
    11: 4,
    12: 8,
    13: 4,
    16: 8,
    17: 8,
    18: 8,
}
_BYTE, _UNDEFINED, _LONG, _RATIONAL = 1, 7, 4, 5
_MAX_TAGS = 4_096
# A picture of 32,768 rows with a strip each, in three planes.
_MAX_PARTS = 98_304
_MAX_TABLE_BYTES = 65_536
_MAX_XMP_BYTES = 1 << 20
# A tile reaches over the picture's edge, but is not meant to be many times the picture.
_MIN_TILE_SIDE = 1_024


@dataclass(frozen=True, slots=True)
class _Entry:
    """A tag's type, number of values, and where they begin."""

    kind: int
    count: int
    place: int


def size(data: bytes) -> tuple[int, int]:
    """Return width and height in pixels as stored. Raises `unsupported_image`."""
    order, entries = _directory(data)
    try:
        (width,), (height,) = (_read(data, order, entries[tag], 1) for tag in (_WIDTH, _HEIGHT))
    except (struct.error, KeyError, ValueError, OverflowError) as error:
        raise damaged("TIFF") from error
    return width, height


def scan(data: bytes) -> Header:
    """Return the header of a TIFF file; its `data` has one directory of checked tags.

    Raises `unsupported_image`.
    """
    order, entries = _directory(data)
    try:
        numbers = {
            tag: _read(data, order, entries[tag], most) for tag, most in _NUMBERS.items() if tag in entries
        }
        if numbers.get(_COMPRESSION, (1,))[0] not in _COMPRESSIONS:
            raise damaged("TIFF")
        parts = _parts(data, order, entries, numbers)
        rationals = {
            tag: _read_rationals(data, order, entries[tag], most)
            for tag, most in _RATIONALS.items()
            if tag in entries
        }
        tables = _bytes(data, entries.get(_JPEG_TABLES), _MAX_TABLE_BYTES)
        clean = _rebuilt(data, order, numbers | parts, rationals, tables)
    except (struct.error, KeyError, IndexError, OverflowError) as error:
        raise damaged("TIFF") from error
    width, height = numbers[_WIDTH][0], numbers[_HEIGHT][0]
    return Header("TIFF", width, height, clean, _orientation(data, order, entries))


def _orientation(data: bytes, order: str, entries: dict[int, _Entry]) -> int:
    try:
        (stated,) = _read(data, order, entries[_ORIENTATION], 1)
        return stated if 1 <= stated <= 8 else 1
    except (struct.error, KeyError, ValueError, OverflowError):
        return exif.orientation(b"", _bytes(data, entries.get(_XMP), _MAX_XMP_BYTES))


def _directory(data: bytes) -> tuple[str, dict[int, _Entry]]:
    """Return the byte order, and the entries of the first directory by their tags."""
    order = "<" if data.startswith(b"II") else ">"
    try:
        (version,) = struct.unpack_from(order + "H", data, 2)
        head, entry, inline = ("Q", "HHQ", 8) if version == 43 else ("H", "HHI", 4)
        (start,) = struct.unpack_from(
            order + ("Q" if version == 43 else "I"), data, 8 if version == 43 else 4
        )
        (count,) = struct.unpack_from(order + head, data, start)
        if count > _MAX_TAGS:
            raise over_limit("TIFF", f"{_MAX_TAGS:,} tags")
        entries: dict[int, _Entry] = {}
        place = start + struct.calcsize(order + head)
        for _ in range(count):
            tag, kind, values = struct.unpack_from(order + entry, data, place)
            at = place + struct.calcsize(order + entry)
            if values * _SIZES.get(kind, 1) > inline:
                (at_value,) = struct.unpack_from(order + ("Q" if inline == 8 else "I"), data, at)
            else:
                at_value = at
            entries[tag] = _Entry(kind, values, at_value)
            place = at + inline
    except (struct.error, OverflowError) as error:
        raise damaged("TIFF") from error
    return order, entries


def _read(data: bytes, order: str, entry: _Entry, most: int) -> Values:
    """Return the first `most` values of whole numbers. Raises KeyError for those of another type."""
    return struct.unpack_from(f"{order}{min(entry.count, most)}{_WHOLE[entry.kind]}", data, entry.place)


def _read_rationals(data: bytes, order: str, entry: _Entry, most: int) -> Values:
    """Return the first `most` numerators and denominators by turns, nothing for values of another type."""
    if entry.kind != _RATIONAL:
        return ()
    return struct.unpack_from(f"{order}{2 * min(entry.count, most)}I", data, entry.place)


def _bytes(data: bytes, entry: _Entry | None, most: int) -> bytes:
    if entry is None or entry.kind not in (_BYTE, _UNDEFINED) or entry.count > most:
        return b""
    return data[entry.place : entry.place + entry.count]


def _parts(
    data: bytes, order: str, entries: dict[int, _Entry], numbers: dict[int, Values]
) -> dict[int, Values]:
    """Return the offsets and sizes of as many strips or tiles as the picture has, and not one more."""
    width, height = numbers[_WIDTH][0], numbers[_HEIGHT][0]
    if _TILE_OFFSETS in entries:
        offsets, sizes = _TILE_OFFSETS, _TILE_SIZES
        tile_width, tile_height = numbers[_TILE_WIDTH][0], numbers[_TILE_HEIGHT][0]
        for tile, side in ((tile_width, width), (tile_height, height)):
            if not 1 <= tile <= max(_MIN_TILE_SIDE, side + 15):
                raise damaged("TIFF")
        count = -(-width // tile_width) * -(-height // tile_height)
    else:
        offsets, sizes = _STRIP_OFFSETS, _STRIP_SIZES
        rows = numbers.get(_STRIP_ROWS, (height,))[0]
        if not rows:
            raise damaged("TIFF")
        count = -(-height // rows)
    if numbers.get(_PLANES, (1,))[0] == 2:
        count *= numbers.get(_SAMPLES, (1,))[0]
    if count > _MAX_PARTS:
        raise over_limit("TIFF", f"{_MAX_PARTS:,} strips or tiles")
    found = {tag: _read(data, order, entries[tag], count) for tag in (offsets, sizes) if tag in entries}
    if len(found[offsets]) < count or max(found[offsets], default=0) > len(data):
        raise damaged("TIFF")
    # Decoders stop at the file's end whatever a size says.
    return {tag: tuple(min(value, len(data)) for value in values) for tag, values in found.items()}


def _rebuilt(
    data: bytes, order: str, numbers: dict[int, Values], rationals: dict[int, Values], tables: bytes
) -> bytes:
    """Return a classic TIFF file: the bytes of `data` in their places, and one directory behind them."""
    packed = {
        tag: (_LONG, len(values), struct.pack(f"{order}{len(values)}I", *values))
        for tag, values in numbers.items()
        if tag != _COLOR_MAP
    }
    if _COLOR_MAP in numbers:
        colors = numbers[_COLOR_MAP]
        packed[_COLOR_MAP] = (3, len(colors), struct.pack(f"{order}{len(colors)}H", *colors))
    for tag, values in rationals.items():
        if not values:
            continue
        packed[tag] = (_RATIONAL, len(values) // 2, struct.pack(f"{order}{len(values)}I", *values))
    if tables:
        packed[_JPEG_TABLES] = (_UNDEFINED, len(tables), tables)
    start = len(data) + (len(data) & 1)
    values_at = start + 2 + 12 * len(packed) + 4
    directory, beyond = struct.pack(order + "H", len(packed)), b""
    for tag, (kind, count, content) in sorted(packed.items()):
        directory += struct.pack(order + "HHI", tag, kind, count)
        if len(content) > 4:
            directory += struct.pack(order + "I", values_at + len(beyond))
            beyond += content + bytes(len(content) & 1)
        else:
            directory += content.ljust(4, b"\0")
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", start)
    return b"".join((head, data[8:], bytes(start - len(data)), directory, bytes(4), beyond))
