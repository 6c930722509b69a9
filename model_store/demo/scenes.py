"""Pictures of several things, with the truth about them. The same for a seed on every machine."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model_store.demo import drawings
from model_store.demo.backgrounds import background, light
from model_store.demo.sprites import Generator, colour_of, placed, restyled, shape
from model_store.demo.vocabulary import Vocabulary, pick

# A thing of which less is visible is taken out: pixels of a picture of 256 x 256, and the share of itself.
LEAST_PIXELS, _LEAST_SHARE = 60, 0.25
# How often a place is drawn anew when the thing would hide too much of another.
_TRIES = 8
_SHAPES = 0.25
_UNNAMED = 0.1
# Purposes that numbers are drawn for: the same seed gives unlike pictures for unlike purposes.
_SCENE, _CROP = 1, 2


@dataclass(frozen=True, slots=True)
class Thing:
    """One thing in a picture."""

    # Every concept that it is an instance of; none of a thing that no word is for.
    names: frozenset[str]
    # (S, S) bool: what is visible of it.
    mask: NDArray[np.bool_]
    # The drawing's name, or the shape's.
    drawing: str


@dataclass(frozen=True, slots=True)
class Scene:
    """A picture and the things in it, those in front last."""

    # (S, S, 3) uint8 RGB.
    pixels: NDArray[np.uint8]
    things: tuple[Thing, ...]


@dataclass(frozen=True, slots=True)
class Figure:
    """A thing before it is placed."""

    sprite: Image.Image
    names: frozenset[str]
    drawing: str


@dataclass(frozen=True, slots=True)
class World:
    """The vocabulary, and the drawings in some styles."""

    vocabulary: Vocabulary
    styles: Sequence[drawings.Style]

    @classmethod
    def load(cls, folder: Path, styles: Sequence[str]) -> "World":
        """See `drawings.load`. Without styles, a world of shapes alone."""
        return cls(Vocabulary.load(), drawings.load(folder, styles) if styles else [])


def figure(world: World, generator: Generator, noun: str | None = None, *, augment: bool = False) -> Figure:
    """A thing: a shape, an unnamed drawing, or one of a noun.

    Args:
        noun: which; None draws one.
        augment: changes its style.
    """
    vocabulary = world.vocabulary
    if not world.styles or (noun is None and generator.random() < _SHAPES):
        return _shape(vocabulary, generator)
    if noun is None and generator.random() < _UNNAMED:
        names: Sequence[str] = vocabulary.unnamed
    else:
        # Nouns are alike likely, however many drawings they have.
        names = vocabulary.drawings_of[noun or pick(list(vocabulary.nouns), generator)]
    name = pick(names, generator)
    having = [style for style in world.styles if name in style]
    sprite = Image.fromarray(pick(having, generator)[name])
    if augment and generator.random() < 0.6:
        sprite = restyled(sprite, generator)
    return Figure(sprite, vocabulary.names_of(name, colour_of(sprite, vocabulary)), name)


def _shape(vocabulary: Vocabulary, generator: Generator) -> Figure:
    name = pick(vocabulary.shapes, generator)
    colour = pick(list(vocabulary.colours), generator)
    sprite = shape(name, vocabulary.colours[colour], generator)
    return Figure(sprite, frozenset((name, f"{colour} {name}")), name)


def scene(
    world: World, seed: int, *, side: int = 256, nouns: Sequence[str] = (), augment: bool = False
) -> Scene:
    """The picture of that seed.

    Args:
        side: pixels.
        nouns: what is in it; empty draws that too.
        augment: changes the drawings' styles.
    """
    generator = np.random.Generator(np.random.PCG64((_SCENE, seed)))
    pixels = background(side, generator).copy()
    masks: list[NDArray[np.bool_]] = []
    whole: list[int] = []
    if nouns:
        figures = [figure(world, generator, noun, augment=augment) for noun in nouns]
    else:
        figures = _cast(world, generator, augment=augment)
    crowd = len(figures) > 8
    for one in figures:
        longest = round(side * _extent(generator, crowd=crowd))
        rgba = placed(one.sprite, longest, _degrees(generator), mirrored=bool(generator.random() < 0.4))
        place = _free(masks, whole, rgba, side, generator)
        own = blend(pixels, rgba, *place)
        for mask in masks:
            mask &= ~own
        masks.append(own)
        whole.append(int(own.sum()))
    least = LEAST_PIXELS * (side / 256) ** 2
    things = tuple(
        Thing(one.names, mask, one.drawing)
        for one, mask, full in zip(figures, masks, whole, strict=True)
        if mask.sum() >= max(least, _LEAST_SHARE * full)
    )
    return Scene(light(generator)(pixels), things)


def crop(world: World, seed: int, *, side: int, augment: bool = False) -> tuple[Scene, Thing]:
    """One named thing that fills most of a small picture."""
    generator = np.random.Generator(np.random.PCG64((_CROP, seed)))
    pixels = background(side, generator).copy()
    one = figure(world, generator, augment=augment)
    while not one.names:
        one = figure(world, generator, augment=augment)
    longest = round(side * generator.uniform(0.45, 0.95))
    rgba = placed(one.sprite, longest, _degrees(generator), mirrored=bool(generator.random() < 0.4))
    room = np.array([side - rgba.shape[1], side - rgba.shape[0]])
    x, y = (int(generator.integers(min(0, free), max(0, free) + 1)) for free in room)
    thing = Thing(one.names, blend(pixels, rgba, x, y), one.drawing)
    return Scene(light(generator)(pixels), (thing,)), thing


def _cast(world: World, generator: Generator, *, augment: bool) -> list[Figure]:
    """The things of one picture: often several of a kind, and some that are like others."""
    count = int(generator.integers(1, 7)) if generator.random() < 0.85 else int(generator.integers(7, 14))
    figures: list[Figure] = []
    while len(figures) < count:
        one = figure(world, generator, augment=augment)
        figures.append(one)
        noun = world.vocabulary.noun_of.get(one.drawing)
        draw = generator.random()
        if noun and draw < 0.3:
            more = 1 + int(generator.integers(0, 2))
            figures += [figure(world, generator, noun, augment=augment) for _ in range(more)]
        elif noun and draw < 0.4:
            figures.append(figure(world, generator, world.vocabulary.near(noun, generator), augment=augment))
        elif draw < 0.12:
            figures.append(one)
    order = generator.permutation(len(figures))[:count]
    return [figures[index] for index in order]


def _extent(generator: Generator, *, crowd: bool) -> float:
    """The longest side as a share of the picture's."""
    draw = float(generator.beta(1.6, 3.0))
    return 0.09 + (0.25 if crowd else 0.55) * draw


