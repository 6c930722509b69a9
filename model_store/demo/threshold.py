"""Which score threshold suits the student: `python -m model_store.demo.threshold --drawings FOLDER`.

Its scenes are neither training's nor an evaluation's.
"""

import argparse
from collections import defaultdict
from pathlib import Path

import numpy as np
from rich.progress import track

from model_store.demo import drawings
from model_store.demo.evaluate import Counts, asked, instances
from model_store.demo.scenes import World, scene
from model_store.demo.served import Service, serving

# Of the first scene.
SEED = 1 << 31
_PURPOSE = 5
_THRESHOLDS = np.arange(0.15, 0.75, 0.05)


def main() -> None:
    """The command: a table of what texts find at each threshold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--drawings", type=Path, required=True, help="folder of the rendered drawings")
    parser.add_argument("--scenes", type=int, default=300)
    parser.add_argument("--store", type=Path, help="folder of artefacts")
    arguments = parser.parse_args()
    world = World.load(arguments.drawings, drawings.STYLES)
    counts: dict[float, Counts] = defaultdict(Counts)
    with serving("demo", arguments.store, "f32") as url:
        service = Service(url, "demo")
        for seed in track(range(SEED, SEED + arguments.scenes), "scenes"):
            _look(service, world, seed, counts)
    print("| threshold | F1 | absent | unknown |\n|---|---|---|---|")
    for threshold, found in counts.items():
        figures = found.figures()
        print(f"| {threshold:.2f} | " + " | ".join(f"{value:.3f}" for value in figures.values()) + " |")


def _look(service: Service, world: World, seed: int, counts: dict[float, Counts]) -> None:
    made = scene(world, seed)
    if not made.things:
        return
    generator = np.random.Generator(np.random.PCG64((_PURPOSE, seed)))
    service.show(made.pixels)
    prompts = list(asked(world, made, generator))
    answers = service.ask([{"text": phrase} for _, _, phrase in prompts], float(_THRESHOLDS[0]))
    for (group, concept, _), answer in zip(prompts, answers, strict=True):
        for threshold in _THRESHOLDS:
            masks = [mask for score, mask in answer if score >= threshold]
            if group in ("absent", "unknown"):
                counts[threshold].value(group, float(bool(masks)))
            else:
                counts[threshold].found("text", masks, instances(made, concept))


if __name__ == "__main__":
    main()
