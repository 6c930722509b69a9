"""What an ONNX file names outside itself, read without a model runtime. Standard library only.

Runtimes open the files that a graph's tensors name as their external data, so a file that came from elsewhere
is read here first. Only the fields that can hold tensors are walked; the numbers themselves are skipped.
"""

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

# Graphs within graphs, far deeper than an exporter nests them.
_MAX_DEPTH = 64
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MAX_VARINT_BYTES = 10

# Field numbers of onnx.proto: by message, those that hold messages which can hold tensors.
_FIELDS: dict[str, dict[int, str]] = {
    "Model": {7: "Graph", 20: "Training", 25: "Function"},
    "Training": {1: "Graph", 2: "Graph"},
    "Function": {7: "Node", 11: "Attribute"},
    "Graph": {1: "Node", 5: "Tensor", 15: "Sparse"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "Sparse", 23: "Sparse"},
    "Sparse": {1: "Tensor", 2: "Tensor"},
    "Tensor": {13: "Entry"},
}
_GRAPH_FIELD = 7
_DATA_FIELD = 13
_KEYS = {"location", "offset", "length", "checksum"}


class OnnxFileError(ValueError):
    """The file is not an ONNX model that can be read; the message says in one line what is wrong."""


@dataclass(frozen=True, slots=True)
class ExternalData:
    """Where one tensor keeps its numbers outside the file."""

    location: str
    # Bytes from the start of the file, and how many; None: to its end.
    offset: int
    length: int | None


class _Field(NamedTuple):
    number: int
    wire_type: int
    # Of a field of bytes, its content is from `start` to `end`.
    start: int
    end: int


def external_data(path: Path) -> Iterator[ExternalData]:
    """Yield what every tensor of the ONNX file at `path` keeps elsewhere. Raises OnnxFileError, OSError."""
    with path.open("rb") as file:
        if not path.stat().st_size:
            raise OnnxFileError("it is empty")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            fields = list(_fields(content, 0, len(content)))
            if not any(field.number == _GRAPH_FIELD and field.wire_type == _BYTES for field in fields):
                raise OnnxFileError("it holds no graph")
            yield from _walk(content, "Model", 0, len(content), 0)


def _walk(content: mmap.mmap, message: str, start: int, end: int, depth: int) -> Iterator[ExternalData]:
    if depth > _MAX_DEPTH:
        raise OnnxFileError(f"its graphs are nested more than {_MAX_DEPTH} levels deep")
    entries: list[_Field] = []
    inner = _FIELDS[message]
    for field in _fields(content, start, end):
        if field.wire_type != _BYTES or field.number not in inner:
            continue
        if message == "Tensor":
            entries.append(field)
        else:
            yield from _walk(content, inner[field.number], field.start, field.end, depth + 1)
    if entries:
        yield _read_entries(dict(_entry(content, field) for field in entries), len(entries))


def _entry(content: mmap.mmap, entry: _Field) -> tuple[str, str]:
    """Return the key and the value of one StringStringEntryProto."""
    texts = {1: "", 2: ""}
    for field in _fields(content, entry.start, entry.end):
        if field.number in texts and field.wire_type == _BYTES:
            try:
                texts[field.number] = content[field.start : field.end].decode("utf-8")
            except UnicodeDecodeError:
                raise OnnxFileError(
                    "the external data of a tensor is described in bytes that are no text"
                ) from None
    return texts[1], texts[2]


def _read_entries(told: dict[str, str], count: int) -> ExternalData:
    if len(told) != count or "location" not in told or not told.keys() <= _KEYS:
        raise OnnxFileError(
            "the external data of a tensor is not described by a location, an offset and a length"
        )
    offset, length = (_number(name, told[name]) if name in told else None for name in ("offset", "length"))
    return ExternalData(told["location"], offset or 0, length)


def _number(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise OnnxFileError(f"the {name} of a tensor's external data is {text!a:.40}, not a number of bytes")
    return int(text)


def _fields(content: mmap.mmap, start: int, end: int) -> Iterator[_Field]:
    """Yield the fields of the message from `start` to `end`, as protobuf's wire format has them."""
    at = start
    while at < end:
        tag, at = _varint(content, at, end)
        number, wire_type = tag >> 3, tag & 7
        match wire_type:
            case 0:
                value, after = at, _varint(content, at, end)[1]
            case 1:
                value, after = at, at + 8
            case 2:
                size, value = _varint(content, at, end)
                after = value + size
            case 5:
                value, after = at, at + 4
            case _:
                raise OnnxFileError("it is not an ONNX model, or it is damaged")
        if after > end or not number:
            raise OnnxFileError("it is not an ONNX model, or it is cut short")
        yield _Field(number, wire_type, value, after)
        at = after


def _varint(content: mmap.mmap, at: int, end: int) -> tuple[int, int]:
    """Return the number that begins at `at`, and the index behind it."""
    value = shift = 0
    for index in range(at, min(end, at + _MAX_VARINT_BYTES)):
        byte = content[index]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, index + 1
        shift += 7
    raise OnnxFileError("it is not an ONNX model, or it is cut short")
