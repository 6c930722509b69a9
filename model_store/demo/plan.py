"""What the training does at which step: a few numbers."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

Kind = Literal["crops", "pictures", "clips"]

# Pace of what learns slowly at first, as `learner.PACES` has it.
SLOW = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """A stretch of steps."""

    name: str
    steps: int
    # Shares of the steps; the others are of pictures.
    crops: float
    clips: float = 0.0
    # Learning rate at its begin and at its end, with a cosine in between.
    rate: float
    last_rate: float
    # Pace of the interactive neck; and what the masks' losses weigh.
    neck: float = SLOW
    masks: float = 1.0
    # Extra weight of an object's cells in the mask losses at the begin; 0 from half of the phase on.
    extra: float = 0.0


PLAN = (
    Phase(name="crops", steps=3000, crops=1.0, rate=1e-3, last_rate=7e-4),
    Phase(name="pictures", steps=1200, crops=0.10, rate=6e-4, last_rate=5e-4, extra=10.0),
    Phase(name="tail", steps=1265, crops=0.05, clips=0.25, rate=5e-4, last_rate=0.0),
    Phase(name="last", steps=2800, crops=0.04, clips=0.5, rate=5e-4, last_rate=0.0),
    Phase(name="finer", steps=2000, crops=0.03, clips=0.28, rate=6e-4, last_rate=0.0, neck=1.0, masks=2.0),
)
WARM_UP = 200

# Per process. Crops are of the smallest side, or as much fewer as they are larger.
CROPS, PICTURES = 64, 8
CROP_SIDES = (64, 64, 96, 128)
# Phrases that a crop's name is told apart from; objects of a picture that are prompted; rows with masks.
PHRASES, OBJECTS, MASK_ROWS = 160, 4, 7
# Pixels of scenes before they are made as large as the student wants them.
SCENE_SIDES = (256, 320)
# Per process; frames of a clip, things that are followed in it, and how many moments lie between two frames.
CLIPS, CLIP_FRAMES, FOLLOWED = 2, 8, 3
PACES = (1, 1, 2, 3)


def steps() -> int:
    """Of the whole plan."""
    return sum(phase.steps for phase in PLAN)


def phase_at(step: int) -> tuple[Phase, float]:
    """The phase that a step lies in, and how far in it is, 0..1."""
    for phase in PLAN:
        if step < phase.steps:
            return phase, step / phase.steps
        step -= phase.steps
    return PLAN[-1], 1.0


def rate_at(step: int) -> float:
    """Learning rate."""
    phase, done = phase_at(step)
    wave = (1 + math.cos(math.pi * done)) / 2
    return (phase.last_rate + (phase.rate - phase.last_rate) * wave) * min(1.0, (step + 1) / WARM_UP)


def extra_at(step: int) -> float:
    """Extra weight of an object's cells."""
    phase, done = phase_at(step)
    return phase.extra * max(0.0, 1 - 2 * done)


def kind_at(seed: int, step: int) -> Kind:
    """What the step trains on; the same in every process."""
    phase, _ = phase_at(step)
    draw = np.random.Generator(np.random.PCG64((seed, step))).random()
    if draw < phase.crops:
        return "crops"
    return "clips" if draw < phase.crops + phase.clips else "pictures"
