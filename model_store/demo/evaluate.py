"""What the served student finds on fresh scenes: `python -m model_store.demo.evaluate --drawings FOLDER`.

Scenes follow from the seeds alone, and training never draws seeds below 2**32.
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from model_store.demo import drawings
from model_store.demo.evaluate_clips import evaluate_clips
from model_store.demo.scenes import Scene, Thing, World, scene
from model_store.demo.served import Mask, Service, serving
from model_store.demo.tasks import box_of
from model_store.demo.vocabulary import pick

_PURPOSE = 3
_CLICKS = 3
_FOUND = 0.5

Generator = np.random.Generator
Figures = dict[str, float]


class Counts:
    """What adds up over scenes: true and false finds and misses by measure, and means."""

    def __init__(self) -> None:
        self._finds: dict[str, NDArray[np.int64]] = defaultdict(lambda: np.zeros(3, np.int64))
        self._values: dict[str, list[float]] = defaultdict(list)

    def found(
        self, measure: str, segments: list[Mask], truth: list[Mask], matched: str | None = None
    ) -> None:
        """Compares an answer, the best segment first, with all that was to be found.

        Args:
            matched: under which name the IoU of the pairs is kept.
        """
        left, right = list(truth), 0
        for segment in segments:
            overlaps = [iou(segment, one) for one in left]
            if overlaps and max(overlaps) >= _FOUND:
                best = int(np.argmax(overlaps))
                left.pop(best)
                right += 1
                if matched:
                    self.value(matched, overlaps[best])
        self._finds[measure] += (right, len(segments) - right, len(left))

    def value(self, measure: str, value: float) -> None:
        """One number of a mean."""
        self._values[measure].append(value)

    def figures(self) -> Figures:
        """F1 of every measure of finds, and every mean."""
        scores = {
            f"{name}: F1": 2 * hit / max(1, 2 * hit + false + missed)
            for name, (hit, false, missed) in self._finds.items()
        }
        return scores | {name: float(np.mean(values)) for name, values in self._values.items()}


def iou(a: Mask, b: Mask) -> float:
    """Of two masks; 0 where both are empty."""
    union = np.count_nonzero(a | b)
    return np.count_nonzero(a & b) / union if union else 0.0


def deepest(region: Mask) -> tuple[int, int]:
    """x and y of the pixel that lies farthest from the region's rim; the picture's edge is one."""
    padded = np.pad(region, 1).astype(np.uint8)
    depth = cv2.distanceTransform(padded, cv2.DIST_L2, 5)[1:-1, 1:-1]
    y, x = np.unravel_index(int(depth.argmax()), depth.shape)
    return int(x), int(y)


def evaluate(service: Service, world: World, seeds: range) -> Figures:
    """The figures over the scenes of these seeds."""
    counts = Counts()
    for seed in track(seeds, "scenes"):
        made = scene(world, seed)
        if not made.things:
            continue
        generator = np.random.Generator(np.random.PCG64((_PURPOSE, seed)))
        service.show(made.pixels)
        _texts(service, world, made, counts, generator)
        _exemplar(service, world, made, counts, generator)
        _object(service, made, counts, generator)
    return counts.figures()


def instances(made: Scene, concept: str) -> list[Mask]:
    return [thing.mask for thing in made.things if concept in thing.names]


def asked(world: World, made: Scene, generator: Generator) -> Iterator[tuple[str, str, str]]:
    """Group, concept and phrase: up to two present concepts, one absent, and a word of nothing drawn."""
    vocabulary = world.vocabulary
    present = sorted(frozenset().union(*(thing.names for thing in made.things)))
    for index in generator.permutation(len(present))[:2]:
        concept = present[int(index)]
        yield _group(world, concept), concept, vocabulary.phrase(concept, generator)
    absent = [name for name in vocabulary.concepts if name not in present]
    concept = pick(absent, generator)
    yield "absent", concept, vocabulary.phrase(concept, generator)
    yield "unknown", "", vocabulary.unknown(generator, heard=False)


def _group(world: World, concept: str) -> str:
    vocabulary = world.vocabulary
    if concept in vocabulary.nouns:
        return "nouns"
    if concept in vocabulary.wider:
        return "wider words"
    return "shapes" if concept.split()[-1] in vocabulary.shapes else "colours with nouns"


def _texts(service: Service, world: World, made: Scene, counts: Counts, generator: Generator) -> None:
    prompts = list(asked(world, made, generator))
    answers = service.ask([{"text": phrase} for _, _, phrase in prompts])
    for (group, concept, _), answer in zip(prompts, answers, strict=True):
        if group in ("absent", "unknown"):
            counts.value(f"{group}: share with a detection", float(bool(answer)))
            continue
        masks, truth = [mask for _, mask in answer], instances(made, concept)
        counts.found("text", masks, truth, "text: IoU of matched")
        counts.found(f"text, {group}", masks, truth)


def _exemplar(service: Service, world: World, made: Scene, counts: Counts, generator: Generator) -> None:
    named = [thing for thing in made.things if thing.names]
    if not named:
        return
    shown = pick(named, generator)
    answer = service.ask([{"exemplars": [{"box": _pixels_of(shown), "positive": True}]}])[0]
    truth = instances(made, world.vocabulary.own(shown.names))
    counts.found("exemplar box", [mask for _, mask in answer], truth)


def _pixels_of(thing: Thing) -> list[float]:
    side = thing.mask.shape[0]
    return [float(edge) for edge in box_of(thing.mask) * side]


def _object(service: Service, made: Scene, counts: Counts, generator: Generator) -> None:
    thing = pick(made.things, generator)
    counts.value("box: IoU", iou(service.ask([{"box": _pixels_of(thing)}])[0][0][1], thing.mask))
    points: list[dict[str, Any]] = []
    found = np.zeros_like(thing.mask)
    for click in range(_CLICKS):
        missed, extra = thing.mask & ~found, found & ~thing.mask
        positive = bool(missed.sum() >= extra.sum())
        x, y = deepest(missed if positive else extra)
        points.append({"x": x + 0.5, "y": y + 0.5, "positive": positive})
        found = service.ask([{"points": points}])[0][0][1]
        if click in (0, _CLICKS - 1):
            counts.value(f"{click + 1} clicks: IoU", iou(found, thing.mask))


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--drawings", type=Path, required=True, help="folder of the rendered drawings")
    parser.add_argument("--seed", type=int, default=0, help="of the first scene, and of the first clip")
    parser.add_argument("--scenes", type=int, default=500)
    parser.add_argument("--clips", type=int, default=60)
    parser.add_argument("--style", nargs="+", default=drawings.STYLES, help=", ".join(drawings.DIGESTS))
    parser.add_argument("--variant", default="demo")
    parser.add_argument("--store", type=Path, help="folder of artefacts")
    parser.add_argument("--precision", default="f32")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    arguments = parser.parse_args()
    world = World.load(arguments.drawings, arguments.style)
    seeds = range(arguments.seed, arguments.seed + arguments.scenes)
    with serving(arguments.variant, arguments.store, arguments.precision) as url:
        service = Service(url, arguments.variant)
        figures = evaluate(service, world, seeds)
        figures |= evaluate_clips(service, world, range(arguments.seed, arguments.seed + arguments.clips))
    print("| measure | value |\n|---|---|")
    for name, value in figures.items():
        print(f"| {name} | {value:.3f} |")
    if arguments.out:
        arguments.out.write_text(json.dumps(figures, indent=1), "utf-8")


if __name__ == "__main__":
    main()
