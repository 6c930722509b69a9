"""`efficientsam3 worker` with an engine that a test can hold: `python -m tests.held_worker worker ...`.

It stands still while another process has the file beside the worker's socket locked.
"""

import argparse
import asyncio
import fcntl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from model_store import artifact as artifacts
from service.config import Precision, WorkerSettings
from service.telemetry import configure_logging
from service.worker.engines import Engine, Tensors, open_engine
from service.worker.server import serve


@contextmanager
def locked(address: str, *, whole: bool) -> Iterator[None]:
    """The file of the worker at the address, locked meanwhile: `whole` by nobody else at all."""
    with Path(f"{address.removeprefix('unix:')}.lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX if whole else fcntl.LOCK_SH)
        yield


class Held:
    """An engine that waits before each graph while somebody has the whole lock."""

    def __init__(self, engine: Engine, address: str) -> None:
        self._engine, self._address = engine, address

    @property
    def name(self) -> str:
        return self._engine.name

    @property
    def precisions(self) -> Mapping[str, Precision]:
        return self._engine.precisions

    def run(self, graph: str, inputs: Tensors) -> dict[str, Any]:
        with locked(self._address, whole=False):
            return self._engine.run(graph, inputs)

    def close(self) -> None:
        self._engine.close()


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("command", choices=["worker"])
    options.add_argument("variant")
    for name in ("--store", "--threads", "--listen"):
        options.add_argument(name, required=True)
    told = options.parse_args()
    settings = WorkerSettings(store=told.store, threads=told.threads, listen=told.listen)
    configure_logging(settings)
    artifact = artifacts.load(settings.store / told.variant)
    engine = open_engine({name: artifact.path(name) for name in artifact.manifest.graphs}, settings)
    asyncio.run(serve(artifact, Held(engine, settings.listen), settings))


if __name__ == "__main__":
    main()
