"""Gateways and workers of one variant, each a process of its own, before one Redis: what a cluster runs."""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType

import grpc
import httpx
import psutil
from prometheus_client.parser import text_string_to_metric_families

from service.pb.efficientsam3.v1.tracking_pb2_grpc import TrackingStub
from tests.held_worker import locked
from tests.serving import free_ports

_READY_S = 180.0


def told(url: str, metric: str, **labels: str) -> float:
    """The metric's value at `url`/metrics, of all that has these labels."""
    families = text_string_to_metric_families(httpx.get(f"{url}/metrics").raise_for_status().text)
    return sum(
        sample.value
        for family in families
        for sample in family.samples
        if sample.name == f"efficientsam3_{metric}" and labels.items() <= sample.labels.items()
    )


class Process:
    """A command of ours that can be killed and started again."""

    def __init__(
        self, log: Path, environment: dict[str, str], *arguments: str, module: str = "service.cli"
    ) -> None:
        self.log = log
        self._environment = {**os.environ, **environment}
        self._command = [sys.executable, "-m", module, *arguments]
        self._process: subprocess.Popen[bytes] | None = None
        # Its processor time at the last `mark`, seconds.
        self._marked_s = 0.0

    @property
    def runs(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it, unless it runs. It is not ready yet."""
        if not self.runs:
            with self.log.open("ab") as output:
                self._process = subprocess.Popen(
                    self._command, env=self._environment, stdout=output, stderr=output
                )
            self._marked_s = 0.0

    def kill(self) -> None:
        """End it as a lost machine would (SIGKILL)."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def terminate(self) -> None:
        """Ask it to stop (SIGTERM)."""
        self._known().terminate()

    def ended(self) -> int:
        """Its exit code, once it has stopped."""
        assert self._process is not None
        return self._process.wait(60)

    def freeze(self) -> None:
        """SIGSTOP: it is there, and does nothing."""
        self._known().suspend()

    def wake(self) -> None:
        """SIGCONT: it goes on where it was."""
        self._known().resume()

    def mark(self) -> None:
        """Count `busy_s` from here."""
        self._marked_s = self._cpu_s()

    @property
    def busy_s(self) -> float:
        """Processor time since the last `mark`, seconds."""
        return self._cpu_s() - self._marked_s if self.runs else 0.0

    def resident_bytes(self) -> int:
        """Memory that it holds now."""
        return int(self._known().memory_info().rss)

    def _cpu_s(self) -> float:
        return float(sum(self._known().cpu_times()[:2]))

    def _known(self) -> psutil.Process:
        assert self._process is not None
        return psutil.Process(self._process.pid)


class Deployment:
    """Its processes, and where the gateways listen. All are killed at the end."""

    def __init__(
        self,
        artefact: Path,
        folder: Path,
        redis_url: str,
        *,
        workers: int = 2,
        gateways: int = 2,
        held: bool = False,
        **settings: object,
    ) -> None:
        """`settings` are the gateways' and the workers', which have one thread each.

        `held`: the workers are those of `tests.held_worker`.
        """
        self.variant, shared = artefact.name, {"EFFICIENTSAM3_REDIS_URL": redis_url}
        shared |= {f"EFFICIENTSAM3_{name.upper()}": str(value) for name, value in settings.items()}
        self.addresses = [f"unix:{folder}/{index}.sock" for index in range(workers)]
        self._metrics = [f"127.0.0.1:{port}" for port in free_ports(workers)]
        options = ("worker", self.variant, "--store", str(artefact.parent), "--threads", "1", "--listen")
        module = "tests.held_worker" if held else "service.cli"
        self.workers = [
            Process(
                folder / f"worker-{index}.log",
                shared | {"EFFICIENTSAM3_METRICS_LISTEN": self._metrics[index]},
                *options,
                address,
                module=module,
            )
            for index, address in enumerate(self.addresses)
        ]
        ports = free_ports(2 * gateways)
        listed = {"EFFICIENTSAM3_WORKERS": json.dumps({self.variant: self.addresses})}
        self.gateways = [
            Process(
                folder / f"gateway-{http}.log",
                shared | listed,
                *("gateway", "--http-port", str(http), "--grpc-port", str(other)),
            )
            for http, other in zip(ports[::2], ports[1::2], strict=True)
        ]
        # Of the gateways, by how they are spoken to.
        self.ports = {"http": ports[::2], "grpc": ports[1::2]}

    @property
    def urls(self) -> list[str]:
        """Of the gateways, over HTTP."""
        return self.addresses_over("http")

    def addresses_over(self, way: str) -> list[str]:
        """Of the gateways, over "http" or "grpc"."""
        return [f"{way}://127.0.0.1:{port}" for port in self.ports[way]]

    def __enter__(self) -> "Deployment":
        self.complete()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in (*self.gateways, *self.workers):
            process.kill()

    def complete(self) -> None:
        """Start what does not run; return when every gateway sees every worker ready. Marks them."""
        self.start()
        for url in self.urls:
            self._wait(lambda url=url: self._ready(url) == len(self.workers))  # type: ignore[misc]
        for worker in self.workers:
            worker.mark()

    def start(self) -> None:
        """Start what does not run."""
        for process in (*self.workers, *self.gateways):
            process.start()

    def busiest(self) -> Process:
        """The worker that computed most since it was marked: the one that has the only session."""
        return max(self.workers, key=lambda worker: worker.busy_s)

    def lose_workers(self) -> None:
        """Kill all, the busiest last, when every gateway knows that there is no other to turn to."""
        *others, last = sorted(self.workers, key=lambda worker: worker.busy_s)
        for worker in others:
            worker.kill()
        for url in self.urls:
            while self._ready(url) > 1:
                time.sleep(0.1)
        last.kill()

    def kill_workers(self) -> None:
        """All of them: nobody has anything hot any more. They are started again."""
        for worker in self.workers:
            worker.kill()
        for worker in self.workers:
            worker.start()

    def stub(self, worker: Process) -> TrackingStub:
        """Asks one worker itself, without a gateway that may lose patience with it."""
        return TrackingStub(grpc.insecure_channel(self.addresses[self.workers.index(worker)]))

    @contextmanager
    def holding(self) -> Iterator[None]:
        """No engine computes meanwhile."""
        with ExitStack() as stack:
            for address in self.addresses:
                stack.enter_context(locked(address, whole=True))
            yield

    def told(self, metric: str, worker: int | None = None, **labels: str) -> float:
        """A metric's value, of all that has these labels; the first gateway's, or a worker's."""
        url = self.urls[0] if worker is None else f"http://{self._metrics[worker]}"
        return told(url, metric, **labels)

    async def until(self, value: float, metric: str, worker: int | None = None, **labels: str) -> None:
        """Return when that is what is told."""
        while await asyncio.to_thread(self.told, metric, worker, **labels) != value:  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    def logs(self) -> str:
        """What all of them wrote."""
        return "\n".join(process.log.read_text() for process in (*self.gateways, *self.workers))

    def _ready(self, url: str) -> int:
        try:
            body = httpx.get(f"{url}/readyz").json()
        except httpx.TransportError:
            return 0
        return int(body["variants"][self.variant]["workers_ready"])

    def _wait(self, done: Callable[[], bool]) -> None:
        until = time.monotonic() + _READY_S
        while not done():
            gone: Sequence[Process] = [each for each in (*self.workers, *self.gateways) if not each.runs]
            assert not gone and time.monotonic() < until, f"not ready:\n{self.logs()}"
            time.sleep(0.2)
