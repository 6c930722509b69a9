"""The options of `efficientsam3 segment` -> prompts of the API, and back into words."""

import base64
import io
import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from service.cli_common import CommandError

Prompt = dict[str, Any]

_POINT = "X,Y is expected, two numbers in pixels"
_BOX = "X0,Y0,X1,Y1 is expected, four numbers in pixels with X0 < X1 and Y0 < Y1"
_REGION = "X,Y or X0,Y0,X1,Y1 is expected, in pixels with X0 < X1 and Y0 < Y1"
_PROMPTS = 'a JSON list of prompts is expected, such as [{"text": "truck"}]'
# A mask's file in one of these is 8-bit; the others Pillow would cut to 8 bits without a word.
_MASK_MODES = ("1", "L", "LA", "P", "RGB", "RGBA")


def concepts(texts: Sequence[str], exemplars: Sequence[str], not_exemplars: Sequence[str]) -> list[Prompt]:
    """One prompt per text; the exemplars belong to the one text, or make a concept of their own.

    Raises CommandError that names the option.
    """
    for text in texts:
        if not text.strip():
            raise _wrong("--text", text, "a noun phrase is expected")
    shown = [
        *(_exemplar("--exemplar", each, True) for each in exemplars),
        *(_exemplar("--not-exemplar", each, False) for each in not_exemplars),
    ]
    if not shown:
        return [{"text": text} for text in texts]
    if len(texts) > 1:
        raise CommandError("exemplars belong to one --text; for several, use --prompts", usage=True)
    return [{**({"text": texts[0]} if texts else {}), "exemplars": shown}]


def objects(
    points: Sequence[str], not_points: Sequence[str], boxes: Sequence[str], masks: Sequence[Path]
) -> list[Prompt]:
    """All points, one box and one mask make one object; several boxes, or several masks, one object each.

    Raises CommandError that names the option.
    """
    clicks = [
        *(_point("--point", each, True) for each in points),
        *(_point("--not-point", each, False) for each in not_points),
    ]
    framed: list[Prompt] = [{"box": _box("--box", each)} for each in boxes]
    masked: list[Prompt] = [{"mask": _mask(each)} for each in masks]
    if len(framed) <= 1 and len(masked) <= 1:
        one: Prompt = {**({"points": clicks} if clicks else {})}
        for part in (*framed, *masked):
            one.update(part)
        return [one] if one else []
    if clicks or (framed and masked):
        what = "--point" if clicks else "--mask"
        several = "--box" if len(framed) > 1 else "--mask"
        message = f"{what} with several {several}: which object is meant? Use --prompts"
        raise CommandError(message, usage=True)
    return framed + masked


def read(file: str) -> list[Prompt]:
    """The prompts of a JSON file, or of standard input ("-"). The server checks what is in them.

    Raises CommandError that names the option.
    """
    try:
        content = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        prompts = json.loads(content)
    except OSError as error:
        raise CommandError(f"--prompts {file}: {error.strerror}", usage=True) from error
    except (ValueError, RecursionError) as error:
        raise CommandError(f"--prompts {file}: {_PROMPTS}; it is no JSON: {error}", usage=True) from error
    if not isinstance(prompts, list) or not prompts or not all(isinstance(each, dict) for each in prompts):
        raise CommandError(f"--prompts {file}: {_PROMPTS}", usage=True)
    return prompts


def in_words(prompt: Mapping[str, Any]) -> str:
    """A prompt that the server has understood, for people: "truck", "box 425,300,700,500", "2 points"."""
    parts = [prompt["text"]] if prompt.get("text") else []
    exemplars = prompt.get("exemplars") or []
    if len(exemplars) == 1:
        region = exemplars[0].get("box") or _xy(exemplars[0]["point"])
        parts.append(f"{_sign(exemplars[0])}exemplar {_numbers(region)}")
    elif exemplars:
        parts.append(f"{len(exemplars)} exemplars")
    if prompt.get("box"):
        parts.append(f"box {_numbers(prompt['box'])}")
    points = prompt.get("points") or []
    if len(points) == 1:
        parts.append(f"{_sign(points[0])}point {_numbers(_xy(points[0]))}")
    elif points:
        parts.append(f"{len(points)} points")
    if prompt.get("mask"):
        parts.append("mask")
    return ", ".join(parts)


def _xy(point: Mapping[str, Any]) -> tuple[float, float]:
    return point["x"], point["y"]


def _sign(mark: Mapping[str, Any]) -> str:
    return "" if mark.get("positive", True) else "not-"


def _numbers(values: Sequence[float]) -> str:
    return ",".join(f"{value:g}" for value in values)


def _point(option: str, value: str, positive: bool) -> dict[str, Any]:
    numbers = _parsed(value)
    if len(numbers) != 2:
        raise _wrong(option, value, _POINT)
    return {"x": numbers[0], "y": numbers[1], "positive": positive}


def _box(option: str, value: str, expected: str = _BOX) -> list[float]:
    numbers = _parsed(value)
    if len(numbers) != 4 or not (numbers[0] < numbers[2] and numbers[1] < numbers[3]):
        raise _wrong(option, value, expected)
    return numbers


def _exemplar(option: str, value: str, positive: bool) -> dict[str, Any]:
    numbers = _parsed(value)
    if len(numbers) == 2:
        return {"point": {"x": numbers[0], "y": numbers[1]}, "positive": positive}
    return {"box": _box(option, value, _REGION), "positive": positive}


def _parsed(value: str) -> list[float]:
    """The finite numbers between the commas; none if one of them is no number."""
    try:
        numbers = [float(each) for each in value.split(",")]
    except ValueError:
        return []
    return numbers if all(map(math.isfinite, numbers)) else []


def _mask(file: Path) -> dict[str, Any]:
    """The API's mask of a PNG file, as 8-bit grey 0 and 255."""
    from service.overlay.files import displayed

    try:
        picture = displayed(file.read_bytes(), ("PNG",))
    except OSError as error:
        raise _wrong("--mask", str(file), f"a PNG file is expected; {error.strerror or error}") from error
    if picture.mode not in _MASK_MODES:
        raise _wrong("--mask", str(file), f"8 bits are expected, not Pillow's mode {picture.mode}")
    grey = picture.convert("L").point(lambda value: 255 * (value > 127))
    if not grey.getbbox():
        raise _wrong("--mask", str(file), "no pixel of it is above 127")
    encoded = io.BytesIO()
    grey.save(encoded, "PNG")
    png = base64.b64encode(encoded.getvalue()).decode()
    return {"format": "png", "size": [grey.height, grey.width], "png": png}


def _wrong(option: str, value: str, expected: str) -> CommandError:
    return CommandError(f"{option} {value!r}: {expected}", usage=True)
