"""Drawing an answer on its picture: what was asked, and what was found."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageDraw

from service.client import Answer, Frame, Prompt, Segment
from service.overlay import marks, masks
from service.overlay.colours import Colour, colour_of
from service.overlay.files import displayed
from service.overlay.labels import Labels


@dataclass(frozen=True, slots=True)
class _Painted:
    segment: Segment
    colour: Colour
    # Index of its prompt in the request.
    prompt: int
    # One of an object's further masks: outlined only, or they would hide the best.
    candidate: bool


@dataclass(frozen=True, slots=True)
class _Scale:
    """Sizes in pixels that suit a picture, from a thumbnail to 100 megapixels."""

    line_px: int
    box_px: int
    font_px: int
    badge_radius_px: int

    @classmethod
    def of(cls, size: tuple[int, int]) -> "_Scale":
        side_px = math.sqrt(size[0] * size[1])
        return cls(
            line_px=max(2, round(side_px / 500)),
            box_px=max(1, round(side_px / 850)),
            font_px=max(12, round(side_px / 58)),
            badge_radius_px=max(7, round(side_px / 85)),
        )


def draw(picture: bytes, answer: Answer | Frame, prompts: Sequence[Prompt] = ()) -> Image.Image:
    """The picture as displayed, (height, width) RGB, with every segment's mask, box, label and score.

    Masks as PNG (`mask_format="png"`) need nothing more, other formats the extra `client`. `prompts`: those
    of the request, drawn where given: points and exemplars with their sign, boxes dashed, a PNG mask's
    contour dashed. One prompt: a colour per segment; several: a colour per prompt; of a frame: per object.
    Of an object's several masks the first is filled and the others are outlined. Raises OSError if
    `picture` or a mask cannot be read.
    """
    if isinstance(answer, Frame):
        answer = _as_answer(answer)
    canvas = displayed(picture).convert("RGB")
    scale = _Scale.of(canvas.size)
    painted = list(_painted(answer, prompts))
    _paint_masks(canvas, painted, scale.line_px)
    pen = ImageDraw.Draw(canvas)
    for each in reversed(painted):
        if not each.candidate:
            width = scale.box_px if each.segment.mask else scale.line_px
            pen.rectangle(each.segment.box_xyxy, outline=each.colour, width=width)
    labels = Labels(canvas, scale.font_px)
    several = len(answer.results) > 1
    for index, prompt in enumerate(prompts):
        _mark(canvas, prompt, colour_of(index if several else 0), scale, labels)
    for each in painted:
        labels.reserve_if_small(each.segment.box_xyxy)
    for each in painted:
        labels.write(each.segment, f"prompt {each.prompt + 1}", each.colour)
    return canvas


def _as_answer(frame: Frame) -> Answer:
    """Each object is a result, whether it is seen or not: it keeps its colour."""
    results = tuple(
        (Segment(each.score, each.box_xyxy, each.area_px, each.label or f"object {each.id}", each.mask),)
        if each.box_xyxy
        else ()
        for each in frame.objects
    )
    return Answer("", "", frame.width_px, frame.height_px, results, frame.timings_ms, frame.raw)


def _painted(answer: Answer, prompts: Sequence[Prompt]) -> Iterator[_Painted]:
    """Every segment, the highest score first."""
    several = len(answer.results) > 1
    found = [
        _Painted(
            segment,
            colour_of(index if several else place),
            index,
            candidate=place > 0 and index < len(prompts) and marks.is_object(prompts[index]),
        )
        for index, segments in enumerate(answer.results)
        for place, segment in enumerate(segments)
    ]
    return iter(sorted(found, key=lambda each: -each.segment.score))


def _paint_masks(canvas: Image.Image, painted: Sequence[_Painted], line_px: int) -> None:
    # The smallest last: what lies within another stays visible. One by one: each may have 100 megapixels.
    for each in sorted(painted, key=lambda each: (each.candidate, -each.segment.area_px, each.segment.score)):
        if shape := masks.shape_of(each.segment.mask, canvas.size, 2 * line_px):
            if not each.candidate:
                masks.fill(canvas, shape, each.colour)
            masks.outline(canvas, shape, each.colour, line_px)


def _mark(
    canvas: Image.Image, prompt: Mapping[str, Any], colour: Colour, scale: _Scale, labels: Labels
) -> None:
    """Draw one prompt; labels keep off its points."""
    mask = prompt.get("mask")
    is_png = mask is not None and mask.get("format") == "png"
    if is_png and (shape := masks.shape_of(mask, canvas.size, 2 * scale.line_px)):
        masks.dash(canvas, shape, colour, scale.line_px)
    if box := prompt.get("box"):
        marks.dashed_box(canvas, box, colour, scale.line_px)
    for exemplar in prompt.get("exemplars", ()):
        if box := exemplar.get("box"):
            marks.dashed_box(canvas, box, marks.colour_of(exemplar), scale.line_px)
    for mark in marks.points_of(prompt, canvas.size, scale.badge_radius_px):
        labels.reserve(marks.badge(canvas, mark, scale.badge_radius_px))
