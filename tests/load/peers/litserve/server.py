"""The graphs behind LitServe: POST /predict."""

import base64
from collections.abc import Sequence
from typing import Any

import litserve

from service.config import ServeSettings
from tests.load.peers.model import Found, Model, Prepared, finish, open_artifact

# Seconds that a batch waits for more requests. 0 would have the workers spin while nobody asks.
_WAIT_S = 0.002
_WORKERS = 2


class Segment(litserve.LitAPI):
    """LitServe's hooks: a worker calls them one after the other, for one batch at a time."""

    def setup(self, device: str) -> None:
        """Load the graphs, in the worker."""
        settings = ServeSettings()
        self.model = Model(open_artifact(settings), settings)

    def decode_request(self, request: dict[str, str]) -> Prepared:
        """One request's picture and text."""
        return self.model.prepare(base64.b64decode(request["image"]), request["text"])

    def batch(self, inputs: Sequence[Prepared]) -> Sequence[Prepared]:
        """As they are: the model stacks them."""
        return inputs

    def predict(self, x: Sequence[Prepared]) -> list[Found]:
        """The graphs."""
        return self.model.compute(x)

    def unbatch(self, output: list[Found]) -> list[Found]:
        """As they are."""
        return output

    def encode_response(self, output: Found) -> dict[str, Any]:
        """One request's masks."""
        return finish(output)


def _main() -> None:
    settings = ServeSettings()
    api = Segment(max_batch_size=settings.max_batch, batch_timeout=_WAIT_S)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=_WORKERS, timeout=False)
    server.run(
        host="127.0.0.1",
        port=settings.http_port,
        num_api_servers=1,
        log_level="warning",
        generate_client_file=False,
    )


if __name__ == "__main__":
    _main()
