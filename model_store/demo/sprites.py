"""Single things before they are placed: shapes, colours and their names, and changes of style."""

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageOps

from model_store.demo.vocabulary import Vocabulary

Generator = np.random.Generator

# Sides of shapes are drawn at this size, then brought to theirs.
_DRAWN = 288
# Share of a drawing's pixels that must be of one colour for it to be called so.
_CLEAR = 0.6
_BRIGHT, _DARK, _PALE = 215, 60, 35


def shape(name: str, rgb: tuple[int, int, int], generator: Generator) -> Image.Image:
    """A shape of one colour with a little variation, RGBA, cropped to itself."""
    mask = Image.new("L", (_DRAWN, _DRAWN))
    pencil = ImageDraw.Draw(mask)
    _DRAW.get(name, _polygon)(pencil, name, generator)
    own = tuple(int(np.clip(level + generator.integers(-14, 15), 0, 255)) for level in rgb)
    sprite = Image.new("RGBA", mask.size, own)
    if generator.random() < 0.4:
        # A border of a darker or lighter tone.
        tone = 0.6 if generator.random() < 0.6 else 1.35
        border = tuple(min(255, int(level * tone)) for level in own)
        inner = mask.filter(ImageFilter.MinFilter(2 * int(generator.integers(3, 8)) + 1))
        sprite.paste(border, (0, 0), ImageChops.subtract(mask, inner))
    sprite.putalpha(mask)
    return sprite.crop(mask.getbbox())


def _polygon(pencil: ImageDraw.ImageDraw, name: str, generator: Generator) -> None:
    corners = {"triangle": 3, "diamond": 4, "pentagon": 5, "hexagon": 6, "star": 10}[name]
    radii = [140, 60 + int(generator.integers(0, 12))] if name == "star" else [140]
    narrow = 0.62 + 0.2 * generator.random() if name == "diamond" else 1.0
    points = []
    for corner in range(corners):
        angle = 2 * math.pi * corner / corners - math.pi / 2
        radius = radii[corner % len(radii)]
        points.append((144 + narrow * radius * math.cos(angle), 144 + radius * math.sin(angle)))
    pencil.polygon(points, fill=255)


def _heart(pencil: ImageDraw.ImageDraw, _: str, __: Generator) -> None:
    turns = [2 * math.pi * step / 90 for step in range(90)]
    xs = [16 * math.sin(turn) ** 3 for turn in turns]
    ys = [
        13 * math.cos(turn) - 5 * math.cos(2 * turn) - 2 * math.cos(3 * turn) - math.cos(4 * turn)
        for turn in turns
    ]
    pencil.polygon([(144 + 8.4 * x, 136 - 8.4 * y) for x, y in zip(xs, ys, strict=True)], fill=255)


def _ellipse(pencil: ImageDraw.ImageDraw, name: str, generator: Generator) -> None:
    half = 140 if name == "circle" else int(generator.integers(70, 96))
    pencil.ellipse((4, 144 - half, 284, 144 + half), fill=255)


def _box(pencil: ImageDraw.ImageDraw, name: str, generator: Generator) -> None:
    half = 140 if name == "square" else int(generator.integers(56, 92))
    pencil.rectangle((4, 144 - half, 284, 144 + half), fill=255)


def _cross(pencil: ImageDraw.ImageDraw, _: str, generator: Generator) -> None:
    half = int(generator.integers(30, 52))
    pencil.rectangle((4, 144 - half, 284, 144 + half), fill=255)
    pencil.rectangle((144 - half, 4, 144 + half, 284), fill=255)


_DRAW = {
    "heart": _heart,
    "circle": _ellipse,
    "ellipse": _ellipse,
    "square": _box,
    "rectangle": _box,
    "cross": _cross,
}


