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
from tests.load.peers.model import Model, open_artifact

# Seconds that a batch waits for more requests: Ray's own default. Batches do not grow while they wait for
# another one that is computed, so that without it nearly each request would be a batch.
_WAIT_S = 0.01
# One is computed while the other is decoded or encoded.
_BATCHES = 2
# Requests that a replica takes on at once: enough for its batches and those behind them.
_ONGOING = 64


@serve.deployment(max_ongoing_requests=_ONGOING)
class Segment:
    """One replica. What takes the processor runs in threads, beside its event loop."""

    def __init__(self) -> None:
        settings = ServeSettings()
        self.model = Model(open_artifact(settings), settings)
        self.segment.set_max_batch_size(settings.max_batch)

    @serve.batch(batch_wait_timeout_s=_WAIT_S, max_concurrent_batches=_BATCHES)
    async def segment(self, batch: Sequence[tuple[bytes, str]]) -> list[dict[str, Any]]:
        """One batch."""
        return await asyncio.to_thread(self.model.predict, batch)

    async def __call__(self, request: Request) -> dict[str, Any]:
        """One request."""
        asked = await request.json()
        return await self.segment((base64.b64decode(asked["image"]), asked["text"]))


def _main() -> None:
    settings = ServeSettings()
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, _node_ip_address="127.0.0.1")
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
