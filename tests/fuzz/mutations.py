"""Edits of JSON documents, protobuf messages and bytes, which hypothesis draws and shrinks."""

import copy
import json
from collections.abc import Callable, Sequence
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message
from hypothesis import strategies as st

Draw = st.DrawFn

# Replaced in the text of a JSON document by what Python's json cannot write.
_DEEP, _DIGITS, _INFINITE = "@deep@", "@digits@", "@infinite@"
_LITERALS = {
    _DEEP: b"[" * 2000 + b"]" * 2000,
    _DIGITS: b"9" * 4400,
    _INFINITE: b"1e999",
}
ODD: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    1,
    0.5,
    -0.0,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**32,
    2**53 + 1,
    2**63,
    2**64,
    -(2**63) - 1,
    1e-320,
    1e38,
    1e308,
    float("nan"),
    float("inf"),
    "",
    " ",
    "0",
    "rle",
    "png",
    "polygon",
    "logits",
    "none",
    "\0",
    "\ud800",
    "é猫🐶",
    "../../etc/passwd",
    "%00%2e%2e/",
    "{{7*7}}${7*7}%n%s",
    "A" * 1001,
    "sha256:" + "0" * 63 + "g",
    "unknown-variant",
    [],
    {},
    [[]],
    [0] * 300,
    [None] * 5000,
    {"text": "car"},
    _DEEP,
    _DIGITS,
    _INFINITE,
)
_NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0xFFFF, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF)
_TIMES = (2, 3, 40, 700, 5000)


def chosen(draw: Draw, choices: Sequence[Any]) -> Any:
    """One of them, by its index: hypothesis never prints or compares what may be long."""
    return choices[draw(st.integers(0, len(choices) - 1))]


@st.composite
def json_bodies(draw: Draw, seeds: Callable[[], Sequence[Any]], most: int = 3) -> bytes:
    """A seed's JSON with up to `most` edits of its values, and seldom a few of its bytes."""
    text = json_text(edited_json(draw, chosen(draw, seeds()), most))
    return edited_bytes(draw, text, 2) if draw(st.integers(0, 7)) == 7 else text


def json_text(document: Any) -> bytes:
    """The document as JSON, which may hold what no JSON holds."""
    text = json.dumps(document).encode()
    for name, literal in _LITERALS.items():
        text = text.replace(json.dumps(name).encode(), literal)
    return text


def edited_json(draw: Draw, document: Any, most: int = 3) -> Any:
    """A copy of the document with up to `most` values replaced, removed, repeated, renamed or swapped."""
    document = [copy.deepcopy(document)]
    for _ in range(draw(st.integers(0, most))):
        places = list(_places(document))
        parent, key = places[draw(st.integers(0, len(places) - 1))]
        _edit(draw, parent, key, places)
    return document[0] if document else None


def _places(value: Any) -> Any:
    """(container, key) of every value inside."""
    for key in list(value.keys() if isinstance(value, dict) else range(len(value))):
        yield value, key
        if isinstance(value[key], (dict, list)):
            yield from _places(value[key])


def _edit(draw: Draw, parent: Any, key: Any, places: list[Any]) -> None:
    match draw(st.integers(0, 5)):
        case 0 | 1:
            parent[key] = copy.deepcopy(chosen(draw, ODD))
        case 2:
            del parent[key]
        case 3 if isinstance(parent, list):
            times = draw(st.sampled_from(_TIMES))
            parent[key : key + 1] = [parent[key]] * (times if _small(parent[key]) else 2)
        case 3:
            parent[str(chosen(draw, ODD))[:40]] = parent.pop(key)
        case 4:
            other, there = places[draw(st.integers(0, len(places) - 1))]
            if isinstance(other, dict) == isinstance(there, str) and (
                isinstance(other, dict) or there < len(other)
            ):
                parent[key] = copy.deepcopy(other.get(there) if isinstance(other, dict) else other[there])
        case _ if isinstance(parent[key], str):
            parent[key] = edited_bytes(draw, parent[key].encode(errors="replace"), 2).decode("latin-1")
        case _:
            parent[key] = draw(st.one_of(st.integers(), st.floats(), st.text(max_size=8)))


def _small(value: Any) -> bool:
    return len(json.dumps(value)) < 300


@st.composite
def protobufs(draw: Draw, seeds: Callable[[], Sequence[Message]], most: int = 3) -> bytes:
    """A seed with up to `most` edits of its fields; where these make no message, edits of its bytes."""
    seed = chosen(draw, seeds())
    if draw(st.booleans()):
        changed = edited_json(draw, json_format.MessageToDict(seed, preserving_proto_field_name=True), most)
        try:
            return json_format.ParseDict(
                changed, type(seed)(), ignore_unknown_fields=True
            ).SerializeToString()
        except (json_format.ParseError, ValueError, TypeError, AttributeError, RecursionError, SystemError):
            pass
    return edited_bytes(draw, seed.SerializeToString(), most)


def edited_bytes(draw: Draw, data: bytes, most: int = 3) -> bytes:
    """`data` with up to `most` bytes or numbers set, and slices removed, inserted or repeated."""
    for _ in range(draw(st.integers(0, most))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        length = draw(st.integers(1, 16))
        match draw(st.integers(0, 5)):
            case 0:
                data = data[:at] + bytes([draw(st.integers(0, 255))]) + data[at + 1 :]
            case 1:
                number, order = draw(st.sampled_from(_NUMBERS)), draw(st.sampled_from(("big", "little")))
                data = data[:at] + number.to_bytes(4, order) + data[at + 4 :]
            case 2:
                data = data[:at] + data[at + length :]
            case 3:
                data = data[:at] + draw(st.binary(min_size=1, max_size=8)) + data[at:]
            case 4:
                data = (
                    data[:at] + data[at : at + length] * draw(st.sampled_from(_TIMES)) + data[at + length :]
                )
            case _:
                data = data[:at]
    return data
