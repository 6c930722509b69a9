"""What the chart says, done on this machine: its commands with its environment, its probes, its queries."""

import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import promql_parser
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client.parser import text_string_to_metric_families

from tests.deploy.containers import container, environment
from tests.deploy.helm import EXAMPLES, Rendered, render
from tests.deployment import Process
from tests.redis_server import RedisServer
from tests.serving import free_ports

_PROBES = ("startupProbe", "livenessProbe", "readinessProbe")
_PATIENCE_S = 300.0


class Release:
    """A gateway, a worker of `demo` and a Redis, each a process that is given what its container is given.

    Only places differ: ports are free ones, and names of Services are loopback.
    """

    def __init__(self, rendered: Rendered, folder: Path, redis_server: RedisServer) -> None:
        self.http, grpc_port, self.calls, self.metrics = free_ports(4)
        self.gateway = container(rendered.one("Deployment", "gateway"))
        self.worker = container(rendered.one("Deployment", "demo"))
        workers = folder / "workers.json"
        listed = rendered.one("ConfigMap", "workers")["data"]["workers.json"]
        workers.write_text(listed.replace("dns:seg-efficientsam3-demo:50061", f"dns:localhost:{self.calls}"))
        shared = {"EFFICIENTSAM3_REDIS_URL": redis_server.url}
        places = {
            "HOST": "127.0.0.1",
            "HTTP_PORT": str(self.http),
            "GRPC_PORT": str(grpc_port),
            "WORKERS_FILE": str(workers),
        }
        own = {"LISTEN": f"localhost:{self.calls}", "METRICS_LISTEN": f"127.0.0.1:{self.metrics}"}
        self.processes = [
            Process(folder / f"{name}.log", _placed(of, shared, elsewhere), *of["command"][1:])
            for name, of, elsewhere in (("gateway", self.gateway, places), ("worker", self.worker, own))
        ]

    def start(self) -> None:
        for process in self.processes:
            process.start()

    def stop(self) -> list[int]:
        """SIGTERM; their exit codes."""
        for process in self.processes:
            process.terminate()
        return [process.ended() for process in self.processes]

    def wait(self, done: Callable[[], bool]) -> None:
        until = time.monotonic() + _PATIENCE_S
        while not done():
            assert time.monotonic() < until and all(each.runs for each in self.processes), self.logs()
            time.sleep(0.1)

    def logs(self) -> str:
        return "\n".join(each.log.read_text() for each in self.processes)

    def get(self, path: str) -> httpx.Response:
        return httpx.get(f"http://127.0.0.1:{self.http}{path}", timeout=30)


def _placed(of: dict[str, Any], shared: dict[str, str], elsewhere: dict[str, str]) -> dict[str, str]:
    moved = {f"EFFICIENTSAM3_{name}": value for name, value in elsewhere.items()}
    told = environment(of)
    assert moved.keys() <= told.keys() and shared.keys() <= told.keys()
    return {**told, **shared, **moved}


@pytest.fixture
def release(tmp_path: Path, redis_server: RedisServer) -> Iterator[Release]:
    started = Release(render(EXAMPLES[0]), tmp_path, redis_server)
    started.start()
    yield started
    for process in started.processes:
        process.kill()


def test_a_release_comes_up_answers_its_probes_and_tells_what_it_scales_by(release: Release) -> None:
    def listens() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", release.http)) == 0

    release.wait(listens)
    # The gateway is ready whether or not a worker is.
    for probe in _PROBES:
        assert release.get(release.gateway[probe]["httpGet"]["path"]).status_code == 200

    channel = grpc.insecure_channel(f"localhost:{release.calls}")
    stub = health_pb2_grpc.HealthStub(channel)

    def warmed() -> bool:
        try:
            asked = [
                health_pb2.HealthCheckRequest(service=release.worker[each]["grpc"]["service"])
                for each in _PROBES
            ]
            return all(stub.Check(each).status == health_pb2.HealthCheckResponse.SERVING for each in asked)
        except grpc.RpcError:
            return False

    release.wait(warmed)
    channel.close()
    release.wait(lambda: release.get("/readyz?variant=demo").status_code == 200)
    # Redis is reached, and sessions are kept there.
    assert release.get("/readyz").json()["session_store"] == "ready"
    opened = httpx.post(f"http://127.0.0.1:{release.http}/v1/sessions", json={}, timeout=60)
    assert opened.status_code in (200, 201), opened.text

    scaled = render(next(each for each in EXAMPLES if each.stem == "scale-to-zero"))
    for each in scaled.of_kind("ScaledObject"):
        if each["metadata"]["labels"]["efficientsam3/variant"] != "demo":
            continue
        selector = promql_parser.parse(each["spec"]["triggers"][0]["metadata"]["query"]).expr
        (monitor,) = scaled.one("ServiceMonitor", "gateway")["spec"]["endpoints"]
        families = text_string_to_metric_families(release.get(monitor["path"]).text)
        samples = [s for family in families for s in family.samples if s.name == selector.name]
        assert [s.value for s in samples if s.labels == {"variant": "demo"}] == [0.0]
    (monitor,) = scaled.one("ServiceMonitor", "worker")["spec"]["endpoints"]
    told = httpx.get(f"http://127.0.0.1:{release.metrics}{monitor['path']}").text
    assert 'efficientsam3_worker_waiting_requests{variant="demo"} 0.0' in told

    assert release.stop() == [0, 0], release.logs()
