"""What a POST brings, read within its limits: JSON, or multipart with the image as it is."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from fastapi import Request
from pydantic import ValidationError
from pydantic_core import from_json

from service.config import MIB
from service.errors import Kind, ServiceError
from service.gateway.multipart import Part, parse
from service.gateway.schema import EncodeFields, EncodeIn, SegmentFields, SegmentIn
from service.gateway.session_schema import FrameFields, FrameIn, OpenIn, VideoIn
from service.gateway.session_translate import frame_of, open_request, video_request
from service.gateway.translate import image_of, refusal, segment_request
from service.pb.efficientsam3.v1 import segmentation_pb2 as pb
from service.pb.efficientsam3.v1 import tracking_pb2 as tracking_pb

_T = TypeVar("_T")

_REQUEST = "request"
# Values of one JSON document, most of which the rings of polygons need.
_MAX_VALUES = 100_000
# Fields of all objects of one JSON document, and of one object: no known object has half as many.
_MAX_FIELDS, _MAX_OBJECT_FIELDS = 16_384, 64
# Bytes of the part `request`, which holds no file.
_MAX_REQUEST_PART = 4 * MIB


async def read_segment_request(request: Request, deadline: float) -> pb.SegmentRequest:
    """The request in the body, whole by `deadline` (loop time). `BodyStream` bounds its bytes.

    Raises ServiceError: INVALID_ARGUMENT that names the JSON path or the part, DEADLINE_EXCEEDED, and what
    `BodyStream` raises.
    """
    return await _read(request, deadline, _SEGMENT)


async def read_encode_request(request: Request, deadline: float) -> pb.EncodeImageRequest:
    """As `read_segment_request`, for an image to keep: the part `request` may be left out."""
    return await _read(request, deadline, _ENCODE)


async def read_frame(request: Request, deadline: float) -> tracking_pb.Frame:
    """As `read_segment_request`, for a frame of a tracking session."""
    return await _read(request, deadline, _FRAME)


async def read_video(request: Request, deadline: float, max_bytes: int) -> tracking_pb.TrackVideoRequest:
    """As `read_segment_request`, for a video, which comes as multipart alone.

    `max_bytes` has no effect: `BodyStream` bounds the body.
    """
    return await _read(request, deadline, _VIDEO)


async def read_open_request(request: Request, deadline: float) -> tracking_pb.OpenSessionRequest:
    """As `read_segment_request`, for a session to open: JSON, or nothing at all."""
    if request.headers.get("content-length", "0") == "0" and "transfer-encoding" not in request.headers:
        return tracking_pb.OpenSessionRequest()
    return await _read(request, deadline, _OPEN)


def _segment_json(text: bytes) -> pb.SegmentRequest:
    body = SegmentIn.model_validate_json(text)
    return segment_request(body, image_of(body.image))


def _segment_parts(image: bytes, text: bytes) -> pb.SegmentRequest:
    return segment_request(SegmentFields.model_validate_json(text), pb.Image(data=image))


def _encode_json(text: bytes) -> pb.EncodeImageRequest:
    body = EncodeIn.model_validate_json(text)
    return pb.EncodeImageRequest(variant=body.variant, image=image_of(body.image))


def _encode_parts(image: bytes, text: bytes) -> pb.EncodeImageRequest:
    body = EncodeFields.model_validate_json(text)
    return pb.EncodeImageRequest(variant=body.variant, image=pb.Image(data=image))


def _frame_json(text: bytes) -> tracking_pb.Frame:
    body = FrameIn.model_validate_json(text)
    return frame_of(body, image_of(body.image) if body.image else None)


def _frame_parts(image: bytes, text: bytes) -> tracking_pb.Frame:
    return frame_of(FrameFields.model_validate_json(text), pb.Image(data=image))


def _video_parts(video: bytes, text: bytes) -> tracking_pb.TrackVideoRequest:
    return video_request(VideoIn.model_validate_json(text), video)


def _open_json(text: bytes) -> tracking_pb.OpenSessionRequest:
    return open_request(OpenIn.model_validate_json(text))


@dataclass(frozen=True, slots=True)
class _Form(Generic[_T]):
    """How one address' body is understood, whole as JSON and as multipart."""

    # None: a file comes here, which JSON does not hold.
    from_json: Callable[[bytes], _T] | None
    # The file's bytes, and the JSON of the part `request`; None: no file comes here.
    from_parts: Callable[[bytes, bytes], _T] | None
    # What the part `request` is where it was left out; None: it may not be.
    default: bytes | None = None
    # Name of the part that is the file.
    file: str = "image"


