"""What the things stand before."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from model_store.demo.vocabulary import pick

Generator = np.random.Generator
Pixels = NDArray[np.uint8]


def background(side: int, generator: Generator) -> Pixels:
    """(side, side, 3) uint8 RGB."""
    kind = pick(_KINDS, generator)
    image = kind(side, generator)
    if generator.random() < 0.3:
        image = Image.blend(image, _clouds(side, generator), 0.25)
    pixels: Pixels = np.asarray(image)
    return pixels


def _rgb(generator: Generator) -> tuple[int, int, int]:
    """Mostly muted, sometimes strong."""
    grey = int(generator.integers(20, 245))
    spread = 25 if generator.random() < 0.5 else 110
    red, green, blue = (
        int(np.clip(grey + generator.integers(-spread, spread + 1), 0, 255)) for _ in range(3)
    )
    return red, green, blue


def _flat(side: int, generator: Generator) -> Image.Image:
    return Image.new("RGB", (side, side), _rgb(generator))


def _grid(cells: int, side: int, generator: Generator, smooth: Image.Resampling) -> Image.Image:
    """Random colours around one or between two, on a grid, made larger."""
    ends = np.array([_rgb(generator), _rgb(generator)])
    share = generator.random((cells, cells, 1))
    values = ends[0] + share * (ends[1] - ends[0])
    return Image.fromarray(values.astype(np.uint8)).resize((side, side), smooth)


def _gradient(side: int, generator: Generator) -> Image.Image:
    return _grid(2, side, generator, Image.Resampling.BILINEAR)


def _clouds(side: int, generator: Generator) -> Image.Image:
    coarse = _grid(int(generator.integers(3, 9)), side, generator, Image.Resampling.BICUBIC)
    fine = _grid(int(generator.integers(16, 65)), side, generator, Image.Resampling.BILINEAR)
    return Image.blend(coarse, fine, 0.15 + 0.3 * float(generator.random()))


def _checks(side: int, generator: Generator) -> Image.Image:
    a, b = _rgb(generator), _rgb(generator)
    width = int(generator.integers(8, 65))
    rows, columns = np.mgrid[0:side, 0:side]
    odd = (columns // width) % 2 if generator.random() < 0.5 else (columns // width + rows // width) % 2
    if generator.random() < 0.5:
        odd = odd.T
    return Image.fromarray(np.array([a, b], np.uint8)[odd])


def _clutter(side: int, generator: Generator) -> Image.Image:
    """Blurred pieces of many colours, like a photograph out of focus."""
    image = _gradient(side, generator)
    pencil = ImageDraw.Draw(image)
    for _ in range(int(generator.integers(4, 22))):
        x, y = generator.integers(-20, side, 2)
        w, h = generator.integers(10, side // 2, 2)
        box = (int(x), int(y), int(x + w), int(y + h))
        if generator.random() < 0.5:
            pencil.ellipse(box, fill=_rgb(generator))
        else:
            pencil.polygon([(box[0], box[1]), (box[2], box[1]), (int(x), box[3])], fill=_rgb(generator))
    return image.filter(ImageFilter.BoxBlur(float(generator.integers(3, 11))))


def _landscape(side: int, generator: Generator) -> Image.Image:
    """Sky, hills and ground; or a wall and a floor."""
    image = _gradient(side, generator)
    pencil = ImageDraw.Draw(image)
    level = int(side * generator.uniform(0.35, 0.75))
    for _ in range(int(generator.integers(1, 4))):
        left, right = (int(level + generator.integers(-side // 8, side // 8)) for _ in range(2))
        middle = (int(side * generator.random()), int(level - generator.integers(-10, side // 5)))
        pencil.polygon([(0, left), middle, (side, right), (side, side), (0, side)], fill=_rgb(generator))
        level += int(generator.integers(10, 50))
    return image.filter(ImageFilter.BoxBlur(1)) if generator.random() < 0.5 else image


_KINDS: tuple[Callable[[int, Generator], Image.Image], ...] = (
    _flat,
    _gradient,
    _clouds,
    _checks,
    _clutter,
    _clutter,
    _landscape,
    _landscape,
)


def light(generator: Generator) -> Callable[[Pixels], Pixels]:
    """A light to see pictures in: brightness, contrast, a cast, noise and blur, all of them slight.

    Noise is new for every picture, the rest the same for all.
    """
    gain = generator.uniform(0.82, 1.15) * generator.uniform(0.95, 1.05, 3)
    shift = generator.uniform(-14, 14)
    steps = np.arange(256)
    table = np.concatenate([np.clip(steps * own + shift, 0, 255).astype(np.uint8) for own in gain]).tolist()
    blurred = generator.random() < 0.15
    spread = int(generator.integers(2, 9)) if generator.random() < 0.3 else 0

    def shown(pixels: Pixels) -> Pixels:
        image = Image.fromarray(pixels).point(table)
        made = np.asarray(image.filter(ImageFilter.BoxBlur(1)) if blurred else image)
        if spread:
            noise = generator.integers(-spread, spread + 1, made.shape, dtype=np.int16)
            made = np.clip(made + noise, 0, 255).astype(np.uint8)
        return made

    return shown
