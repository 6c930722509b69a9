"""A scene and what is asked of it, as arrays to train on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from model_store.demo.scenes import Scene, Thing
from model_store.demo.student import Words, sizes
from model_store.demo.vocabulary import Vocabulary, pick
from model_store.networks.geometry import PADDING

# Side of the true masks.
MASK_SIDE = 128
# Objects kept of a scene, concepts asked of it, and exemplar boxes of one concept.
THINGS, ROWS, EXEMPLARS = 12, 3, 3
# What the text encoder hears where a concept is shown and not named.
VISUAL = "visual"

Generator = np.random.Generator
Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Row:
    """One concept asked of a scene."""

    phrase: str
    # Boxes by index of the thing, and whether they show what is wanted.
    exemplars: tuple[tuple[int, bool], ...]
    # The things to be found, by index.
    wanted: frozenset[int]


def sample(scene: Scene, vocabulary: Vocabulary, words: Words, generator: Generator) -> Arrays:
    """The scene and the concepts asked of it, padded to fixed sizes.

    Returns:
        `pixels` (S, S, 3) uint8, S the student's side; `masks` (THINGS, MASK_SIDE, MASK_SIDE) uint8 0 or 1;
        `boxes` (THINGS, 4) float32 xyxy in 0..1; `real` (THINGS,) bool; `tokens` (ROWS, T) int32; `wanted`
        (ROWS, THINGS) bool; `exemplar_boxes` (ROWS, EXEMPLARS, 4) float32, `exemplar_labels`
        (ROWS, EXEMPLARS) int32.
    """
    things = scene.things[:THINGS]
    rows = [_row(things, vocabulary, generator) for _ in range(ROWS)]
    arrays = {"pixels": stretched(scene.pixels), **_things(things)}
    boxes = arrays["boxes"]
    exemplars = np.zeros((ROWS, EXEMPLARS, 4), np.float32)
    labels = np.full((ROWS, EXEMPLARS), PADDING, np.int32)
    wanted = np.zeros((ROWS, THINGS), bool)
    for index, row in enumerate(rows):
        wanted[index, sorted(row.wanted)] = True
        for place, (thing, positive) in enumerate(row.exemplars):
            exemplars[index, place] = jittered(boxes[thing], generator)
            labels[index, place] = positive
    tokens = np.stack([words(row.phrase) for row in rows])
    return arrays | {
        "tokens": tokens,
        "wanted": wanted,
        "exemplar_boxes": exemplars,
        "exemplar_labels": labels,
    }


def _things(things: Sequence[Thing]) -> Arrays:
    masks = np.zeros((THINGS, MASK_SIDE, MASK_SIDE), np.uint8)
    boxes = np.zeros((THINGS, 4), np.float32)
    boxes[:, 2:] = 1
    real = np.arange(THINGS) < len(things)
    for index, thing in enumerate(things):
        masks[index] = shrunk(thing.mask, MASK_SIDE) >= 0.5
        boxes[index] = box_of(thing.mask)
    return {"masks": masks, "boxes": boxes, "real": real}


def shrunk(mask: NDArray[np.bool_], side: int) -> NDArray[np.float32]:
    """(side, side): the share of each cell that is the mask's."""
    small: NDArray[Any] = cv2.resize(mask.astype(np.float32), (side, side), interpolation=cv2.INTER_AREA)
    return small


def stretched(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A picture (s, s, 3) no larger than the student's, made as large."""
    side = sizes().image_size
    large: NDArray[Any] = cv2.resize(pixels, (side, side), interpolation=cv2.INTER_LINEAR)
    return large


def box_of(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """xyxy in 0..1 around a mask that is not empty."""
    height, width = mask.shape
    y, x = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return np.array([x[0] / width, y[0] / height, (x[-1] + 1) / width, (y[-1] + 1) / height], np.float32)


def jittered(box: NDArray[np.float32], generator: Generator, share: float = 0.05) -> NDArray[np.float32]:
    """The box as a person would drag it: each edge moved by up to `share` of the side."""
    size = np.concatenate((box[2:] - box[:2],) * 2)
    moved = np.clip(box + size * generator.uniform(-share, share, 4), 0, 1)
    return moved.astype(np.float32)


def _row(things: Sequence[Thing], vocabulary: Vocabulary, generator: Generator) -> Row:
    draw = generator.random()
    named = [index for index, thing in enumerate(things) if thing.names]
    if named and draw < 0.50:
        return _named(things, named, vocabulary, generator)
    if named and draw < 0.75:
        return _shown(things, named, vocabulary, generator)
    return _absent(things, vocabulary, generator)


def _instances(things: Sequence[Thing], concept: str) -> frozenset[int]:
    return frozenset(index for index, thing in enumerate(things) if concept in thing.names)


def _named(things: Sequence[Thing], named: list[int], vocabulary: Vocabulary, generator: Generator) -> Row:
    thing = things[pick(named, generator)]
    # The most telling name half of the time: there are more of those to learn.
    own = vocabulary.own(thing.names)
    concept = own if generator.random() < 0.5 else pick(sorted(thing.names), generator)
    return Row(vocabulary.phrase(concept, generator), (), _instances(things, concept))


def _shown(things: Sequence[Thing], named: list[int], vocabulary: Vocabulary, generator: Generator) -> Row:
    """A concept shown by boxes: alone, with its name, or among others of a wider one."""
    first = pick(named, generator)
    concept = vocabulary.own(things[first].names)
    wanted = _instances(things, concept)
    others = [index for index in range(len(things)) if index not in wanted]
    more = [index for index in sorted(wanted) if index != first]
    boxes = [(first, True)]
    if more and generator.random() < 0.4:
        boxes.append((pick(more, generator), True))
    if others and generator.random() < 0.4:
        boxes.append((pick(others, generator), False))
    phrase = VISUAL if generator.random() < 0.7 else vocabulary.phrase(concept, generator)
    return Row(phrase, tuple(boxes), wanted)


def _absent(things: Sequence[Thing], vocabulary: Vocabulary, generator: Generator) -> Row:
    present = frozenset().union(*(thing.names for thing in things))
    if generator.random() < 0.25:
        return Row(vocabulary.unknown(generator), (), frozenset())
    for _ in range(8):
        near = present and generator.random() < 0.5
        concept = vocabulary.near(pick(sorted(present), generator), generator) if near else None
        concept = concept or pick(vocabulary.concepts, generator)
        if concept not in present:
            return Row(vocabulary.phrase(concept, generator), (), frozenset())
    return Row(vocabulary.unknown(generator), (), frozenset())
