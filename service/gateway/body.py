"""What a POST brings, read within its limits: JSON, or multipart with the image as it is."""

import asyncio
import sys

from fastapi import Request
from pydantic import ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from service.config import MIB
from service.errors import Kind, ServiceError
from service.gateway.schema import SegmentFields, SegmentIn
from service.gateway.translate import image_of, refusal, segment_request
from service.pb.efficientsam3.v1 import segmentation_pb2 as pb

_PARTS = ("image", "request")
# Values of one JSON document, most of which the rings of polygons need.
_MAX_VALUES = 100_000
# Bytes of the part `request`, which holds no image.
_MAX_REQUEST_PART = 4 * MIB


class _InMemoryParser(MultiPartParser):
    # The body is bounded before it comes here; nothing of it is written to disk.
    spool_max_size = sys.maxsize

    def __init__(self, request: Request, max_bytes: int) -> None:
        super().__init__(
            request.headers,
            request.stream(),
            max_files=len(_PARTS),
            max_fields=len(_PARTS),
            max_part_size=max_bytes,
        )


async def read_segment_request(request: Request, deadline: float, max_bytes: int) -> pb.SegmentRequest:
    """The request in the body, whole by `deadline` (loop time). The body's own limit is `bounded`'s work.

    Raises ServiceError: INVALID_ARGUMENT that names the JSON path or the part, DEADLINE_EXCEEDED.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    reader = {"application/json": _read_json, "multipart/form-data": _read_multipart}.get(kind)
    if reader is None:
        detail = (
            f"Content-Type must be application/json or multipart/form-data, not {kind[:100] or 'absent'!r}."
        )
        raise ServiceError(Kind.INVALID_ARGUMENT, detail)
    try:
        async with asyncio.timeout_at(deadline):
            return await reader(request, max_bytes)
    except TimeoutError:
        detail = "The deadline passed before the whole body had arrived."
        raise ServiceError(Kind.DEADLINE_EXCEEDED, detail) from None
    except ValidationError as error:
        raise await asyncio.to_thread(refusal, error) from None


async def _read_json(request: Request, max_bytes: int) -> pb.SegmentRequest:
    text = await request.body()
    return await asyncio.to_thread(_from_json, text)


def _from_json(text: bytes) -> pb.SegmentRequest:
    _check_size(text)
    body = SegmentIn.model_validate_json(text)
    return segment_request(body, image_of(body.image))


async def _read_multipart(request: Request, max_bytes: int) -> pb.SegmentRequest:
    try:
        form = await _InMemoryParser(request, max_bytes).parse()
    except MultiPartException as error:
        raise ServiceError(
            Kind.INVALID_ARGUMENT, f"The multipart body cannot be read: {error.message}"
        ) from None
    try:
        image, text = [await _part(form, name) for name in _PARTS]
        if isinstance(form["image"], str):
            # The parser decoded it as text, which spoils an image.
            detail = "The part 'image' must be a file: give it a filename."
            raise ServiceError(Kind.INVALID_ARGUMENT, detail)
        if unknown := set(form) - set(_PARTS):
            detail = f"There is no part {min(unknown)[:100]!r}; the parts are 'image' and 'request'."
            raise ServiceError(Kind.INVALID_ARGUMENT, detail)
        return await asyncio.to_thread(_from_parts, image, text)
    finally:
        await form.close()


def _from_parts(image: bytes, text: bytes) -> pb.SegmentRequest:
    if len(text) > _MAX_REQUEST_PART:
        detail = f"The part 'request' has more bytes than the limit of {_MAX_REQUEST_PART:,}."
        raise ServiceError(Kind.PAYLOAD_TOO_LARGE, detail)
    _check_size(text)
    body = SegmentFields.model_validate_json(text)
    return segment_request(body, pb.Image(data=image))


def _check_size(text: bytes) -> None:
    """Raise ServiceError PAYLOAD_TOO_LARGE for JSON that would be far larger in memory than it is as text."""
    # One comma stands between any two values; those in strings are few. It costs next to nothing.
    if text.count(b",") > _MAX_VALUES:
        detail = f"The JSON has more values than the limit of {_MAX_VALUES:,}."
        raise ServiceError(Kind.PAYLOAD_TOO_LARGE, detail)


async def _part(form: FormData, name: str) -> bytes:
    """The one part of that name, sent as a field or as a file."""
    found = form.getlist(name)
    if len(found) != 1:
        problem = "is missing" if not found else f"was sent {len(found)} times"
        raise ServiceError(Kind.INVALID_ARGUMENT, f"The multipart part {name!r} {problem}.")
    part = found[0]
    return await part.read() if isinstance(part, UploadFile) else part.encode()
