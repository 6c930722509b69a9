"""Drawing an answer on its picture."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont, ImageOps

from service.client import Answer, Segment

Colour = tuple[int, int, int]

# Far apart in hue, alike in lightness, and none of them a colour that skin, sky or grass often has.
_COLOURS: tuple[Colour, ...] = (
    (0, 166, 255),
    (255, 176, 0),
    (232, 62, 220),
    (0, 201, 136),
    (255, 70, 90),
    (151, 71, 255),
    (255, 109, 31),
    (0, 196, 204),
    (43, 92, 255),
    (150, 200, 0),
)
_WHITE: Colour = (255, 255, 255)
_FILL_OPACITY = 0.42


@dataclass(frozen=True, slots=True)
class _Shape:
    # 8-bit grey, 0 or 255; a part of the picture.
    mask: Image.Image
    # The part's top left corner in the picture, pixels.
    corner: tuple[int, int]


def draw(picture: bytes, answer: Answer) -> Image.Image:
    """The picture as displayed, (height, width) RGB, with every segment's mask, box, label and score.

    Masks must be PNG (`mask_format="png"`) or absent. One prompt: a colour per instance; several: a colour
    per prompt. Raises OSError if `picture` cannot be read.
    """
    canvas = _opened(picture)
    # Line width in pixels: 2 on a small picture, 3 on one of 2 megapixels, 6 on one of 12.
    line_px = max(2, round(max(canvas.size) / 650))
    painted = _coloured(answer.results)
    shapes = [
        (shape, colour) for segment, colour in painted if (shape := _shape(segment, canvas.size, line_px))
    ]
    # The smallest is painted last: what lies within another stays visible.
    shapes.sort(key=lambda pair: -pair[0].mask.width * pair[0].mask.height)
    for shape, colour in shapes:
        canvas.paste(colour, shape.corner, shape.mask.point(_veiled))
    for shape, colour in shapes:
        _outline(canvas, shape, colour, line_px)
    pen = ImageDraw.Draw(canvas)
    for segment, colour in reversed(painted):
        pen.rectangle(segment.box_xyxy, outline=colour, width=max(1, line_px // 2))
    font = ImageFont.load_default(size=max(12, round(max(canvas.size) / 65)))
    taken: list[tuple[float, float, float, float]] = []
    for segment, colour in painted:
        _write_label(pen, canvas.size, segment, colour, font, taken)
    return canvas


def _opened(picture: bytes) -> Image.Image:
    with Image.open(io.BytesIO(picture)) as opened:
        return ImageOps.exif_transpose(opened).convert("RGB")


def _coloured(results: Sequence[Sequence[Segment]]) -> list[tuple[Segment, Colour]]:
    by_prompt = len(results) > 1
    pairs = [
        (segment, _COLOURS[(prompt if by_prompt else place) % len(_COLOURS)])
        for prompt, segments in enumerate(results)
        for place, segment in enumerate(segments)
    ]
    return sorted(pairs, key=lambda pair: -pair[0].score)


def _shape(segment: Segment, size: tuple[int, int], margin_px: int) -> _Shape | None:
    """The segment's mask, cut to what is in it and a margin; None where there is nothing to paint."""
    if not segment.mask or segment.mask["format"] != "png":
        return None
    with Image.open(io.BytesIO(base64.b64decode(segment.mask["png"]))) as opened:
        whole = opened.convert("L").point(_binary)
    bounds = whole.getbbox()
    if bounds is None:
        return None
    corner = (max(0, bounds[0] - 2 * margin_px), max(0, bounds[1] - 2 * margin_px))
    end = (min(size[0], bounds[2] + 2 * margin_px), min(size[1], bounds[3] + 2 * margin_px))
    return _Shape(whole.crop((*corner, *end)), corner)


def _outline(canvas: Image.Image, shape: _Shape, colour: Colour, line_px: int) -> None:
    """A line around the shape, and a thin white one around that: it stands out on any ground."""
    line = _grown(shape.mask, line_px)
    rim = _grown(line, max(1, line_px // 3))
    canvas.paste(_WHITE, shape.corner, ImageChops.subtract(rim, line))
    canvas.paste(colour, shape.corner, ImageChops.subtract(line, shape.mask))


def _grown(mask: Image.Image, by_px: int) -> Image.Image:
    for _ in range(by_px):
        mask = mask.filter(ImageFilter.MaxFilter(3))
    return mask


def _binary(value: int) -> int:
    return 255 * (value > 127)


def _veiled(value: int) -> int:
    return round(value * _FILL_OPACITY)


def _write_label(
    pen: ImageDraw.ImageDraw,
    size: tuple[int, int],
    segment: Segment,
    colour: Colour,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    taken: list[tuple[float, float, float, float]],
) -> None:
    """A plate above the box, moved where it would leave the picture or hide another."""
    text = f"{segment.label} {segment.score:.2f}".strip()
    left, top, right, bottom = pen.textbbox((0, 0), text, font=font)
    pad = max(2, (bottom - top) // 4)
    width, height = right - left + 2 * pad, bottom - top + 2 * pad
    x = min(max(0.0, segment.box_xyxy[0]), max(0.0, size[0] - width))
    y = segment.box_xyxy[1] - height
    y = y if y >= 0 else max(0.0, segment.box_xyxy[1])
    while (
        any(_overlap((x, y, x + width, y + height), other) for other in taken) and y + 2 * height <= size[1]
    ):
        y += height
    taken.append((x, y, x + width, y + height))
    pen.rectangle((x, y, x + width, y + height), fill=colour)
    pen.text((x + pad - left, y + pad - top), text, font=font, fill=_ink(colour))


def _overlap(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _ink(colour: Colour) -> Colour:
    """Black or white, whichever is legible on `colour` (Rec. 709 luma)."""
    luma = 0.2126 * colour[0] + 0.7152 * colour[1] + 0.0722 * colour[2]
    return (0, 0, 0) if luma > 130 else (255, 255, 255)
