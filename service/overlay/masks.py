"""Masks on a picture: filled, outlined, dashed."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageChops, ImageDraw, ImageFilter

from service.client.masks import array
from service.overlay.colours import WHITE, Colour
from service.overlay.files import displayed

_FILL_OPACITY = 0.42


@dataclass(frozen=True, slots=True)
class Shape:
    """A mask, cut to what is in it and a margin."""

    # 8-bit grey, 0 or 255; a part of the picture.
    mask: Image.Image
    # The part's top left corner in the picture, pixels.
    corner: tuple[int, int]


def shape_of(mask: Mapping[str, Any] | None, size: tuple[int, int], margin_px: int) -> Shape | None:
    """The shape of an answer's mask over a picture of `size` (width, height).

    None where there is nothing to paint: no mask, no foreground. Raises OSError if a PNG cannot be read.
    """
    if not mask:
        return None
    whole = _grey(mask).crop((0, 0, *size)).point(_binary)
    bounds = whole.getbbox()
    if bounds is None:
        return None
    corner = (max(0, bounds[0] - margin_px), max(0, bounds[1] - margin_px))
    end = (min(size[0], bounds[2] + margin_px), min(size[1], bounds[3] + margin_px))
    return Shape(whole.crop((*corner, *end)), corner)


def _grey(mask: Mapping[str, Any]) -> Image.Image:
    """8-bit grey. Of a PNG without arrays, which not every installation has."""
    if mask["format"] == "png":
        return displayed(base64.b64decode(mask["png"]), ("PNG",)).convert("L")
    return Image.fromarray(array(mask)).convert("L")


def fill(canvas: Image.Image, shape: Shape, colour: Colour) -> None:
    """Veil the shape in the colour."""
    canvas.paste(colour, shape.corner, shape.mask.point(_veiled))


def outline(canvas: Image.Image, shape: Shape, colour: Colour, line_px: int) -> None:
    """A line around the shape, and a thin white one around that: it stands out on any ground."""
    line = _grown(shape.mask, line_px)
    rim = _grown(line, max(1, line_px // 3))
    canvas.paste(WHITE, shape.corner, ImageChops.subtract(rim, line))
    canvas.paste(colour, shape.corner, ImageChops.subtract(line, shape.mask))


def dash(canvas: Image.Image, shape: Shape, colour: Colour, line_px: int) -> None:
    """A dashed line, white at its inner side, around the shape."""
    around = ImageChops.subtract(_grown(shape.mask, line_px), shape.mask)
    within = ImageChops.subtract(shape.mask, _shrunk(shape.mask, max(1, line_px // 2)))
    stripes = _stripes(shape.mask.size, 5 * line_px)
    canvas.paste(WHITE, shape.corner, ImageChops.multiply(within, stripes))
    canvas.paste(colour, shape.corner, ImageChops.multiply(around, stripes))


def _grown(mask: Image.Image, by_px: int) -> Image.Image:
    """By `by_px` to every side. A box blur costs the same for any radius; a maximum filter does not."""
    for radius in ((by_px, 0), (0, by_px)):
        mask = mask.filter(ImageFilter.BoxBlur(radius)).point(_any)
    return mask


def _shrunk(mask: Image.Image, by_px: int) -> Image.Image:
    return ImageChops.invert(_grown(ImageChops.invert(mask), by_px))


def _stripes(size: tuple[int, int], period_px: int) -> Image.Image:
    """Diagonal stripes, 8-bit grey, 255 for three fifths of each period."""
    stripes = Image.new("L", size)
    pen = ImageDraw.Draw(stripes)
    width, height = size
    for start in range(-height, width, 2 * period_px):
        end = start + round(1.2 * period_px)
        corners = ((start, height), (end, height), (end + height, 0), (start + height, 0))
        pen.polygon(corners, fill=255)
    return stripes


def _any(value: int) -> int:
    return 255 * (value > 0)


def _binary(value: int) -> int:
    return 255 * (value > 127)


def _veiled(value: int) -> int:
    return round(value * _FILL_OPACITY)