def _degrees(generator: Generator) -> float:
    draw = generator.random()
    if draw < 0.3:
        return 0.0
    return float(generator.uniform(-25, 25) if draw < 0.85 else generator.uniform(-180, 180))


def _free(
    masks: Sequence[NDArray[np.bool_]],
    whole: Sequence[int],
    rgba: NDArray[np.uint8],
    side: int,
    generator: Generator,
) -> tuple[int, int]:
    """A place where no other thing is hidden too much, if one is found; x and y of the left upper corner."""
    height, width = rgba.shape[:2]
    solid = rgba[..., 3] >= 128
    x = y = 0
    for _ in range(_TRIES):
        # Up to a fifth of it may reach over the edge.
        x = int(generator.integers(-width // 5, max(side - width + width // 5, -width // 5 + 1)))
        y = int(generator.integers(-height // 5, max(side - height + height // 5, -height // 5 + 1)))
        part, where = _inside(solid, x, y, side)
        hidden = [
            np.count_nonzero(mask) - np.count_nonzero(mask[where] & part) < 0.45 * full
            for mask, full in zip(masks, whole, strict=True)
        ]
        if not any(hidden):
            break
    return x, y


def blend(pixels: NDArray[np.uint8], rgba: NDArray[np.uint8], x: int, y: int) -> NDArray[np.bool_]:
    """Lays a sprite over the picture, in place, and gives where it now is: (S, S) bool.

    Args:
        x: the column of its left edge, which may lie outside; `y` likewise.
    """
    side = pixels.shape[0]
    part, where = _inside(rgba, x, y, side)
    mask = np.zeros((side, side), bool)
    alpha = part[..., 3:].astype(np.uint16)
    under = pixels[where].astype(np.uint16)
    pixels[where] = (part[..., :3] * alpha + under * (255 - alpha) + 127) // 255
    mask[where] = alpha[..., 0] >= 128
    return mask


def _inside(sprite: NDArray[Any], x: int, y: int, side: int) -> tuple[NDArray[Any], tuple[slice, slice]]:
    """What of a sprite lies in the picture, and in which rows and columns; nothing of one beyond it."""
    top, left = max(y, 0), max(x, 0)
    part = sprite[top - y : max(side - y, 0), left - x : max(side - x, 0)]
    return part, (slice(top, top + part.shape[0]), slice(left, left + part.shape[1]))
