"""Clips of things that move, hide, leave and come back, with the truth about them."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model_store.demo.backgrounds import background, light
from model_store.demo.scenes import LEAST_PIXELS, Figure, World, blend, figure
from model_store.demo.sprites import Generator, placed
from model_store.demo.vocabulary import pick

_CLIP = 4
# The background reaches over the frame by this share on each side, for the camera to move in.
_MARGIN = 0.15
# Share of things that leave for a while, and for how many frames.
_LEAVES = 0.35
_AWAY = (3, 9)
_OCCLUDERS = 0.6
_TRIES = 30


@dataclass(frozen=True, slots=True)
class Clip:
    """T frames and the K things in them that are followed."""

    # (T, S, S, 3) uint8 RGB.
    pixels: NDArray[np.uint8]
    # (T, K, S, S) bool: what is visible of each. In the first frame something is of every one.
    masks: NDArray[np.bool_]
    # Every concept that each is an instance of.
    names: tuple[frozenset[str], ...]


@dataclass(frozen=True, slots=True)
class _Path:
    """A way through the picture: centre in 0..1 of the side, as functions of the frame."""

    start: NDArray[np.float64]
    speed: NDArray[np.float64]
    swing: NDArray[np.float64]
    # Radians per frame, and at the first.
    pace: float
    phase: float
    # Degrees at the first frame and per frame, where they swing with the pace too.
    angle: float
    turn: float
    # The longest side as a share of the picture's, and by which share of itself it swings.
    extent: float
    zoom: float
    # Frames that it is away, from and to; where it comes back, counted from where it would be.
    away: tuple[int, int]
    moved: NDArray[np.float64]

    def centre(self, frame: int) -> NDArray[np.float64]:
        """x and y; reflected at the picture's edges."""
        raw = self.start + self.speed * frame + self.swing * (self._wave(frame) - self._wave(0))
        if frame >= self.away[1]:
            raw = raw + self.moved
        folded: NDArray[np.float64] = np.abs((raw - 0.08) % (2 * 0.84) - 0.84)
        return 0.92 - folded

    def degrees(self, frame: int) -> float:
        """Anticlockwise."""
        return self.angle + self.turn * (frame + 8 * self._wave(frame))

    def longest(self, frame: int) -> float:
        """Share of the side."""
        return self.extent * math.exp(self.zoom * self._wave(frame))

    def visible(self, frame: int) -> bool:
        """False while it is away."""
        return not self.away[0] <= frame < self.away[1]

    def _wave(self, frame: int) -> float:
        return math.sin(self.pace * frame + self.phase)


def clip(
    world: World,
    seed: int,
    frames: int,
    *,
    side: int = 256,
    things: int = 3,
    every: int = 1,
    augment: bool = False,
) -> Clip:
    """The clip of that seed.

    Args:
        things: how many are followed.
        every: how many moments a frame lies after the one before it.
    """
    generator = np.random.Generator(np.random.PCG64((_CLIP, seed)))
    for _ in range(_TRIES):
        made = _tried(world, generator, range(0, frames * every, every), side, things, augment=augment)
        if all(mask.sum() >= LEAST_PIXELS for mask in made.masks[0]):
            break
    return made


def _tried(
    world: World, generator: Generator, moments: range, side: int, things: int, *, augment: bool
) -> Clip:
    figures = _cast(world, generator, things, augment=augment)
    paths = [_path(generator, moments.stop, leaves=index < things) for index in range(len(figures))]
    # Those that are followed lie anywhere among the others, and stay there.
    order = [int(index) for index in generator.permutation(len(figures))]
    wide = background(round(side * (1 + 2 * _MARGIN)), generator)
    camera = _path(generator, moments.stop, leaves=False)
    shown = light(generator)
    pixels, masks = [], []
    for frame in moments:
        shift = np.clip((camera.centre(frame) - camera.centre(0)) * 0.2, -_MARGIN, _MARGIN)
        canvas = _window(wide, shift, side)
        visible = np.zeros((len(figures), side, side), bool)
        for index in order:
            if paths[index].visible(frame):
                own = _laid(canvas, figures[index], paths[index], frame, shift)
                visible &= ~own
                visible[index] = own
        pixels.append(shown(canvas))
        masks.append(visible[:things])
    return Clip(np.stack(pixels), np.stack(masks), tuple(one.names for one in figures[:things]))


def _cast(world: World, generator: Generator, things: int, *, augment: bool) -> list[Figure]:
    """Those that are followed first; often one that is like one of them, and others."""
    figures: list[Figure] = []
    while len(figures) < things:
        one = figure(world, generator, augment=augment)
        if one.names:
            figures.append(one)
    noun = world.vocabulary.noun_of.get(figures[0].drawing)
    if noun and things > 1 and generator.random() < 0.35:
        figures[1] = figure(world, generator, noun, augment=augment)
    if generator.random() < 0.35:
        figures.append(pick(figures[:things], generator))
    if generator.random() < _OCCLUDERS:
        count = 1 + int(generator.integers(0, 3))
        figures += [figure(world, generator, augment=augment) for _ in range(count)]
    return figures


def _path(generator: Generator, frames: int, *, leaves: bool) -> _Path:
    calm = generator.random() < 0.3
    speed = generator.normal(0, 0.006 if calm else 0.022, 2)
    swing = generator.uniform(0, 0.05 if calm else 0.14, 2)
    away = (frames, frames)
    if leaves and frames > 6 and generator.random() < _LEAVES:
        first = int(generator.integers(2, max(3, frames - 4)))
        away = (first, first + int(generator.integers(*_AWAY)))
    near = generator.random() < 0.4
    return _Path(
        start=generator.uniform(0.15, 0.85, 2),
        speed=speed,
        swing=swing,
        pace=float(generator.uniform(0.08, 0.5)),
        phase=float(generator.uniform(0, 2 * math.pi)),
        angle=float(generator.uniform(-20, 20)),
        turn=0.0 if generator.random() < 0.4 else float(generator.normal(0, 1.6)),
        extent=0.12 + 0.38 * float(generator.beta(1.6, 2.4)),
        zoom=float(generator.uniform(0, 0.22)),
        away=away,
        moved=np.zeros(2) if near else generator.uniform(-0.5, 0.5, 2),
    )


def _window(wide: NDArray[np.uint8], shift: NDArray[np.float64], side: int) -> NDArray[np.uint8]:
    room = (wide.shape[0] - side) / 2
    x, y = (round(float(room + side * each)) for each in shift)
    return wide[max(y, 0) :, max(x, 0) :][:side, :side].copy()


def _laid(
    canvas: NDArray[np.uint8], one: Figure, path: _Path, frame: int, shift: NDArray[np.float64]
) -> NDArray[np.bool_]:
    side = canvas.shape[0]
    longest = max(6, round(side * path.longest(frame)))
    rgba = placed(one.sprite, longest, path.degrees(frame), mirrored=False)
    x, y = (path.centre(frame) - shift) * side
    return blend(canvas, rgba, round(x - rgba.shape[1] / 2), round(y - rgba.shape[0] / 2))
