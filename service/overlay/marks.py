"""The marks of prompts: points and exemplars with their sign, dashed boxes."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageDraw

from service.overlay.colours import BLACK, WHITE, Colour

# Green and red of different lightness; the sign says the same.
POSITIVE: Colour = (0, 150, 80)
NEGATIVE: Colour = (220, 30, 45)
_SUPERSAMPLING = 4

Box = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Mark:
    """A sign at a place of the picture, pixels."""

    x: float
    y: float
    positive: bool


def is_object(prompt: Mapping[str, Any]) -> bool:
    """True: the prompt asks for one object. False: for every instance of a concept."""
    return not (prompt.get("text") or prompt.get("exemplars"))


def colour_of(mark: Mapping[str, Any]) -> Colour:
    """The colour of an exemplar or a point of the API."""
    return POSITIVE if mark.get("positive", True) else NEGATIVE


def points_of(prompt: Mapping[str, Any], size: tuple[int, int], radius_px: int) -> Iterator[Mark]:
    """Where a prompt's signs go: at its points, and at a corner of every exemplar's box.

    `size` is the picture's width and height; what lies outside of it is left out.
    """
    for point in prompt.get("points", ()):
        if _within(point["x"], point["y"], size):
            yield Mark(point["x"], point["y"], point.get("positive", True))
    for exemplar in prompt.get("exemplars", ()):
        positive = exemplar.get("positive", True)
        if point := exemplar.get("point"):
            if _within(point["x"], point["y"], size):
                yield Mark(point["x"], point["y"], positive)
        elif box := _clipped(exemplar["box"], size):
            # The top left corner is where the labels are.
            x = min(max(box[2], radius_px + 2), size[0] - radius_px - 3)
            y = min(max(box[1], radius_px + 2), size[1] - radius_px - 3)
            yield Mark(x, y, positive)


def badge(canvas: Image.Image, mark: Mark, radius_px: int) -> Box:
    """Draw a disc with a plus or a minus, a white rim and a dark line around it; the box it takes."""
    tile = _badge(radius_px, mark.positive)
    corner = (round(mark.x) - tile.width // 2, round(mark.y) - tile.height // 2)
    canvas.paste(tile, corner, tile)
    return (*corner, corner[0] + tile.width, corner[1] + tile.height)


def dashed_box(canvas: Image.Image, box_xyxy: Sequence[float], colour: Colour, line_px: int) -> None:
    """Draw the box's dashes, each with a white rim; what reaches over the edge is clipped to it."""
    box = _clipped(box_xyxy, canvas.size)
    if box is None:
        return
    x0, y0, x1, y1 = box
    pen = ImageDraw.Draw(canvas)
    dashes = [
        *((left, y, right, y) for y in (y0, y1) for left, right in _dashes(x0, x1, line_px)),
        *((x, top, x, bottom) for x in (x0, x1) for top, bottom in _dashes(y0, y1, line_px)),
    ]
    half = line_px // 2
    for margin, ink in ((half + max(1, line_px // 3), WHITE), (half, colour)):
        for left, top, right, bottom in dashes:
            pen.rectangle((left - margin, top - margin, right + margin, bottom + margin), fill=ink)


def _dashes(start: int, end: int, line_px: int) -> Iterator[tuple[int, int]]:
    """Dashes of about five lines' width from `start` to `end`, gaps of four between: a dash at either end."""
    dash_px, gap_px = 5 * line_px, 4 * line_px
    gaps = round((end - start - dash_px) / (dash_px + gap_px))
    if gaps < 1:
        yield start, end
        return
    step_px = (end - start - dash_px) / gaps
    for index in range(gaps + 1):
        left = round(start + index * step_px)
        yield left, left + dash_px


def _badge(radius_px: int, positive: bool) -> Image.Image:
    """RGBA. Drawn large and made small: its edges are smooth."""
    radius = radius_px * _SUPERSAMPLING
    side = 2 * radius + _SUPERSAMPLING
    tile = Image.new("RGBA", (side, side))
    pen = ImageDraw.Draw(tile)
    centre = side // 2
    for part, ink in ((1.0, BLACK), (0.93, WHITE), (0.75, POSITIVE if positive else NEGATIVE)):
        pen.circle((centre, centre), radius * part, fill=ink)
    arm, half = round(radius * 0.45), round(radius * 0.11)
    pen.rectangle((centre - arm, centre - half, centre + arm, centre + half), fill=WHITE)
    if positive:
        pen.rectangle((centre - half, centre - arm, centre + half, centre + arm), fill=WHITE)
    small = 2 * radius_px + 1
    return tile.resize((small, small), Image.Resampling.LANCZOS)


def _within(x: float, y: float, size: tuple[int, int]) -> bool:
    return 0 <= x <= size[0] and 0 <= y <= size[1]


def _clipped(box_xyxy: Sequence[float], size: tuple[int, int]) -> Box | None:
    x0, x1 = max(box_xyxy[0], 0), min(box_xyxy[2], size[0] - 1)
    y0, y1 = max(box_xyxy[1], 0), min(box_xyxy[3], size[1] - 1)
    return (round(x0), round(y0), round(x1), round(y1)) if x0 < x1 and y0 < y1 else None
