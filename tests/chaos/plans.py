"""The plans of frames that clients follow, and their answers while nothing happens."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

from service.client import AsyncClient
from service.video import Video, as_png
from tests.chaos.checker import Expected, Position, Undisturbed
from tests.chaos.history import answer_digest, digest, masks_of
from tests.tracked_clip import SAMPLES

Prompts = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Step:
    """A frame, or a correction of the frame before."""

    frame: int
    revision: int
    image: bytes
    prompts: Prompts
    # The revision of the frame before that a new frame goes on from.
    follows: int

    @property
    def position(self) -> Position:
        return (self.frame, self.revision)

    def request(self, *, rival: bool = False) -> dict[str, Any]:
        """Return the JSON of the request, as `service.client` sends it.

        A rival's request leaves `follows` out: the service takes it for another request, and would answer it
        with the same masks.
        """
        follows = {} if rival or self.revision else {"follows": self.follows}
        return {"frame": self.frame, "revision": self.revision, **follows, "prompts": list(self.prompts)}

    def digest(self, *, rival: bool = False) -> str:
        """Return the digest of the request and its image."""
        return digest([self.request(rival=rival), self._image])

    @cached_property
    def _image(self) -> str:
        return digest(self.image)


@dataclass(frozen=True)
class Plan:
    """The steps of one session, in order."""

    name: str
    steps: Sequence[Step]

    def index_after(self, next_frame: int, revision: int) -> int:
        """Return the index of the step that comes next in a session that stands there."""
        if next_frame == 0:
            return 0
        at = (next_frame - 1, revision)
        return 1 + next(index for index, step in enumerate(self.steps) if step.position == at)


@cache
def plans(frames: int = 16) -> Mapping[str, Plan]:
    """Return the plans by name: boxes with a text and a correction; points, a late object and a removal."""
    boxes = [{"box": [30.0, 40.0, 90.0, 160.0]}, {"box": [120.0, 60.0, 200.0, 180.0]}]
    return {
        "lights": _plan(
            "traffic-lights",
            frames,
            {0: [*boxes, {"text": "traffic light"}], 9: [{"remove": {"object": 2}}]},
            {5: [{"points": [{"x": 128.0, "y": 128.0}], "object": 40}]},
        ),
        "animals": _plan(
            "birds-and-bears",
            frames,
            {0: [{"points": [{"x": 90.0, "y": 150.0}]}, boxes[1]], 4: [{"box": [10.0, 10.0, 120.0, 110.0]}]},
            {7: [{"remove": {"object": 1}}]},
        ),
    }


def _plan(clip: str, frames: int, prompts: Mapping[int, Prompts], corrections: Mapping[int, Prompts]) -> Plan:
    with Video(SAMPLES / f"{clip}.mp4") as video:
        pictures = [as_png(picture) for picture, _ in zip(video, range(frames), strict=False)]
    steps = list[Step]()
    for frame, image in enumerate(pictures):
        follows = steps[-1].revision if steps else 0
        steps.append(Step(frame, 0, image, prompts.get(frame, ()), follows))
        if frame in corrections:
            steps.append(Step(frame, 1, image, corrections[frame], 0))
    return Plan(clip, steps)


async def undisturbed(address: str, followed: Mapping[str, Plan]) -> Undisturbed:
    """Return the answers to every plan while nothing happens to the deployment."""
    answers: dict[str, dict[Position, Expected]] = {}
    async with AsyncClient(address, timeout_s=120.0) as client:
        for plan in followed.values():
            session = await client.open_session()
            answers[plan.name] = {}
            for step in plan.steps:
                if step.revision:
                    frame = await session.correct(step.prompts, step.image)
                else:
                    frame = await session.add(step.image, step.prompts)
                answers[plan.name][step.position] = Expected(answer_digest(frame.raw), masks_of(frame.raw))
            await session.delete()
    return answers
