"""How well the served student follows objects through fresh clips."""

from collections import defaultdict

import numpy as np
from rich.progress import track

from model_store.demo.clips import Clip, clip
from model_store.demo.scenes import World
from model_store.demo.served import Mask, Service
from model_store.demo.tasks import box_of

FRAMES, THINGS = 24, 3

Figures = dict[str, float]


def evaluate_clips(service: Service, world: World, seeds: range) -> Figures:
    """Mean J (the IoU of every object on every frame but the first; 1 where it is rightly seen nowhere)."""
    values: dict[str, list[float]] = defaultdict(list)
    for seed in track(seeds, "clips"):
        made = clip(world, seed, FRAMES, things=THINGS)
        found = _followed(service, made)
        for frame, masks in enumerate(found):
            if not frame:
                continue
            for mask, truth in zip(masks, made.masks[frame], strict=True):
                values["tracking: J"].append(_jaccard(mask, truth))
                name = "tracking: J where it is seen" if truth.any() else "tracking: rightly nowhere"
                values[name].append(_jaccard(mask, truth))
    return {name: float(np.mean(each)) for name, each in values.items()}


def _followed(service: Service, made: Clip) -> list[list[Mask]]:
    """Masks by frame and object, each shown by its box on the first frame."""
    side = made.pixels.shape[1]
    boxes = [[float(edge) for edge in box_of(mask) * side] for mask in made.masks[0]]
    prompts = [{"object": 1 + index, "box": box} for index, box in enumerate(boxes)]
    service.begin()
    found = []
    for frame, pixels in enumerate(made.pixels):
        masks = service.follow(pixels, prompts if not frame else [])
        found.append([masks.get(1 + index, np.zeros((side, side), bool)) for index in range(THINGS)])
    return found


def _jaccard(a: Mask, b: Mask) -> float:
    union = np.count_nonzero(a | b)
    return np.count_nonzero(a & b) / union if union else 1.0
