"""What a POST brings, read within its limits: JSON, or multipart with the image as it is."""

import asyncio
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from fastapi import Request
from pydantic import ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from service.config import MIB
from service.errors import Kind, ServiceError
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
# Bytes of the part `request`, which holds no file.
_MAX_REQUEST_PART = 4 * MIB


class _InMemoryParser(MultiPartParser):
    # The body is bounded before it comes here; nothing of it is written to disk.
    spool_max_size = sys.maxsize

    # JSON is UTF-8, whatever charset the client names: with some, fields could not be encoded again.
    @property
    def _charset(self) -> str:
        return "utf-8"

    @_charset.setter
    def _charset(self, named: str) -> None:
        pass

    def __init__(self, request: Request, max_bytes: int) -> None:
        super().__init__(
            request.headers,
            request.stream(),
            max_files=2,
            max_fields=2,
            max_part_size=max_bytes,
        )


async def read_segment_request(request: Request, deadline: float, max_bytes: int) -> pb.SegmentRequest:
    """The request in the body, whole by `deadline` (loop time). The body's own limit is `bounded`'s work.

    Raises ServiceError: INVALID_ARGUMENT that names the JSON path or the part, DEADLINE_EXCEEDED.
    """
    return await _read(request, deadline, max_bytes, _SEGMENT)


async def read_encode_request(request: Request, deadline: float, max_bytes: int) -> pb.EncodeImageRequest:
    """As `read_segment_request`, for an image to keep: the part `request` may be left out."""
    return await _read(request, deadline, max_bytes, _ENCODE)


async def read_frame(request: Request, deadline: float, max_bytes: int) -> tracking_pb.Frame:
    """As `read_segment_request`, for a frame of a tracking session."""
    return await _read(request, deadline, max_bytes, _FRAME)


async def read_video(request: Request, deadline: float, max_bytes: int) -> tracking_pb.TrackVideoRequest:
    """As `read_segment_request`, for a video, which comes as multipart alone."""
    return await _read(request, deadline, max_bytes, _VIDEO)


async def read_open_request(request: Request, deadline: float) -> tracking_pb.OpenSessionRequest:
    """As `read_segment_request`, for a session to open: JSON, or nothing at all."""
    if request.headers.get("content-length", "0") == "0" and "transfer-encoding" not in request.headers:
        return tracking_pb.OpenSessionRequest()
    return await _read(request, deadline, 0, _OPEN)


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


async def _read(request: Request, deadline: float, max_bytes: int, form: _Form[_T]) -> _T:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    try:
        async with asyncio.timeout_at(deadline):
            match kind:
                case "application/json" if form.from_json:
                    return await asyncio.to_thread(_from_json, await request.body(), form)
                case "multipart/form-data" if form.from_parts:
                    return await _read_multipart(request, max_bytes, form)
    except TimeoutError:
        detail = "The deadline passed before the whole body had arrived."
        raise ServiceError(Kind.DEADLINE_EXCEEDED, detail) from None
    except ValidationError as error:
        raise await asyncio.to_thread(refusal, error) from None
    readers = {"application/json": form.from_json, "multipart/form-data": form.from_parts}
    known = " or ".join(name for name, reader in readers.items() if reader)
    detail = f"Content-Type must be {known}, not {kind[:100] or 'absent'!r}."
    raise ServiceError(Kind.INVALID_ARGUMENT, detail)


def _from_json(text: bytes, form: _Form[_T]) -> _T:
    check_values(text)
    assert form.from_json is not None, "asked for before"
    return form.from_json(text)


async def _read_multipart(request: Request, max_bytes: int, form: _Form[_T]) -> _T:
    try:
        sent = await _InMemoryParser(request, max_bytes).parse()
    except MultiPartException as error:
        raise ServiceError(
            Kind.INVALID_ARGUMENT, f"The multipart body cannot be read: {error.message}"
        ) from None
    try:
        content, text = await _part(sent, form.file), await _part(sent, _REQUEST, form.default)
        if isinstance(sent[form.file], str):
            # The parser decoded it as text, which spoils it.
            detail = f"The part {form.file!r} must be a file: give it a filename."
            raise ServiceError(Kind.INVALID_ARGUMENT, detail)
        if unknown := set(sent) - {form.file, _REQUEST}:
            detail = f"There is no part {min(unknown)[:100]!r}; the parts are {form.file!r} and {_REQUEST!r}."
            raise ServiceError(Kind.INVALID_ARGUMENT, detail)
        return await asyncio.to_thread(_from_parts, content, text, form)
    finally:
        await sent.close()


def _from_parts(content: bytes, text: bytes, form: _Form[_T]) -> _T:
    if len(text) > _MAX_REQUEST_PART:
        detail = f"The part 'request' has more bytes than the limit of {_MAX_REQUEST_PART:,}."
        raise ServiceError(Kind.PAYLOAD_TOO_LARGE, detail)
    check_values(text)
    assert form.from_parts is not None, "asked for before"
    return form.from_parts(content, text)


def check_values(text: bytes) -> None:
    """Raise ServiceError PAYLOAD_TOO_LARGE for JSON that would be far larger in memory than it is as text."""
    # One comma stands between any two values; those in strings are few. It costs next to nothing.
    if text.count(b",") > _MAX_VALUES:
        detail = f"The JSON has more values than the limit of {_MAX_VALUES:,}."
        raise ServiceError(Kind.PAYLOAD_TOO_LARGE, detail)


async def _part(form: FormData, name: str, default: bytes | None = None) -> bytes:
    """The one part of that name, sent as a field or as a file."""
    found = form.getlist(name)
    if not found and default is not None:
        return default
    if len(found) != 1:
        problem = "is missing" if not found else f"was sent {len(found)} times"
        raise ServiceError(Kind.INVALID_ARGUMENT, f"The multipart part {name!r} {problem}.")
    part = found[0]
    return await part.read() if isinstance(part, UploadFile) else part.encode()
