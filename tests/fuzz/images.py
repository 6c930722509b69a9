"""Small image files of every format, and edits that keep their structure: chunks, tags, segments."""

import io
import struct
import zlib
from collections.abc import Callable, Sequence
from functools import cache

from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from tests.fuzz.mutations import edited_bytes
from tests.pictures import street
from tests.worker.files import chunk

WIDTH, HEIGHT = 24, 16

_PNG_HEAD = b"\x89PNG\r\n\x1a\n"
_PNG_CHUNKS = (
    b"IHDR",
    b"PLTE",
    b"tRNS",
    b"tEXt",
    b"zTXt",
    b"iTXt",
    b"iCCP",
    b"eXIf",
    b"gAMA",
    b"pHYs",
    b"acTL",
    b"fcTL",
    b"fdAT",
    b"IDAT",
    b"IEND",
    b"sRGB",
    b"cHRM",
)
# Names under which Pillow keeps what a decoder needs: text of the same name must not replace it.
_KEYWORDS = (
    b"transparency",
    b"gamma",
    b"dpi",
    b"interlace",
    b"exif",
    b"icc_profile",
    b"chromaticity",
    b"duration",
    b"loop",
    b"background",
    b"Raw profile type exif",
    b"XML:com.adobe.xmp",
)
_TAGS = (
    254,
    256,
    257,
    258,
    259,
    262,
    266,
    273,
    274,
    277,
    278,
    279,
    284,
    317,
    320,
    322,
    323,
    324,
    325,
    330,
    338,
    339,
    347,
    512,
    529,
    530,
    531,
    532,
    700,
    34665,
    34675,
)
_SIZES = (0, 1, 2, 3, 4, 8, 16, 255, 9991, 32769, 65535, 0x7FFF_FFFF, 0xFFFF_FFFF)


def saved(picture: Image.Image, file_format: str, **options: object) -> bytes:
    """The picture as a file's bytes."""
    buffer = io.BytesIO()
    picture.save(buffer, file_format, **options)
    return buffer.getvalue()


@cache
def seeds() -> dict[str, bytes]:
    """Valid files by name: every format that is accepted, with its modes and compressions."""
    rgb = street(WIDTH, HEIGHT)
    exif = Image.Exif()
    exif[274] = 6
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", "a street")
    pngs = {mode: saved(rgb.convert(mode), "PNG") for mode in ("RGB", "L", "P", "1", "RGBA", "LA", "I;16")}
    tiffs = {
        way: saved(rgb, "TIFF", compression=way)
        for way in ("raw", "tiff_lzw", "tiff_deflate", "jpeg", "packbits")
    }
    return {
        "jpeg": saved(rgb, "JPEG"),
        "jpeg-progressive": saved(rgb, "JPEG", progressive=True, exif=exif),
        "jpeg-grey": saved(rgb.convert("L"), "JPEG"),
        "jpeg-cmyk": saved(rgb.convert("CMYK"), "JPEG"),
        **{f"png-{mode}": file for mode, file in pngs.items()},
        "png-text": saved(rgb, "PNG", pnginfo=text, exif=exif),
        "webp": saved(rgb, "WEBP", quality=50),
        "webp-lossless": saved(rgb.convert("RGBA"), "WEBP", lossless=True),
        **{f"tiff-{way}": file for way, file in tiffs.items()},
        "tiff-16": saved(rgb.convert("I;16"), "TIFF"),
        "gif": saved(rgb.convert("P"), "GIF"),
        "gif-frames": saved(rgb.convert("P"), "GIF", save_all=True, append_images=[rgb.convert("P")]),
    }


@st.composite
def images(draw: st.DrawFn) -> bytes:
    """A seed whose structure was edited up to three times, and seldom its bytes."""
    name = draw(st.sampled_from(sorted(seeds())))
    data, edit = seeds()[name], _EDITS.get(name.partition("-")[0])
    for _ in range(draw(st.integers(0, 3)) if edit else 0):
        assert edit is not None
        data = edit(draw, data)
    return edited_bytes(draw, data, 3) if not edit or draw(st.integers(0, 3)) == 3 else data


def _edited_png(draw: st.DrawFn, data: bytes) -> bytes:
    """One chunk added, removed, repeated or changed; its checksum is right."""
    chunks = list(_png_chunks(data))
    at = draw(st.integers(0, len(chunks)))
    match draw(st.integers(0, 4)):
        case 0:
            text = draw(st.sampled_from(_KEYWORDS)) + b"\0" + draw(st.binary(max_size=6))
            chunks.insert(at, (draw(st.sampled_from((b"tEXt", b"zTXt", b"iTXt"))), text))
        case 1:
            chunks.insert(at, (draw(st.sampled_from(_PNG_CHUNKS)), draw(st.binary(max_size=30))))
        case 2 if chunks:
            del chunks[min(at, len(chunks) - 1)]
        case 3 if chunks:
            name, content = chunks[min(at, len(chunks) - 1)]
            chunks[min(at, len(chunks) - 1)] = name, edited_bytes(draw, content, 2)
        case _:
            width, height = draw(st.sampled_from(_SIZES)), draw(st.sampled_from(_SIZES))
            bits, colour = draw(st.sampled_from((1, 2, 4, 8, 16))), draw(st.integers(0, 7))
            head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, draw(st.integers(0, 1)))
            chunks[:1] = [(b"IHDR", head)]
    return _PNG_HEAD + b"".join(chunk(name, content) for name, content in chunks)


