"""Small image files that are made to cost much, and seeded damage to valid ones."""

import io
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image

from tests.worker.files import BITS, HEIGHT, STRIPS, WIDTH, chunk, png_file, saved, tiff_of

_GREY = np.zeros((8, 8, 1), np.uint8)
_PICTURE = Image.linear_gradient("L").resize((40, 30)).convert("RGB")


def segment(marker: int, content: bytes) -> bytes:
    """One segment of a JPEG file."""
    return bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content


def jpeg_with(*segments: bytes, picture: Image.Image = _PICTURE) -> bytes:
    """A JPEG file with these segments at its beginning."""
    data = saved(picture, "JPEG")
    return data[:2] + b"".join(segments) + data[2:]


def png_bomb(width: int, height: int, channels: int = 3) -> bytes:
    """A PNG file of many black pixels in few bytes."""
    pack = zlib.compressobj(9)
    row = bytes(1 + width * channels)
    rows = b"".join(pack.compress(row) for _ in range(height)) + pack.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, {1: 0, 3: 2}[channels], 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def shared_exif(entries: int, value_bytes: int, prefix: bytes = b"Exif\0\0") -> bytes:
    """An EXIF block whose tags all have one long value, which a reader may copy for each."""
    place = 8 + 2 + 12 * entries + 4
    tags = b"".join(struct.pack("<HHII", 0x9000 + i, 7, value_bytes, place) for i in range(entries))
    return prefix + b"II*\0\x08\0\0\0" + struct.pack("<H", entries) + tags + bytes(4 + value_bytes)


def tiff_with(tag: int, kind: int, count: int, value: int, tail: bytes = b"") -> bytes:
    """A grey TIFF file in which one tag has another type, count and value or place; `tail` follows it."""
    data = bytearray(tiff_of(_GREY, 1))
    (entries,) = struct.unpack_from("<H", data, 8)
    for place in range(10, 10 + 12 * entries, 12):
        if struct.unpack_from("<H", data, place)[0] == tag:
            struct.pack_into("<HII", data, place + 2, kind, count, value)
    return bytes(data) + tail


def tiff_size() -> int:
    """Where the tail of `tiff_with` begins."""
    return len(tiff_of(_GREY, 1))


def tiff_of_offsets(count: int) -> bytes:
    """A TIFF file of eight rows that lists so many strips."""
    return tiff_with(STRIPS, 4, count, tiff_size(), struct.pack("<I", 8) * count)


def gif_with(before: bytes) -> bytes:
    """A GIF file with these bytes between its color table and its first picture."""
    data = saved(_PICTURE.convert("P"), "GIF")
    place = 13 + (3 << (data[10] & 7) + 1)
    return data[:place] + before + data[place:]


def comment_blocks(count: int, label: int = 0xFE, size: int = 255) -> bytes:
    """A GIF extension of many blocks."""
    return bytes([0x21, label]) + (bytes([size]) + bytes(size)) * count + b"\0"


def webp_with(*chunks: tuple[bytes, bytes], canvas: tuple[int, int] = (40, 30)) -> bytes:
    """An extended WebP file with these chunks before its pixels."""
    pixels = saved(_PICTURE, "WEBP")[12:]
    sides = b"".join((side - 1).to_bytes(3, "little") for side in canvas)
    parts = [(b"VP8X", bytes(4) + sides), *chunks]
    body = b"".join(
        name + struct.pack("<I", len(content)) + content + bytes(len(content) & 1) for name, content in parts
    )
    return b"RIFF" + struct.pack("<I", len(body + pixels) + 4) + b"WEBP" + body + pixels


def progressive(width: int, height: int, scans: int) -> bytes:
    """A progressive JPEG file with its last scan repeated."""
    data = saved(Image.new("L", (width, height)), "JPEG", progressive=True)
    last, end = data.rindex(b"\xff\xda"), data.rindex(b"\xff\xd9")
    return data[:end] + data[last:end] * (scans - data.count(b"\xff\xda")) + data[end:]


# A text of this keyword stands where Pillow keeps what a PNG's transparency is.
TRANSPARENCY = png_file(30, 10, 8, 2, bytes(91 * 10), chunk(b"tEXt", b"transparency\0whatever"))

