"""The sample pictures and clips, with the truth: `python -m model_store.demo.samples --drawings FOLDER`.

`samples.json` says of every file what is in it: of each thing its names and its mask, run-length encoded as
COCO does it, in a clip a mask per frame.
"""

import argparse
import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco

from model_store.demo import drawings
from model_store.demo.clips import clip
from model_store.demo.scenes import World, scene

FOLDER = Path(__file__).parent.parent / "samples"
_SIDE = 384
# By name: a seed, and the nouns to be drawn; none for whatever the seed gives.
_PICTURES: dict[str, tuple[int, tuple[str, ...]]] = {
    "pets": (123, ("dog", "dog", "cat", "rabbit", "bone")),
    "fruit": (105, ("apple", "apple", "banana", "pear", "strawberry", "lemon")),
    "street": (110, ("car", "car", "bus", "bicycle", "traffic light", "tree")),
    "farm": (106, ("cow", "pig", "sheep", "sheep", "chicken", "tractor")),
    "shapes": (107, ()),
}
_CLIPS = {"birds-and-bears": 8, "traffic-lights": 4}
_FRAMES, _PER_SECOND = 32, 8


def _truth(masks: list[NDArray[np.bool_]]) -> list[dict[str, Any]]:
    encoded = [coco.encode(np.asfortranarray(mask.astype(np.uint8))) for mask in masks]
    return [{"size": one["size"], "counts": one["counts"].decode()} for one in encoded]


def _picture(world: World, folder: Path, name: str) -> dict[str, Any]:
    seed, nouns = _PICTURES[name]
    made = scene(world, seed, side=_SIDE, nouns=nouns)
    Image.fromarray(made.pixels).save(folder / f"{name}.jpg", quality=92, optimize=True)
    things = [
        {"names": sorted(thing.names), "mask": mask}
        for thing, mask in zip(made.things, _truth([thing.mask for thing in made.things]), strict=True)
    ]
    return {"file": f"{name}.jpg", "things": things}


def _clip(world: World, folder: Path, name: str, seed: int) -> dict[str, Any]:
    made = clip(world, seed, _FRAMES)
    path = folder / f"{name}.mp4"
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(_PER_SECOND), options={"crf": "20"})
        stream.height, stream.width = made.pixels.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for pixels in made.pixels:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    things = [
        {"names": sorted(names), "masks": _truth(list(made.masks[:, index]))}
        for index, names in enumerate(made.names)
    ]
    return {"file": path.name, "frames": _FRAMES, "things": things}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--drawings", type=Path, required=True, help="folder of the rendered drawings")
    parser.add_argument("--out", type=Path, default=FOLDER)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    world = World.load(arguments.drawings, drawings.STYLES)
    made = {
        "pictures": {name: _picture(world, arguments.out, name) for name in _PICTURES},
        "clips": {name: _clip(world, arguments.out, name, seed) for name, seed in _CLIPS.items()},
    }
    (arguments.out / "samples.json").write_text(json.dumps(made) + "\n", "utf-8")


if __name__ == "__main__":
    main()
