"""A gateway over real sockets, in an event loop of its own, with fake workers behind it."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import grpc
import httpx
import pytest

from service.config import GatewaySettings
from service.gateway.router import Fetch
from service.gateway.server import Gateway
from service.pb.efficientsam3.v1 import variants_pb2
from service.pb.efficientsam3.v1.segmentation_pb2_grpc import SegmentationStub
from tests.gateway.fake_worker import FakeWorker
from tests.keys import KeysFile

T = TypeVar("T")


class House:
    """A gateway and fake workers, all in one event loop on a thread; tests call from outside."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._workers: list[FakeWorker] = []
        self._gateway: Gateway | None = None
        self.channel: grpc.Channel | None = None

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    def tell(self, do: Callable[[], object]) -> None:
        """Call `do` inside the loop."""

        async def doing() -> None:
            do()

        self.run(doing())

    def worker(self, variant: str = "demo") -> FakeWorker:
        """A worker that is not started yet, at an address of its own."""

        async def made() -> FakeWorker:
            return FakeWorker(variant, f"unix:{self._folder}/{len(self._workers)}.sock")

        self._workers.append(self.run(made()))
        return self._workers[-1]

    def open(self, *workers: FakeWorker, fetch: Fetch | None = None, **settings: Any) -> httpx.Client:
        """Start a gateway for the workers; a client of its HTTP API."""
        configured: dict[str, list[str]] = {}
        for worker in workers:
            configured.setdefault(worker.variant, []).append(worker.address)
        given = {"http_port": 0, "grpc_port": 0, "probe_interval_s": 0.05, "drain_s": 5.0}
        chosen = GatewaySettings(**{**given, "workers": configured, **settings})
        describe = lambda name: variants_pb2.Variant(name=name)  # noqa: E731
        self._gateway = self.run(Gateway.start(chosen, describe, fetch))
        self.channel = grpc.insecure_channel(
            self._gateway.grpc_address, options=[("grpc.max_send_message_length", -1)]
        )
        self.stub = SegmentationStub(self.channel)
        self.http = httpx.Client(base_url=self._gateway.url, timeout=60)
        return self.http

    @property
    def gateway(self) -> Gateway:
        assert self._gateway
        return self._gateway

    def wait_ready(self, variant: str = "demo", workers: int = 1) -> None:
        async def waiting() -> None:
            while self.gateway.router.pool(variant).ready != workers:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

        self.run(waiting())

    def stop(self) -> None:
        """Let the gateway finish and go, if there is one."""
        if self._gateway:
            assert self.channel
            self.http.close()
            self.channel.close()
            self.run(self._gateway.stop(asyncio.Event()))
            self._gateway = None

    def close(self) -> None:
        self.stop()
        for worker in self._workers:
            self.run(worker.die())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@pytest.fixture
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A house of the test's own, empty."""
    house = House(tmp_path_factory.mktemp("h"))
    yield house
    house.close()


@pytest.fixture
def keys(tmp_path: Path) -> KeysFile:
    """A file with two keys that have no limits."""
    return KeysFile(tmp_path / "keys.toml", alice={}, bob={})


@pytest.fixture
def served(house: House) -> House:
    """A house with one ready worker of "demo"; a body may have 100,000 bytes."""
    worker = house.worker()
    house.run(worker.start())
    house.open(worker, max_body_bytes=100_000)
    house.wait_ready()
    return house