_SEGMENT = _Form(_segment_json, _segment_parts)
_ENCODE = _Form(_encode_json, _encode_parts, default=b"{}")
_FRAME = _Form(_frame_json, _frame_parts)
_OPEN = _Form(_open_json, None)
_VIDEO = _Form(None, _video_parts, file="video")


async def _read(request: Request, deadline: float, form: _Form[_T]) -> _T:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding != "identity":
        detail = f"Content-Encoding must not be {encoding[:100]!r}: send the body uncompressed."
        raise ServiceError(Kind.INVALID_ARGUMENT, detail)
    try:
        async with asyncio.timeout_at(deadline):
            match kind:
                case "application/json" if form.from_json:
                    return await asyncio.to_thread(_from_json, await _whole(request), form)
                case "multipart/form-data" if form.from_parts:
                    whole, content_type = await _whole(request), request.headers["content-type"]
                    return await asyncio.to_thread(_from_multipart, content_type, whole, form)
    except TimeoutError:
        detail = "The deadline passed before the whole body had arrived."
        raise ServiceError(Kind.DEADLINE_EXCEEDED, detail) from None
    readers = {"application/json": form.from_json, "multipart/form-data": form.from_parts}
    known = " or ".join(name for name, reader in readers.items() if reader)
    detail = f"Content-Type must be {known}, not {kind[:100] or 'absent'!r}."
    raise ServiceError(Kind.INVALID_ARGUMENT, detail)


async def _whole(request: Request) -> bytes:
    return b"".join([piece async for piece in request.stream()])


def _from_json(text: bytes, form: _Form[_T]) -> _T:
    assert form.from_json is not None, "asked for before"
    check_values(text)
    try:
        return form.from_json(text)
    except ValidationError as error:
        raise refusal(error) from None


def _from_multipart(content_type: str, body: bytes, form: _Form[_T]) -> _T:
    assert form.from_parts is not None, "asked for before"
    parts = parse(content_type, body)
    file, text = _part(parts, form.file), _part(parts, _REQUEST, form.default)
    if not file.is_file:
        detail = f"The part {form.file!r} must be a file: give it a filename."
        raise ServiceError(Kind.INVALID_ARGUMENT, detail)
    if unknown := {part.name for part in parts} - {form.file, _REQUEST}:
        detail = f"There is no part {min(unknown)[:100]!r}; the parts are {form.file!r} and {_REQUEST!r}."
        raise ServiceError(Kind.INVALID_ARGUMENT, detail)
    fields = text.content
    if len(fields) > _MAX_REQUEST_PART:
        detail = f"The part 'request' has more bytes than the limit of {_MAX_REQUEST_PART:,}."
        raise ServiceError(Kind.PAYLOAD_TOO_LARGE, detail)
    check_values(fields)
    try:
        return form.from_parts(file.content, fields)
    except ValidationError as error:
        raise refusal(error) from None


def check_values(text: bytes) -> None:
    """Raise ServiceError for JSON that would be far larger in memory than it is as text.

    PAYLOAD_TOO_LARGE for too many values or fields, INVALID_ARGUMENT for too many fields of one object.
    """
    # One comma stands between any two values, and one colon in any field; those in strings are few. To count
    # them costs next to nothing.
    for mark, limit, what in ((b",", _MAX_VALUES, "values"), (b":", _MAX_FIELDS, "fields")):
        if text.count(mark) > limit:
            detail = f"The JSON has more {what} than the limit of {limit:,}."
            raise ServiceError(Kind.PAYLOAD_TOO_LARGE, detail)
    if text.count(b":") > _MAX_OBJECT_FIELDS:
        _check_objects(text)


def _check_objects(text: bytes) -> None:
    """Raise ServiceError INVALID_ARGUMENT for an object with many fields: each unknown one is an error."""
    try:
        values = [from_json(text, cache_strings="none")]
    except ValueError:
        # The models say what is wrong.
        return
    while values:
        value = values.pop()
        if isinstance(value, dict):
            if len(value) > _MAX_OBJECT_FIELDS:
                detail = f"An object of the JSON has more fields than the limit of {_MAX_OBJECT_FIELDS}."
                raise ServiceError(Kind.INVALID_ARGUMENT, detail)
            values.extend(value.values())
        elif isinstance(value, list):
            values.extend(value)


def _part(parts: list[Part], name: str, default: bytes | None = None) -> Part:
    """The one part of that name, sent as a field or as a file."""
    found = [part for part in parts if part.name == name]
    if not found and default is not None:
        return Part(name, pieces=[memoryview(default)])
    if len(found) != 1:
        problem = "is missing" if not found else f"was sent {len(found)} times"
        raise ServiceError(Kind.INVALID_ARGUMENT, f"The multipart part {name!r} {problem}.")
    return found[0]
