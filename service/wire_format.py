"""Counts the fields of a serialized protobuf message before it is parsed.

Parsing holds the interpreter's lock until it ends, and 27 MB can hold millions of fields. The walk stops
at the first limit that is exceeded, so that its cost is bounded by the limits.
"""

from collections.abc import Mapping

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from service.config import MAX_ENTRIES, Limits
from service.errors import Kind, ServiceError
from service.pb.efficientsam3.v1 import segmentation_pb2, tracking_pb2

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
# Fields of one point, of one exemplar, and of one prompt beside these, each with the field that holds it.
_POINT_FIELDS, _EXEMPLAR_FIELDS, _PROMPT_FIELDS = 4, 7, 16
# Bytes of one element of a packed field whose elements have a fixed size.
_PACKED_BYTES = {
    FieldDescriptor.TYPE_FLOAT: 4,
    FieldDescriptor.TYPE_FIXED32: 4,
    FieldDescriptor.TYPE_SFIXED32: 4,
    FieldDescriptor.TYPE_DOUBLE: 8,
    FieldDescriptor.TYPE_FIXED64: 8,
    FieldDescriptor.TYPE_SFIXED64: 8,
}


class MalformedError(Exception):
    """The bytes are not a protobuf message."""


def count_limits(limits: Limits) -> dict[str, int]:
    """Return the largest number of entries by the full name of each repeated field of our requests."""
    segment = segmentation_pb2.SegmentRequest.DESCRIPTOR.fields_by_name
    prompt = segmentation_pb2.Prompt.DESCRIPTOR.fields_by_name
    shown = tracking_pb2.TrackPrompt.DESCRIPTOR.fields_by_name
    return {
        segment["prompts"].full_name: limits.max_prompts,
        prompt["exemplars"].full_name: limits.max_exemplars,
        prompt["points"].full_name: limits.max_points,
        shown["points"].full_name: limits.max_points,
        tracking_pb2.Frame.DESCRIPTOR.fields_by_name["prompts"].full_name: limits.max_prompts,
        tracking_pb2.TrackVideoRequest.DESCRIPTOR.fields_by_name[
            "prompts"
        ].full_name: limits.max_video_prompts,
        segmentation_pb2.Polygon.DESCRIPTOR.fields_by_name["rings"].full_name: MAX_ENTRIES,
        segmentation_pb2.Ring.DESCRIPTOR.fields_by_name["xy"].full_name: 2 * limits.max_mask_points,
    }


def max_fields(limits: Limits) -> int:
    """Return the largest number of fields that a request within `limits` can have, at all levels."""
    shown = _POINT_FIELDS * limits.max_points + _PROMPT_FIELDS
    image = limits.max_prompts * (shown + _EXEMPLAR_FIELDS * limits.max_exemplars)
    return max(image, limits.max_video_prompts * shown) + 2 * MAX_ENTRIES


class FieldCounter:
    """Refuses messages that have too many fields."""

    def __init__(self, limits: Limits) -> None:
        self._by_field: Mapping[str, int] = count_limits(limits)
        self._max_fields = max_fields(limits)

    def check(self, raw: bytes, descriptor: Descriptor) -> None:
        """Raise ServiceError `payload_too_large` for a message with too many fields or entries.

        Raises MalformedError for bytes that are not a protobuf message. Nested messages of the schema are
        counted too; the schema has no recursive message, so their depth is bounded.
        """
        fields = 0
        open_messages: list[tuple[int, Descriptor, dict[int, int]]] = [(len(raw), descriptor, {})]
        at = 0
        while open_messages:
            end, kind, counts = open_messages[-1]
            if at >= end:
                if at > end:
                    raise MalformedError
                open_messages.pop()
                continue
            fields += 1
            if fields > self._max_fields:
                raise _too_many("The message", "fields", self._max_fields)
            tag, at = _varint(raw, at, end)
            field = kind.fields_by_number.get(tag >> 3)
            begin, at = _skip(raw, at, end, tag & 7)
            if field is None:
                continue
            if field.full_name in self._by_field:
                entries = _entries(field, tag & 7, at - begin)
                counts[field.number] = counts.get(field.number, 0) + entries
                if counts[field.number] > self._by_field[field.full_name]:
                    raise _too_many(field.name, "entries", self._by_field[field.full_name])
            if field.message_type is not None and tag & 7 == _BYTES:
                open_messages.append((at, field.message_type, {}))
                at = begin


def _entries(field: FieldDescriptor, wire_type: int, size: int) -> int:
    """Return the number of elements that one occurrence of a repeated field brings."""
    if wire_type == _BYTES and field.type in _PACKED_BYTES:
        return size // _PACKED_BYTES[field.type]
    return 1


def _skip(raw: bytes, at: int, end: int, wire_type: int) -> tuple[int, int]:
    """Return where the field's value begins, and where it ends."""
    if wire_type == _VARINT:
        _, after = _varint(raw, at, end)
        return at, after
    if wire_type == _BYTES:
        size, at = _varint(raw, at, end)
        after = at + size
    elif wire_type == _FIXED64:
        after = at + 8
    elif wire_type == _FIXED32:
        after = at + 4
    else:
        # Groups do not exist in proto3.
        raise MalformedError
    if after > end:
        raise MalformedError
    return at, after


def _varint(raw: bytes, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end and shift < 70:
        byte = raw[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise MalformedError


def _too_many(name: str, what: str, limit: int) -> ServiceError:
    detail = f"{name} has more {what} than the limit of {limit:,}; send fewer, or several requests."
    return ServiceError(Kind.PAYLOAD_TOO_LARGE, detail)
