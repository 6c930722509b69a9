"""A gateway that reads its workers from a file: they come and go while it runs."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

import httpx

from tests.deployment import Process, told
from tests.place import PATIENCE_S
from tests.serving import free_ports


class ListedGateway:
    """The gateway, a process that runs while this is entered. It looks at its file ten times a second."""

    def __init__(self, folder: Path, variant: str, **settings: object) -> None:
        """It knows the variant, without a worker. `settings` are the gateway's."""
        self._file = folder / "workers.json"
        self.list({variant: []})
        http, grpc = free_ports(2)
        self.url = f"http://127.0.0.1:{http}"
        named = {"workers_file": self._file, "discovery_interval_s": 0.1, **settings}
        environment = {f"EFFICIENTSAM3_{name.upper()}": str(value) for name, value in named.items()}
        ports = ("--http-port", str(http), "--grpc-port", str(grpc))
        self._process = Process(folder / "gateway.log", environment, "gateway", *ports)

    def __enter__(self) -> "ListedGateway":
        self._process.start()
        self.wait(lambda: httpx.get(f"{self.url}/healthz").is_success)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()

    def list(self, workers: Mapping[str, Sequence[str] | Mapping[str, object]]) -> None:
        """Have it know these: addresses, or those and until when, by what it is to know them as."""
        following = self._file.with_suffix(".next")
        following.write_text(json.dumps(workers))
        following.rename(self._file)

    def told(self, metric: str, **labels: str) -> float:
        """The metric's value, of all that has these labels."""
        return told(self.url, metric, **labels)

    def wait(self, true: Callable[[], bool]) -> None:
        """Return when it is so; meanwhile the gateway may not listen yet."""
        deadline = time.monotonic() + PATIENCE_S
        while not _so(true):
            assert time.monotonic() < deadline
            time.sleep(0.05)


def _so(true: Callable[[], bool]) -> bool:
    try:
        return true()
    except httpx.TransportError:
        return False
