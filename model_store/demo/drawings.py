"""The drawings of the world: fetched with npm, rendered once, and kept in a folder.

`python -m model_store.demo.drawings FOLDER` does both.
"""

import argparse
import io
import json
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.progress import track

from model_store.artifact import StoreError, sha256_of
from model_store.demo.vocabulary import Vocabulary

# Longest side of a rendered drawing, pixels.
SIDE = 144

# sha256 of each style's icons.json, in the version that package.json names.
DIGESTS = {
    "emojione": "e9a865faed523a7c3535b5319ae533d09fac1a62b4e96920eb178bb60e707e80",
    "fluent-emoji": "87f3336be6f46747d40d046a15ffa8b23809ff7a1a280b5d3521d3782fb85de7",
    "fluent-emoji-flat": "f5f4cf457c0db2ad5a2e42e033e02e0c87d10e43d0164cfffb3bb84914970a63",
    "fxemoji": "d8ef67b94a32d0abcd314d1c35db56178eaa8fa8ad71130e312f3460e307c2bf",
    "noto": "9eac6ef4e7ec122b6f0e7ac281d61008afdbc720d0ce861e398b939daaa347c6",
    "noto-v1": "ce70d8aa90345cf389875c3571ecd245bd943401822a0c5a0f62336bf8487333",
    "openmoji": "7075331faab544067dbff4236471dd378bb5410aa05799a8a343c9ebf5c5984c",
    "twemoji": "5d5d820790565b764f2728675d487c9ee4c1fc83916d8567d5aca8ba7527c242",
}
# What figures are given for; what else is trained on; and what no choice was made by.
STYLES = ("noto", "twemoji", "fluent-emoji", "fluent-emoji-flat")
FURTHER_STYLES = ("noto-v1", "emojione", "fxemoji")
UNSEEN_STYLE = "openmoji"

Sprite = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Style:
    """One style's drawings, read from disk as they are used: (h, w, 4) uint8 RGBA, by name."""

    name: str
    _bytes: NDArray[np.uint8]
    # Offset, height and width of each.
    _places: dict[str, tuple[int, int, int]]

    def __contains__(self, drawing: str) -> bool:
        return drawing in self._places

    def __getitem__(self, drawing: str) -> Sprite:
        offset, height, width = self._places[drawing]
        return np.asarray(self._bytes[offset : offset + 4 * height * width]).reshape(height, width, 4)


def load(folder: Path, styles: Sequence[str]) -> list[Style]:
    """The styles' drawings, fetched and rendered if they are not in the folder yet.

    Raises:
        StoreError: npm is not there or fails, or gives other drawings than those named here.
    """
    missing = [style for style in styles if not (folder / f"{style}.json").is_file()]
    if missing:
        _fetch(folder)
        for style in missing:
            _render(folder, style)
    return [_open(folder, style) for style in styles]


def _open(folder: Path, style: str) -> Style:
    places = json.loads((folder / f"{style}.json").read_text("utf-8"))
    data = np.memmap(folder / f"{style}.rgba", mode="r", dtype=np.uint8)
    return Style(style, data, {name: (a, b, c) for name, (a, b, c) in places.items()})


def _packages(folder: Path) -> Path:
    return folder / "npm" / "node_modules" / "@iconify-json"


def _fetch(folder: Path) -> None:
    if shutil.which("npm") is None:
        raise StoreError("the drawings come from npm packages, and there is no npm on this machine")
    place = folder / "npm"
    place.mkdir(parents=True, exist_ok=True)
    (place / "package.json").write_text(files("model_store.demo").joinpath("package.json").read_text("utf-8"))
    command = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--no-package-lock"]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
    if done.returncode:
        raise StoreError(f"npm could not fetch the drawings: {done.stderr.strip()[-300:]}")
    for style, digest in DIGESTS.items():
        if sha256_of(_packages(folder) / style / "icons.json") != digest:
            raise StoreError(f"npm gave other drawings of {style} than those that were trained on")


def _render(folder: Path, style: str) -> None:
    icons = json.loads((_packages(folder) / style / "icons.json").read_text("utf-8"))
    vocabulary = Vocabulary.load()
    wanted = [*vocabulary.noun_of, *vocabulary.unnamed]
    places: dict[str, tuple[int, int, int]] = {}
    offset = 0
    with (folder / f"{style}.rgba").open("wb") as file:
        for name, svg in track(list(_svgs(icons, wanted)), f"render {style}"):
            sprite = _sprite(svg)
            if sprite is not None:
                file.write(sprite.tobytes())
                places[name] = (offset, *sprite.shape[:2])
                offset += sprite.size
    # Written last: a folder that has it is whole.
    (folder / f"{style}.json").write_text(json.dumps(places), "utf-8")


def _svgs(icons: dict[str, Any], wanted: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Name and SVG of each drawing that the style has."""
    for name in wanted:
        found = name
        while found not in icons["icons"] and found in icons.get("aliases", {}):
            found = icons["aliases"][found]["parent"]
        icon = icons["icons"].get(found)
        if icon is None:
            continue
        left, top, width, height = (
            icon.get(key, icons.get(key, default))
            for key, default in (("left", 0), ("top", 0), ("width", 16), ("height", 16))
        )
        spaces = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
        yield name, f'<svg {spaces} viewBox="{left} {top} {width} {height}">{icon["body"]}</svg>'


def _sprite(svg: str) -> Sprite | None:
    """The drawing cropped to what is visible of it; None of an empty one."""
    import resvg_py

    # Drawn a little larger, so that the crop is about SIDE.
    content = bytes(
        resvg_py.svg_to_bytes(svg_string=svg, width=2 * SIDE, height=2 * SIDE, skip_system_fonts=True)
    )
    image = Image.open(io.BytesIO(content)).convert("RGBA")
    box = image.getchannel("A").point(lambda alpha: 255 if alpha > 24 else 0).getbbox()
    if box is None:
        return None
    image = image.crop(box)
    image.thumbnail((SIDE, SIDE), Image.Resampling.BOX)
    return np.asarray(image)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    load(parser.parse_args().folder, tuple(DIGESTS))


if __name__ == "__main__":
    main()
