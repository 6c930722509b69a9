"""Batches for every step of the training, made by the world."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from model_store.demo import clips, plan, scenes, tasks
from model_store.demo.student import Words
from model_store.demo.vocabulary import pick

# Training's seeds lie above those of evaluations, which are small numbers.
FIRST_SEED = 1 << 32
# Of one step of one process; no step needs more.
_SEEDS = 256


class Feed(Dataset[dict[str, Any]]):
    """The batch of each step by its number, for one of several processes."""

    def __init__(self, world: scenes.World, words: Words, seed: int, rank: int, ranks: int) -> None:
        self._world, self._words = world, words
        self._seed, self._rank, self._ranks = seed, rank, ranks
        self._names = sorted(world.vocabulary.own_names)

    def __len__(self) -> int:
        return plan.steps()

    def __getitem__(self, step: int) -> dict[str, Any]:
        """`kind`, and the arrays of `_crops`, `_pictures` or `_clips`."""
        kind = plan.kind_at(self._seed, step)
        generator = np.random.Generator(np.random.PCG64((self._seed, step, self._rank)))
        makes = {"crops": self._crops, "pictures": self._pictures, "clips": self._clips}
        return {"kind": kind} | makes[kind](step, generator)

    def _seeds(self, step: int, count: int) -> range:
        first = FIRST_SEED + self._seed * (1 << 40) + (step * self._ranks + self._rank) * _SEEDS
        return range(first, first + count)

    def _pictures(self, step: int, generator: np.random.Generator) -> dict[str, NDArray[Any]]:
        """`tasks.sample` stacked, and what every thing is called: `names` (N, THINGS), rows of `phrases`."""
        made = [
            scenes.scene(self._world, seed, side=pick(plan.SCENE_SIDES, generator), augment=True)
            for seed in self._seeds(step, plan.PICTURES)
        ]
        samples = [tasks.sample(one, self._world.vocabulary, self._words, generator) for one in made]
        arrays = {name: np.stack([each[name] for each in samples]) for name in samples[0]}
        own = [[self._own(thing) for thing in one.things[: tasks.THINGS]] for one in made]
        asked, phrases = self._asked([name for names in own for name in names], generator)
        rows = np.full((len(made), tasks.THINGS), -1, np.int64)
        for index, names in enumerate(own):
            rows[index, : len(names)] = [asked[name] for name in names]
        return arrays | {"names": rows, "phrases": phrases}

    def _own(self, thing: scenes.Thing) -> str:
        return self._world.vocabulary.own(thing.names) if thing.names else ""

    def _asked(
        self, own: list[str], generator: np.random.Generator
    ) -> tuple[dict[str, int], NDArray[np.int32]]:
        """The names that are told apart, each with its row of the tokens (C, T); that of no name is -1."""
        others = [self._names[i] for i in generator.permutation(len(self._names))]
        every = [name for name in dict.fromkeys([*own, *others]) if name]
        asked = every[: max(plan.PHRASES, len(set(own)))]
        tokens = [self._words(self._world.vocabulary.phrase(name, generator)) for name in asked]
        return {name: row for row, name in enumerate(asked)} | {"": -1}, np.stack(tokens)

    def _crops(self, step: int, generator: np.random.Generator) -> dict[str, NDArray[Any]]:
        """`pixels`, `masks` (a quarter of the side), `names` (rows of `tokens`), `tokens`.

        All of one side, which draws differ in; the smaller it is, the more of them.
        """
        side = pick(plan.CROP_SIDES, generator)
        count = round(plan.CROPS * (min(plan.CROP_SIDES) / side) ** 2)
        crops = [scenes.crop(self._world, seed, side=side, augment=True) for seed in self._seeds(step, count)]
        own = [self._own(thing) for _, thing in crops]
        asked, tokens = self._asked(own, generator)
        return {
            "pixels": np.stack([scene.pixels for scene, _ in crops]),
            "masks": np.stack([tasks.shrunk(thing.mask, side // 4) for _, thing in crops]),
            "names": np.array([asked[name] for name in own], np.int64),
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
            "pixels": np.stack([[tasks.stretched(frame) for frame in clip.pixels] for clip in made]),
            "masks": np.array(masks, np.uint8),
            "boxes": np.stack([[tasks.box_of(mask) for mask in clip.masks[0]] for clip in made]),
        }
