"""The graphs behind BentoML, as two services: one reads and answers, one computes: POST /segment."""

import asyncio
import base64
from typing import Any

import bentoml

from service.config import ServeSettings
from tests.load.peers.model import Found, Model, Prepared, Reader, finish, open_artifact

_SETTINGS = ServeSettings()
# Requests that would take longer than this are given up. It says nothing of how long a batch waits, which
# BentoML learns from what comes.
_LATENCY_MS = 60_000
_TRAFFIC = {"timeout": 60, "max_concurrency": 64}


@bentoml.service(workers=1, traffic=_TRAFFIC, logging={"access": {"enabled": False}})
class Compute:
    """The graphs, in a process of their own."""

    def __init__(self) -> None:
        self.model = Model(open_artifact(_SETTINGS), _SETTINGS)

    @bentoml.api(batchable=True, max_batch_size=_SETTINGS.max_batch, max_latency_ms=_LATENCY_MS)
    def compute(self, batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """One batch, of fields of `Prepared` to fields of `Found`."""
        found = self.model.compute([Prepared(**each) for each in batch])
        return [_fields(each) for each in found]


@bentoml.service(workers=1, threads=4, traffic=_TRAFFIC, logging={"access": {"enabled": False}})
class Segment:
    """What clients ask."""

    model = bentoml.depends(Compute)

    def __init__(self) -> None:
        self.reader = Reader(open_artifact(_SETTINGS), _SETTINGS)

    @bentoml.api
    async def segment(self, image: str, text: str) -> dict[str, Any]:
        """One request."""
        prepared = await asyncio.to_thread(self.reader.prepare, base64.b64decode(image), text)
        (found,) = await self.model.to_async.compute([_fields(prepared)])
        return await asyncio.to_thread(finish, Found(**found))


def _fields(each: Prepared | Found) -> dict[str, Any]:
    """What goes from one service to the other: BentoML takes plain values and arrays."""
    return {name: getattr(each, name) for name in each.__slots__}