REFUSED = {
    "a TIFF with bits per sample as RATIONAL": tiff_with(BITS, 5, 1, tiff_size(), struct.pack("<II", 8, 1)),
    "a TIFF with bits per sample as FLOAT": tiff_with(BITS, 11, 1, 0x41000000),
    "a TIFF with a width as text": tiff_with(WIDTH, 2, 4, 0x38383838),
    "a TIFF with a height of 0": tiff_with(HEIGHT, 4, 1, 0),
    "a TIFF with a place beyond its end": tiff_with(BITS, 3, 4, 0xFFFFFFFF),
    "a TIFF of too many tags": b"II*\0\x08\0\0\0" + struct.pack("<H", 60_000) + bytes(12 * 60_000),
    "a TIFF of too many strips": tiff_with(HEIGHT, 4, 1, 2**31).replace(
        struct.pack("<HHII", 278, 4, 1, 8), struct.pack("<HHII", 278, 4, 1, 1)
    ),
    "a PNG of empty chunks": png_file(30, 10, 8, 0, bytes(310), chunk(b"teSt", b"") * 5_000),
    "a PNG of empty pixel chunks": png_file(30, 10, 8, 0, bytes(310), chunk(b"IDAT", b"") * 40_000),
    "a PNG of short texts behind its pixels": png_file(30, 10, 8, 0, bytes(310)).replace(
        chunk(b"IEND", b""), chunk(b"tEXt", b"a\0b") * 5_000
    ),
    "a GIF of endless comments": gif_with(comment_blocks(40_000)),
    "a GIF of short blocks": gif_with(comment_blocks(100_000, 0xFF, 1)),
    "a GIF of stray bytes": gif_with(bytes(100_000)),
    "a GIF of graphic controls": gif_with(comment_blocks(1, 0xF9, 4) * 5_000),
    "a WebP of empty chunks": webp_with(*[(b"none", b"")] * 5_000),
    "a WebP whose canvas is not its picture": webp_with(canvas=(16_000, 16_000)),
    "a JPEG of two frames": jpeg_with(segment(0xC0, bytes.fromhex("08270f270f0101110000"))),
    "a JPEG of tables": jpeg_with(segment(0xDB, bytes(65)) * 2_000),
    "a JPEG of scans of many pixels": progressive(8_000, 8_000, 40),
}

CHEAP = {
    "a PNG with a text named transparency": TRANSPARENCY,
    "a JPEG of EXIF segments": jpeg_with(segment(0xE1, b"Exif\0\0" + bytes(2_000)) * 9_900),
    "a JPEG whose tags share one value": jpeg_with(segment(0xE1, shared_exif(2_500, 30_000))),
    "a JPEG of Photoshop blocks": jpeg_with(
        segment(0xED, b"Photoshop 3.0\0" + b"8BIM\x03\xed\0\0\0\0\0\0" * 5_000)
    ),
    "a JPEG of broken ICC profiles": jpeg_with(segment(0xE2, b"ICC_PROFILE\0") * 9_000),
    "a PNG whose tags share one value": png_file(
        30, 10, 8, 0, bytes(310), chunk(b"eXIf", shared_exif(20_000, 2_000_000, b""))
    ),
    "a WebP whose tags share one value": webp_with((b"EXIF", shared_exif(20_000, 2_000_000))),
    "a TIFF of 16 MB of offsets": tiff_of_offsets(4_000_000),
}


def damaged(file_format: str, count: int, seed: int) -> Iterator[bytes]:
    """Valid files with bytes changed, removed, repeated or cut off at random places."""
    random = np.random.default_rng([seed, *file_format.encode()])
    modes = ("L", "P") if file_format == "GIF" else ("L", "RGB", "CMYK" if file_format == "JPEG" else "RGBA")
    for index in range(count):
        data = bytearray(_valid(file_format, modes[index % len(modes)], random))
        for _ in range(int(random.integers(1, 6))):
            # The first bytes say most.
            place = int(random.integers(len(data)) ** random.choice([0.4, 1.0]))
            match random.integers(5):
                case 0 | 1:
                    data[place] = random.choice([0, 1, 0x7F, 0xFF, random.integers(256)])
                case 2:
                    del data[place : place + int(random.integers(1, 20))]
                case 3:
                    data[place:place] = data[place : place + int(random.integers(1, 60))]
                case 4:
                    data[place : place + 4] = random.bytes(4)
        if random.random() < 0.1:
            del data[int(random.integers(1, len(data))) :]
        yield bytes(data)


def _valid(file_format: str, mode: str, random: np.random.Generator) -> bytes:
    picture = _PICTURE.convert(mode)
    exif = Image.Exif()
    exif[0x0112] = int(random.integers(1, 9))
    options: dict[str, object] = {} if file_format == "GIF" else {"exif": exif.tobytes()}
    if file_format == "TIFF":
        options["compression"] = str(
            random.choice(["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "zstd"])
        )
    if file_format == "WEBP":
        options["lossless"] = bool(random.integers(2))
    if file_format != "JPEG" and random.random() < 0.3:
        options |= {"save_all": True, "append_images": [picture.rotate(90)]}
    file = io.BytesIO()
    picture.save(file, file_format, **options)
    return file.getvalue()