def colour_of(sprite: Image.Image, vocabulary: Vocabulary) -> str | None:
    """The colour that the sprite clearly has, of the vocabulary's; None where several are in it."""
    small = np.asarray(sprite.resize((24, 24), Image.Resampling.NEAREST)).astype(np.int64)
    opaque = small[small[..., 3] > 127][:, :3]
    if not len(opaque):
        return None
    names = list(vocabulary.colours)
    values = np.array([vocabulary.colours[name] for name in names])
    nearest = ((opaque[:, None] - values[None]) ** 2).sum(-1).argmin(1)
    high, low = opaque.max(1), opaque.min(1)
    pale = high - low < _PALE
    for name, of_it in (
        ("white", pale & (low > _BRIGHT)),
        ("black", high < _DARK),
        ("gray", pale & (low <= _BRIGHT) & (high >= _DARK)),
    ):
        nearest[of_it] = names.index(name)
    counts = np.bincount(nearest, minlength=len(names))
    best = int(counts.argmax())
    return names[best] if counts[best] >= _CLEAR * len(opaque) else None


def restyled(sprite: Image.Image, generator: Generator) -> Image.Image:
    """The sprite in another manner: flat colours, dark outlines, other hues, less colour."""
    alpha = sprite.getchannel("A")
    draw = generator.random(5)
    colours = sprite.convert("RGB")
    if draw[0] < 0.25:
        colours = _hues(colours, generator)
    if draw[1] < 0.15:
        grey = ImageOps.grayscale(colours).convert("RGB")
        colours = Image.blend(colours, grey, 0.3 + 0.6 * float(generator.random()))
    lines = draw[2] < 0.35
    if lines or draw[3] < 0.2:
        edges = _edges(colours) if lines else None
        colours = ImageOps.posterize(
            colours.filter(ImageFilter.MedianFilter(5)), 2 + int(generator.integers(0, 2))
        )
        if edges is not None:
            colours.paste((20, 20, 20), (0, 0), edges)
    flat = colours.convert("RGBA")
    flat.putalpha(alpha)
    return _outlined(flat, generator) if lines or draw[4] < 0.1 else flat


def _hues(image: Image.Image, generator: Generator) -> Image.Image:
    hue, saturation, value = image.convert("HSV").split()
    turn = int(generator.integers(0, 256))
    turned = hue.point(lambda level: (level + turn) % 256)
    return Image.merge("HSV", (turned, saturation, value)).convert("RGB")


def _edges(image: Image.Image) -> Image.Image:
    """Where lines would be drawn: steps of brightness, as a mask."""
    grey = ImageOps.grayscale(image).filter(ImageFilter.MedianFilter(5))
    steps = grey.filter(ImageFilter.FIND_EDGES)
    return steps.point(lambda level: 255 if level > 36 else 0).filter(ImageFilter.MaxFilter(3))


def _outlined(sprite: Image.Image, generator: Generator) -> Image.Image:
    """A dark or a white line around it."""
    reach = int(generator.integers(1, 5))
    wide = ImageOps.expand(sprite, reach + 1, (0, 0, 0, 0))
    alpha = wide.getchannel("A").filter(ImageFilter.MaxFilter(2 * reach + 1))
    tone = 245 if generator.random() < 0.12 else int(generator.integers(0, 50))
    line = Image.new("RGBA", wide.size, (tone, tone, tone, 255))
    line.putalpha(alpha)
    return Image.alpha_composite(line, wide)


def placed(sprite: Image.Image, longest: int, degrees: float, *, mirrored: bool) -> NDArray[np.uint8]:
    """(h, w, 4) uint8 RGBA: the sprite with its longest side `longest` pixels, turned."""
    scale = longest / max(sprite.size)
    size = (max(2, round(sprite.width * scale)), max(2, round(sprite.height * scale)))
    made = sprite.resize(size, Image.Resampling.BILINEAR)
    if mirrored:
        made = ImageOps.mirror(made)
    if degrees:
        made = made.rotate(degrees, Image.Resampling.BILINEAR, expand=True)
    return np.asarray(made)
