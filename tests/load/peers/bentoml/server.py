"""The graphs behind BentoML: POST /segment."""

import base64
from typing import Any

import bentoml
from pydantic import BaseModel

from service.config import ServeSettings
from tests.load.peers.model import Model, open_artifact

_SETTINGS = ServeSettings()
# One worker computes while the other decodes and encodes.
_WORKERS = 2
# Requests that would take longer are given up. How long a batch waits BentoML learns from what comes.
_LATENCY_MS = 60_000


class Asked(BaseModel):
    """One request."""

    # A JPEG file, in base64.
    image: str
    text: str


@bentoml.service(
    workers=_WORKERS,
    traffic={"timeout": _LATENCY_MS // 1000},
    logging={"access": {"enabled": False}},
)
class Segment:
    """One worker. It has one batch at a time."""

    def __init__(self) -> None:
        self.model = Model(open_artifact(_SETTINGS), _SETTINGS)

    @bentoml.api(batchable=True, max_batch_size=_SETTINGS.max_batch, max_latency_ms=_LATENCY_MS)
    def segment(self, asked: list[Asked]) -> list[dict[str, Any]]:
        """One batch. A client sends a list of one."""
        return self.model.predict([(base64.b64decode(each.image), each.text) for each in asked])
