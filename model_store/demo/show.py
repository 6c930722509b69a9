"""A sheet of scenes to look at: `python -m model_store.demo.show --drawings FOLDER --out sheet.png`."""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from model_store.demo import drawings
from model_store.demo.scenes import Scene, World, scene

_COLUMNS = 5


def _drawn(made: Scene) -> Image.Image:
    image = Image.fromarray(made.pixels).copy()
    for thing in made.things:
        solid = Image.fromarray(thing.mask.astype(np.uint8) * 255)
        edge = np.asarray(solid) - np.asarray(solid.filter(ImageFilter.MinFilter(3)))
        image.paste((255, 0, 255), (0, 0), Image.fromarray(edge))
        y, x = (int(places.min()) for places in thing.mask.nonzero())
        ImageDraw.Draw(image).text((x, y), max(sorted(thing.names), key=len, default="-"), fill=(255, 0, 0))
    return image


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--drawings", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--styles", nargs="*", default=drawings.STYLES)
    parser.add_argument("--augment", action="store_true")
    arguments = parser.parse_args()
    world = World.load(arguments.drawings, arguments.styles)
    sheet = Image.new("RGB", (256 * _COLUMNS, 256 * 3))
    for index in range(3 * _COLUMNS):
        made = scene(world, arguments.seed + index, augment=arguments.augment)
        sheet.paste(_drawn(made), (index % _COLUMNS * 256, index // _COLUMNS * 256))
    sheet.save(arguments.out)


if __name__ == "__main__":
    main()