def _png_chunks(data: bytes) -> Sequence[tuple[bytes, bytes]]:
    found, at = [], len(_PNG_HEAD)
    while at + 8 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        found.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += length + 12
    return found


def _edited_tiff(draw: st.DrawFn, data: bytes) -> bytes:
    """One entry of the first directory gets another tag, type, count or value."""
    if len(data) < 8 or data[:2] not in (b"II", b"MM"):
        return data
    order = "<" if data[:2] == b"II" else ">"
    (start,) = struct.unpack_from(order + "I", data, 4)
    if start + 2 > len(data):
        return data
    (count,) = struct.unpack_from(order + "H", data, start)
    at = start + 2 + 12 * draw(st.integers(0, max(0, min(count, 40) - 1)))
    if at + 12 > len(data):
        return data
    tag, kind, number, value = struct.unpack_from(order + "HHII", data, at)
    match draw(st.integers(0, 4)):
        case 0:
            kind = draw(st.integers(0, 18))
        case 4:
            return retyped_tiff(data, tag, draw(st.sampled_from((5, 10, 11, 12))))
        case 1:
            number = draw(st.sampled_from(_SIZES))
        case 2:
            value = draw(st.sampled_from(_SIZES))
        case _:
            tag = draw(st.sampled_from(_TAGS))
    return data[:at] + struct.pack(order + "HHII", tag, kind, number, value) + data[at + 12 :]


def retyped_tiff(data: bytes, tag: int, kind: int) -> bytes:
    """The file with the tag's values written as RATIONAL (5), SRATIONAL (10), FLOAT (11) or DOUBLE (12).

    Values that a SHORT or LONG tag holds beside its entry are taken for 8, as BitsPerSample's are.
    """
    order = "<" if data[:2] == b"II" else ">"
    (start,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, start)
    for at in range(start + 2, min(start + 2 + 12 * count, len(data) - 11), 12):
        found, _, number, value = struct.unpack_from(order + "HHII", data, at)
        if found != tag or number > 64:
            continue
        value = (value if order == "<" else value >> 16) if number == 1 else 8
        one = {5: ("II", value, 1), 10: ("ii", value & 0x7FFF_FFFF, 1), 11: ("f", value), 12: ("d", value)}[
            kind
        ]
        packed = struct.pack(order + one[0], *one[1:]) * number
        place = packed if len(packed) <= 4 else struct.pack(order + "I", len(data))
        entry = struct.pack(order + "HHI", tag, kind, number) + place
        return data[:at] + entry + data[at + 12 :] + (packed if len(packed) > 4 else b"")
    return data


def _edited_jpeg(draw: st.DrawFn, data: bytes) -> bytes:
    """One segment before the picture's scan added, removed, repeated or changed; its length is right."""
    segments, at = [], 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] not in (0xDA, 0xD9):
        (length,) = struct.unpack_from(">H", data, at + 2)
        segments.append((data[at + 1], data[at + 4 : at + 2 + length]))
        at += 2 + length
    where = draw(st.integers(0, max(0, len(segments) - 1)))
    match draw(st.integers(0, 3)):
        case 0:
            segments.insert(where, (draw(st.integers(0xC0, 0xFE)), draw(st.binary(max_size=20))))
        case 1 if segments:
            segments[where : where + 1] = [segments[where]] * draw(st.sampled_from((0, 2, 40, 300)))
        case 2 if segments:
            code, content = segments[where]
            segments[where] = code, edited_bytes(draw, content, 2)
        case _:
            header = b"Exif\0\0" + draw(st.sampled_from((b"II*\0", b"MM\0*"))) + draw(st.binary(max_size=30))
            segments.insert(0, (0xE1, header))
    head = b"".join(
        bytes([0xFF, code]) + struct.pack(">H", len(body[:65000]) + 2) + body[:65000]
        for code, body in segments
    )
    return data[:2] + head + data[at:]


_EDITS: dict[str, Callable[[st.DrawFn, bytes], bytes]] = {
    "png": _edited_png,
    "tiff": _edited_tiff,
    "jpeg": _edited_jpeg,
}


def png_text(keyword: bytes, text: bytes, mode: str = "L") -> bytes:
    """A valid PNG file with one text chunk before its pixels."""
    chunks = list(_png_chunks(seeds()[f"png-{mode}"]))
    chunks.insert(1, (b"tEXt", keyword + b"\0" + text))
    return _PNG_HEAD + b"".join(chunk(name, content) for name, content in chunks)


def flat_png(width: int, height: int) -> bytes:
    """A grey PNG file of one level, which compresses to next to nothing."""
    squeeze, row = zlib.compressobj(9), b"\0" + bytes(width)
    pixels = b"".join(squeeze.compress(row) for _ in range(height)) + squeeze.flush()
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return _PNG_HEAD + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
