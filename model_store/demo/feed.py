"""Batches for every step of the training, made by the world."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from model_store.demo import clips, plan, scenes, tasks
from model_store.demo.student import Words
from model_store.demo.vocabulary import pick

# Training's seeds lie above those of evaluations, which are small numbers.
_FIRST_SEED = 1 << 32


class Feed(Dataset[dict[str, Any]]):
    """The batch of each step by its number, for one of several processes."""

    def __init__(self, world: scenes.World, words: Words, seed: int, rank: int, ranks: int) -> None:
        self._world, self._words = world, words
        self._seed, self._rank, self._ranks = seed, rank, ranks
        self._names = sorted(world.vocabulary.own_names)

    def __len__(self) -> int:
        return plan.steps()

    def __getitem__(self, step: int) -> dict[str, Any]:
        """`kind`, and arrays: `tasks.sample` stacked, or those of `_crops` or `_clips`."""
        kind = plan.kind_at(self._seed, step)
        generator = np.random.Generator(np.random.PCG64((self._seed, step, self._rank)))
        makes = {"crops": self._crops, "pictures": self._pictures, "clips": self._clips}
        return {"kind": kind} | makes[kind](step, generator)

    def _seeds(self, step: int, count: int) -> range:
        first = _FIRST_SEED + self._seed * (1 << 40) + (step * self._ranks + self._rank) * count
        return range(first, first + count)

    def _pictures(self, step: int, generator: np.random.Generator) -> dict[str, NDArray[Any]]:
        samples = [
            tasks.sample(
                scenes.scene(self._world, seed, augment=True), self._world.vocabulary, self._words, generator
            )
            for seed in self._seeds(step, plan.PICTURES)
        ]
        return {name: np.stack([each[name] for each in samples]) for name in samples[0]}

    def _crops(self, step: int, generator: np.random.Generator) -> dict[str, NDArray[Any]]:
        """`pixels`, `masks` (a quarter of the side), `names` (rows of `tokens`), `tokens`."""
        crops = [
            scenes.crop(self._world, seed, side=plan.CROP_SIDE, augment=True)
            for seed in self._seeds(step, plan.CROPS)
        ]
        own = [self._world.vocabulary.own(thing.names) for _, thing in crops]
        others = [self._names[i] for i in generator.permutation(len(self._names))]
        asked = list(dict.fromkeys([*own, *others]))[: max(plan.PHRASES, len(set(own)))]
        tokens = np.stack([self._words(self._world.vocabulary.phrase(name, generator)) for name in asked])
        quarter = plan.CROP_SIDE // 4
        return {
            "pixels": np.stack([scene.pixels for scene, _ in crops]),
            "masks": np.stack([tasks.shrunk(thing.mask, quarter) for _, thing in crops]),
            "names": np.array([asked.index(name) for name in own], np.int64),
            "tokens": tokens,
        }

    def _clips(self, step: int, generator: np.random.Generator) -> dict[str, NDArray[Any]]:
        """`pixels` (N, T, S, S, 3), `masks` (N, T, K, s, s), 0 or 1, `boxes` (N, K, 4) in the first frame."""
        made = [
            clips.clip(
                self._world,
                seed,
                plan.CLIP_FRAMES,
                things=plan.FOLLOWED,
                every=pick(plan.PACES, generator),
                augment=True,
            )
            for seed in self._seeds(step, plan.CLIPS)
        ]
        masks = [
            [[tasks.shrunk(mask, tasks.MASK_SIDE) >= 0.5 for mask in frame] for frame in clip.masks]
            for clip in made
        ]
        return {
            "pixels": np.stack([clip.pixels for clip in made]),
            "masks": np.array(masks, np.uint8),
            "boxes": np.stack([[tasks.box_of(mask) for mask in clip.masks[0]] for clip in made]),
        }
