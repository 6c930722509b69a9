"""Pictures that tests draw for themselves."""

import io
from fractions import Fraction
from pathlib import Path

from PIL import Image, ImageDraw

from service.video import Writer


def street(width: int = 640, height: int = 480) -> Image.Image:
    """A drawn street scene, RGB: sky, road, two cars and a sun."""
    picture = Image.new("RGB", (width, height), (150, 195, 235))
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, height * 0.6, width, height), fill=(95, 95, 100))
    draw.ellipse((width * 0.78, height * 0.08, width * 0.9, height * 0.24), fill=(250, 215, 60))
    for left, colour in ((0.1, (200, 40, 45)), (0.55, (40, 70, 180))):
        x, y = width * left, height * 0.5
        draw.rectangle((x, y, x + width * 0.32, y + height * 0.2), fill=colour)
        draw.rectangle((x + width * 0.06, y - height * 0.1, x + width * 0.26, y), fill=colour)
        for wheel in (0.05, 0.22):
            draw.ellipse(
                (x + width * wheel, y + height * 0.14, x + width * (wheel + 0.08), y + height * 0.26),
                fill=(20, 20, 20),
            )
    return picture


def moving_square(index: int, width: int = 90, height: int = 60) -> Image.Image:
    """Frame `index` of a bright square that moves to the right over a dark picture."""
    picture = Image.new("RGB", (width, height), (40, 40, 40))
    left = 10 + 3 * index
    ImageDraw.Draw(picture).rectangle((left, 15, left + 29, 44), fill=(220, 180, 90))
    return picture


def moving_clip(folder: Path, frames: int) -> Path:
    """A video file of so many frames of that square."""
    path = folder / "clip.mp4"
    with Writer(path, Fraction(10), (90, 60)) as writer:
        for index in range(frames):
            writer.add(moving_square(index))
    return path


def encoded(picture: Image.Image, format: str = "JPEG", **options: object) -> bytes:
    """The picture as a file's bytes."""
    buffer = io.BytesIO()
    picture.save(buffer, format, **options)
    return buffer.getvalue()
