"""Inputs that are too large for a file of the corpus, by the name of what builds them."""

import json
import struct
from collections.abc import Callable
from typing import Any

from service.pb.efficientsam3.v1 import segmentation_pb2 as pb
from service.pb.efficientsam3.v1 import tracking_pb2
from tests.worker.files import BITS, COMPRESSION, HEIGHT, PHOTOMETRIC, ROWS_PER_STRIP, SAMPLES, WIDTH

BOUNDARY = "fuzz-boundary"
MULTIPART = ("Content-Type", f"multipart/form-data; boundary={BOUNDARY}")

Parts = list[tuple[str, str, str, bytes]]


def multipart(*parts: tuple[str, str, str, bytes]) -> bytes:
    """A body of parts: name, filename (empty: none), Content-Type (empty: none), content."""
    body = b""
    for name, filename, kind, content in parts:
        file = f'; filename="{filename}"' if filename else ""
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{file}\r\n'
        head += f"Content-Type: {kind}\r\n" if kind else ""
        body += head.encode(errors="replace") + b"\r\n" + content + b"\r\n"
    return body + f"--{BOUNDARY}--\r\n".encode()


def with_image(image: bytes, request: dict[str, Any] | None = None) -> bytes:
    """A multipart body with an image and a request: a click, unless another is given."""
    asked = json.dumps(request or {"prompts": [{"points": [{"x": 1, "y": 1}]}]}).encode()
    return multipart(("image", "picture", "", image), ("request", "", "application/json", asked))


def with_video(video: bytes, prompts: list[Any] | None = None) -> bytes:
    """A multipart body with a video and one box, or other prompts."""
    asked = json.dumps({"prompts": prompts or [{"box": [8, 8, 30, 30]}]}).encode()
    return multipart(("video", "clip", "", video), ("request", "", "application/json", asked))


def make(builder: str, *arguments: Any) -> list[str | bytes]:
    """The messages that this builder makes."""
    return _BUILDERS[builder](*arguments)


def _png(width: int, height: int) -> list[str | bytes]:
    """A flat PNG picture: few bytes, many pixels."""
    from tests.fuzz.images import flat_png

    return [with_image(flat_png(width, height))]


def _strips(count: int) -> list[str | bytes]:
    """A TIFF file whose one picture has so many strips."""
    return [with_image(many_strips(count))]


def _segments(count: int, size: int) -> list[str | bytes]:
    """A JPEG file with so many EXIF segments of so many bytes."""
    return [with_image(many_segments(count, size))]


def _values(keys: int) -> list[str | bytes]:
    """A JSON body with so many unknown keys."""
    return [b"{" + b",".join(b'"k%d":1' % index for index in range(keys)) + b"}"]


def _prompts(count: int) -> list[str | bytes]:
    """A message of TrackVideo with so many prompts, each of another frame."""
    head = tracking_pb2.TrackVideoRequest(video=b"x").SerializeToString()
    # Written by hand, since protobuf takes seconds: a frame number of four bytes and the text "a".
    numbers = (
        bytes([at & 127 | 128, at >> 7 & 127 | 128, at >> 14 & 127 | 128, at >> 21]) for at in range(count)
    )
    return [head + b"".join(b"\x1a\x0a\x08" + number + b"\x12\x03\x32\x01a" for number in numbers)]


def _points(count: int) -> list[str | bytes]:
    """A message of Segment with so many points in one prompt."""
    prompt = pb.Prompt(points=[pb.Point(x=1, y=1)] * count)
    return [pb.SegmentRequest(image={"data": b"x"}, prompts=[prompt]).SerializeToString()]


def _small_messages(count: int) -> list[str | bytes]:
    """So many WebSocket messages of 7 bytes."""
    return ['{"a":1}'] * count


def _clip(frames: int, width: int, height: int) -> list[str | bytes]:
    """A message of TrackVideo with an H.264 file of so many frames."""
    from tests.fuzz.videos import clip

    prompt = tracking_pb2.VideoPrompt(prompt={"box": {"x0": 8, "y0": 8, "x1": 30, "y1": 30}})
    video = clip("mp4", "libx264", frames, width, height)
    return [tracking_pb2.TrackVideoRequest(video=video, prompts=[prompt]).SerializeToString()]


def many_strips(count: int) -> bytes:
    """As `_strips`: the file."""
    tags = {
        WIDTH: 1,
        HEIGHT: count,
        BITS: 8,
        COMPRESSION: 1,
        PHOTOMETRIC: 1,
        273: 0,
        SAMPLES: 1,
        ROWS_PER_STRIP: 1,
        279: 0,
    }
    at = 8 + 2 + 12 * len(tags) + 4
    entries = b""
    for tag in sorted(tags):
        number, value = (count, at + (tag == 279) * 4 * count) if tag in (273, 279) else (1, tags[tag])
        entries += struct.pack("<HHII", tag, 4, number, value)
    offsets, lengths = struct.pack("<I", 8) * count, struct.pack("<I", 1) * count
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + offsets + lengths


def many_segments(count: int, size: int) -> bytes:
    """As `_segments`: the file."""
    from tests.fuzz.images import seeds

    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x01\0\0\0\0\0\0\0" + bytes(size)
    segment = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
    return b"\xff\xd8" + segment * count + seeds()["jpeg"][2:]


_BUILDERS: dict[str, Callable[..., list[str | bytes]]] = {
    "png": _png,
    "strips": _strips,
    "segments": _segments,
    "values": _values,
    "prompts": _prompts,
    "points": _points,
    "clip": _clip,
    "small_messages": _small_messages,
}
