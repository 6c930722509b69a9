"""`efficientsam3 serve` as a process of its own, as a user starts it."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import grpc
import httpx
import psutil

from service.pb.efficientsam3.v1.segmentation_pb2_grpc import SegmentationStub


def free_ports(count: int) -> list[int]:
    """Ports on loopback that nothing listens on now, all different."""
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports


class Serving:
    """A running `efficientsam3 serve`: its HTTP and gRPC addresses, its processes, its log.

    Args:
        named: False: the command names no variant, so it serves the embedded one.
        also: other variants of the same store.
    """

    def __init__(
        self,
        artefact: Path,
        log: Path,
        *,
        named: bool = True,
        also: Sequence[str] = (),
        **settings: object,
    ) -> None:
        self.http_port, self.grpc_port = free_ports(2)
        self.url = f"http://127.0.0.1:{self.http_port}"
        self.log = log
        environment = {
            **os.environ,
            "EFFICIENTSAM3_STORE": str(artefact.parent),
            "EFFICIENTSAM3_HTTP_PORT": str(self.http_port),
            "EFFICIENTSAM3_GRPC_PORT": str(self.grpc_port),
            **{f"EFFICIENTSAM3_{name.upper()}": str(value) for name, value in settings.items()},
        }
        variants = [artefact.name, *also] if named else []
        command = [sys.executable, "-m", "service.cli", "serve", *variants]
        with log.open("wb") as output:
            self.process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
        self.variant = artefact.name
        self.client = httpx.Client(base_url=self.url, timeout=300)

    def address(self, way: str) -> str:
        """The gateway's, over "http" or "grpc"."""
        return self.url if way == "http" else f"grpc://127.0.0.1:{self.grpc_port}"

    def __enter__(self) -> "Serving":
        self.wait_until_ready()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.client.close()
        if self.process.poll() is None:
            self.stop()

    def wait_until_ready(self, seconds: float = 180, variant: str = "") -> None:
        """Return when the variant has a ready worker: the first, or another that is named."""
        for _ in range(int(seconds * 5)):
            if self.process.poll() is not None:
                break
            try:
                if self.client.get("/readyz", params={"variant": variant or self.variant}).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.2)
        raise AssertionError(f"not ready (exit code {self.process.poll()}):\n{self.log.read_text()}")

    def workers(self) -> list[psutil.Process]:
        """The worker processes that live."""
        found = list[psutil.Process]()
        for child in psutil.Process(self.process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if "worker" in child.cmdline():
                    found.append(child)
        return found

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=60)

    def segment(self, image: bytes, request: dict[str, Any]) -> httpx.Response:
        """POST /v1/segment as multipart."""
        body = httpx.Request(
            "POST",
            f"{self.url}/v1/segment",
            files={"image": ("picture", image, "application/octet-stream")},
            data={"request": json.dumps(request)},
        )
        return self.client.send(body)

    def stub(self) -> SegmentationStub:
        """A gRPC stub on the gateway."""
        options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        return SegmentationStub(grpc.insecure_channel(f"127.0.0.1:{self.grpc_port}", options=options))
