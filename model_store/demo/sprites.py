"""Single things before they are placed: shapes, colours and their names, and changes of style."""

import math

import cv2
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
    """The colour that the sprite clearly has, of the vocabulary's; None where several are in it, or none."""
    small = np.asarray(sprite.resize((24, 24), Image.Resampling.NEAREST)).astype(np.int64)
    opaque = small[small[..., 3] > 127][:, :3]
    if not len(opaque):
        return None
    seen = _seen(opaque)
    counts = {name: int((seen == name).sum()) for name in vocabulary.colours}
    best = max(counts, key=lambda name: counts[name])
    return best if counts[best] >= _CLEAR * len(opaque) else None


def _seen(rgb: NDArray[np.int64]) -> NDArray[np.str_]:
    """What each of (n, 3) pixels is called; empty where no colour fits, as with tan or turquoise."""
    high, low = rgb.max(1), rgb.min(1)
    chroma, middle = high - low, rgb.sum(1) - rgb.max(1) - rgb.min(1)
    # Degrees of hue, by the sixth of the circle that the order of the channels tells.
    part = 60 * (middle - low) // np.maximum(chroma, 1)
    red, green, blue = rgb.T
    hue = np.select(
        [
            (red == high) & (blue == low),
            (green == high) & (blue == low),
            (green == high),
            (blue == high) & (red == low),
            (blue == high),
        ],
        [part, 120 - part, 120 + part, 240 - part, 240 + part],
        360 - part,
    )
    reddish, crimson, warm = hue < 12, hue >= 342, (hue >= 12) & (hue < 42)
    # Where hues say nothing, and where they are too weak to be named but for pink.
    plain, weak = (chroma < _PALE) | (6 * chroma < high), 5 * chroma < 2 * high
    vivid = 25 * chroma >= 17 * high
    # The first that fits.
    named = (
        ("black", high < _DARK),
        ("white", (low > _BRIGHT) | (low > 200) & (chroma < 50)),
        ("gray", plain),
        ("brown", warm & ~weak & ((high < 170) | (high < 205) & (hue < 30) & ~vivid)),
        ("brown", reddish & (high < 120)),
        ("red", (reddish | crimson) & vivid),
        ("orange", warm & vivid & (high >= 200) & (hue < 35)),
        ("yellow", (hue >= 41) & (hue < 68) & ~weak & (high >= 150)),
        ("green", (hue >= 68) & (hue < 165) & ~weak),
        ("blue", (hue >= 195) & (hue < 250) & ~weak),
        ("purple", (hue >= 250) & (hue < 342) & ~weak & ((hue < 292) | (high < 170))),
        ("pink", ((hue >= 292) | reddish & weak) & (high > 200)),
    )
    return np.select([where for _, where in named], [name for name, _ in named], "")


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
        colours = ImageOps.posterize(_smoothed(colours), 2 + int(generator.integers(0, 2)))
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
    steps = _smoothed(ImageOps.grayscale(image)).filter(ImageFilter.FIND_EDGES)
    return _grown(steps.point(lambda level: 255 if level > 36 else 0), 1)


def _smoothed(image: Image.Image) -> Image.Image:
    """The median of every 5 x 5 pixels. OpenCV's is twenty times as fast as Pillow's, and equal."""
    return Image.fromarray(cv2.medianBlur(np.asarray(image), 5))


def _grown(mask: Image.Image, reach: int) -> Image.Image:
    """The highest value within `reach` pixels."""
    return Image.fromarray(cv2.dilate(np.asarray(mask), np.ones((2 * reach + 1,) * 2, np.uint8)))


def _outlined(sprite: Image.Image, generator: Generator) -> Image.Image:
    """A dark or a white line around it."""
    reach = int(generator.integers(1, 5))
    wide = ImageOps.expand(sprite, reach + 1, (0, 0, 0, 0))
    alpha = _grown(wide.getchannel("A"), reach)
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
