"""The graphs behind mosec, as a pipeline of three stages: POST /inference."""

import base64
import sys
from collections.abc import Sequence
from typing import Any

import mosec

from service.config import ServeSettings
from tests.load.peers.model import Found, Model, Prepared, Reader, finish, open_artifact

# Milliseconds that a batch waits for more requests: 1 is the least.
_WAIT_MS = 1
_TIMEOUT_S = 60


class Prepare(mosec.Worker):
    """The picture and the text, read."""

    def __init__(self) -> None:
        super().__init__()
        settings = ServeSettings()
        self.reader = Reader(open_artifact(settings), settings)

    def forward(self, data: dict[str, str]) -> Prepared:
        """One request."""
        return self.reader.prepare(base64.b64decode(data["image"]), data["text"])


class Compute(mosec.Worker):
    """The graphs."""

    def __init__(self) -> None:
        super().__init__()
        settings = ServeSettings()
        self.model = Model(open_artifact(settings), settings)

    def forward(self, data: Sequence[Prepared]) -> list[Found]:
        """One batch."""
        return self.model.compute(data)


class Finish(mosec.Worker):
    """The masks, encoded."""

    def forward(self, data: Found) -> dict[str, Any]:
        """One request."""
        return finish(data)


def _main() -> None:
    settings = ServeSettings()
    # mosec reads its own options from the command line.
    sys.argv[1:] = ["--address", "127.0.0.1", "--port", str(settings.http_port)]
    sys.argv += ["--timeout", str(_TIMEOUT_S * 1000), "--log-level", "warning"]
    server = mosec.Server()
    server.append_worker(Prepare)
    # A batch of 1 would come as a list no more.
    server.append_worker(Compute, max_batch_size=max(2, settings.max_batch), max_wait_time=_WAIT_MS)
    server.append_worker(Finish)
    server.run()


if __name__ == "__main__":
    _main()
