"""A session of 2,000 frames whose objects and texts come and go: what it takes stays what it is."""

from collections.abc import Iterator, Sequence
from itertools import count, islice
from pathlib import Path
from statistics import mean

import pytest

from service.client import Client
from tests.place import DEMO, Place, placed
from tests.tracked_clip import TEXT, Sent, clip, pictures

FRAMES, SAMPLED = 2_000, 8
# The prompts come again after so many frames, and the pictures after a third of it.
PERIOD = 96
# From here on a session keeps as much as it ever will, and the engine has seen every number of objects.
WARM = 100
MB = 1e6
# What may be more at the end than in the beginning, in the mean of two periods each. Some 1,700 frames lie
# between: a leak of 60 bytes of Redis or of 10 KB of a process a frame is found. A frame's file has 18 KB, an
# object's memory of it 7,872 bytes.
REDIS_MB, PROCESS_MB = 0.1, 16.0


def soaked() -> Iterator[Sent]:
    """Frames without an end. In each period two objects and a text come, are shown again, and go."""
    boxes = [prompt["box"] for prompt in clip(1)[0][1]]
    for frame in count():
        period, phase = divmod(frame, PERIOD)
        # Downwards from the first: the server gives ids above it.
        one, other = ({"object": 1_000_000 - 2 * period - each} for each in (0, 1))
        prompts = {
            0: [one | {"box": boxes[0]}],
            8: [{"text": TEXT}],
            20: [other | {"box": boxes[1]}],
            30: [one | {"points": [{"x": 100, "y": 160}]}],
            48: [{"remove": {"text": TEXT}}],
            56: [{"remove": one}],
            64: [{"text": TEXT}],
            80: [{"remove": {"text": TEXT}}, {"remove": other}],
        }
        yield pictures()[frame % len(pictures())], prompts.get(phase, [])


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_two_thousand_frames(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = {"workers": 1, "gateways": 1, "engine": "openvino", "precision": "f32"}
    with placed(tmp_path, DEMO, [], sync="everysec", **settings) as place:
        with Client(place.deployment.urls[0]) as client:
            samples, followed = [], 0
            for frame in client.open_session().stream(islice(soaked(), FRAMES)):
                followed = max(followed, len(frame.objects))
                if frame.index % SAMPLED == 0:
                    samples.append((frame.index, *_used_mb(place)))
        assert frame.index == FRAMES - 1 and followed > 2
        early = [each for each in samples if WARM <= each[0] < WARM + 2 * PERIOD]
        late = [each for each in samples if each[0] >= FRAMES - 2 * PERIOD]
        for column, (name, most_mb) in enumerate(
            (("Redis", REDIS_MB), ("worker", PROCESS_MB), ("gateway", PROCESS_MB)), 1
        ):
            then, now = _told(early, column), _told(late, column)
            with capsys.disabled():
                print(f"\n{name}: {then:.3f} MB in the first periods, {now:.3f} MB in the last", end="")
            assert now - then <= most_mb, name


def _used_mb(place: Place) -> tuple[float, float, float]:
    """Of Redis, the worker and the gateway."""
    with place.redis.client() as client:
        used = client.info("memory")["used_memory"]
    processes = place.deployment.workers[0], place.deployment.gateways[0]
    worker, gateway = (process.resident_bytes() for process in processes)
    return used / MB, worker / MB, gateway / MB


def _told(samples: Sequence[tuple[float, ...]], column: int) -> float:
    return mean(each[column] for each in samples)
