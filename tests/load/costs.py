"""`python -m tests.load.costs [VARIANT]`: what a request of each kind takes of gateway, worker and Redis.

What docs/growing.md computes with. It is processor time, which depends less than seconds on what else a
machine does. The worker's engine has one thread, frames are streamed over a WebSocket, and Redis syncs once a
second.
"""

import tempfile
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Annotated

import psutil
import typer
from rich.console import Console
from rich.progress import track

from model_store import artifact as artifacts
from service.cli_variants import Store, artefact_of
from service.client import Client
from tests.deployment import Deployment
from tests.redis_server import RedisServer
from tests.tracked_clip import pictures

# Of a session, before its frames are counted: from then on it keeps as much as it ever will.
_WARMING = 20
# An object's box, and the step to the next, in pixels of the clip.
_SIDE, _STEP, _COLUMNS = 38, 48, 5

# What is asked, and how often it is before it counts.
Asking = tuple[Callable[[], object], int]


def main(
    variant: Annotated[str, typer.Argument(help="The variant.")] = "demo",
    requests: Annotated[int, typer.Option(min=1, help="Requests of each kind that count.")] = 200,
    store: Store = None,
) -> None:
    """What a request of each kind takes of gateway, worker and Redis."""
    artefact = artefact_of(variant, store)
    shown = Console(stderr=True)
    picture = Path(artifacts.__file__).parent / "samples" / "street.jpg"
    columns = ("gateway, ms", "worker, ms", "Redis, ms", "into Redis, KiB")
    typer.echo(f"{'of one request':34}" + "".join(f"{each:>17}" for each in columns))
    with tempfile.TemporaryDirectory(prefix="efficientsam3-") as scratch:
        redis = RedisServer(Path(scratch, "redis"), "everysec")
        deploying = Deployment(artefact, Path(scratch), redis.url, workers=1, gateways=1)
        with redis.running(), deploying as deployment, Client(deployment.urls[0]) as client:
            for name, (ask, before) in _kinds(client, picture.read_bytes()).items():
                for _ in range(before):
                    ask()
                then = _spent(deployment, redis)
                for _ in track(range(requests), name, console=shown, transient=True):
                    ask()
                each = [
                    (now - earlier) / requests
                    for now, earlier in zip(_spent(deployment, redis), then, strict=True)
                ]
                typer.echo(f"{name:34}" + "".join(f"{value:17.2f}" for value in each))


def _kinds(client: Client, picture: bytes) -> dict[str, Asking]:
    """By their names: those that the variant serves."""
    kept, asked = client.encode_image(picture), {"points": [{"x": 100, "y": 100}]}
    # What follows the end of a JPEG is nobody's business, and makes it another file.
    new = (picture + number.to_bytes(8, "big") for number in count())
    (able,), kinds = client.variants(), dict[str, Asking]()
    if "text" in able["prompts"]:
        texts = [{"text": "car"}]
        kinds["text, on a new picture"] = lambda: client.segment(next(new), texts, max_segments=3), 5
    if "points" in able["prompts"]:
        kinds["click, on a kept picture"] = lambda: client.segment(kept.id, [asked]), 5
    for objects in (1, 5, 10) if able["memory"] else ():
        frames = client.open_session().stream(_frames(objects))
        kinds[f"frame, {objects} objects"] = (lambda frames=frames: next(frames), _WARMING)  # type: ignore[misc]
    return kinds


def _frames(objects: int) -> Iterator[tuple[bytes, list[dict[str, object]]]]:
    """A clip over and over; on the first frame so many boxes beside each other."""
    corners = [(8 + _STEP * (each % _COLUMNS), 8 + _STEP * (each // _COLUMNS)) for each in range(objects)]
    yield pictures()[0], [{"box": [x, y, x + _SIDE, y + _SIDE]} for x, y in corners]
    while True:
        for picture in pictures():
            yield picture, []


def _spent(deployment: Deployment, redis: RedisServer) -> list[float]:
    """So far: milliseconds of a processor of gateway, worker and Redis, and KiB that Redis was sent."""
    assert redis.process is not None
    (gateway,), (worker,) = deployment.gateways, deployment.workers
    with redis.client() as client:
        sent = int(client.info("stats")["total_net_input_bytes"])
    own = sum(psutil.Process(redis.process.pid).cpu_times()[:2])
    return [1000 * gateway.busy_s, 1000 * worker.busy_s, 1000 * own, sent / 1024]


if __name__ == "__main__":
    typer.run(main)
