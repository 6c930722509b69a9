"""The graphs behind Ray Serve: POST /."""

import asyncio
import base64
import signal
import threading
from collections.abc import Sequence
from typing import Any

import ray
from ray import serve
from starlette.requests import Request

from service.config import ServeSettings
from tests.load.peers.model import Found, Model, Prepared, finish, open_artifact

# Seconds that a batch waits for more requests. While one is computed the next gathers anyway.
_WAIT_S = 0.0
# Requests that a replica takes on at once: those of a batch that is computed, and of the next ones.
_ONGOING = 64


@serve.deployment(max_ongoing_requests=_ONGOING)
class Segment:
    """One replica. What takes the processor runs in threads, beside its event loop."""

    def __init__(self) -> None:
        settings = ServeSettings()
        self.model = Model(open_artifact(settings), settings)
        self.compute.set_max_batch_size(settings.max_batch)

    @serve.batch(max_batch_size=8, batch_wait_timeout_s=_WAIT_S)
    async def compute(self, batch: Sequence[Prepared]) -> list[Found]:
        """The graphs, for one batch."""
        return await asyncio.to_thread(self.model.compute, batch)

    async def __call__(self, request: Request) -> dict[str, Any]:
        """One request."""
        asked = await request.json()
        picture = base64.b64decode(asked["image"])
        prepared = await asyncio.to_thread(self.model.prepare, picture, asked["text"])
        found = await self.compute(prepared)
        return await asyncio.to_thread(finish, found)


def _main() -> None:
    settings = ServeSettings()
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, _node_ip_address="127.0.0.1")
    serve.start(http_options={"host": "127.0.0.1", "port": settings.http_port})
    serve.run(Segment.bind())
    # Ray has handlers of its own, which these replace.
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    stop.wait()
    serve.shutdown()
    ray.shutdown()


if __name__ == "__main__":
    _main()
