"""Reads the orientation from EXIF and XMP blocks in bounded time.

Pillow's reader copies the value of every tag, and tags may share one value: 64 KiB of EXIF can cost 300 MB.
"""

import re
import struct

_UPRIGHT = 1
_ORIENTATION = 0x0112
_EXIF = b"Exif\0\0"
_XMP_ORIENTATION = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')
# TIFF's types of whole numbers: BYTE, SHORT, LONG.
_SIZES = {1: "B", 3: "H", 4: "I"}


def orientation(exif: bytes, xmp: bytes = b"") -> int:
    """Return the orientation, 1 to 8, that an EXIF block states, or else an XMP block; 1 without any."""
    stated = _from_exif(exif)
    if stated is None and (found := _XMP_ORIENTATION.search(xmp)):
        stated = int(found[1])
    return stated if stated is not None and 1 <= stated <= 8 else _UPRIGHT


def _from_exif(exif: bytes) -> int | None:
    start = len(_EXIF) if exif.startswith(_EXIF) else 0
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[start : start + 4])
    if order is None:
        return None
    try:
        (directory,) = struct.unpack_from(order + "I", exif, start + 4)
        (count,) = struct.unpack_from(order + "H", exif, start + directory)
        for place in range(start + directory + 2, start + directory + 2 + 12 * count, 12):
            tag, kind, values = struct.unpack_from(order + "HHI", exif, place)
            if tag == _ORIENTATION:
                if kind not in _SIZES or values != 1:
                    return None
                return int(struct.unpack_from(order + _SIZES[kind], exif, place + 8)[0])
    except struct.error:
        pass
    return None
