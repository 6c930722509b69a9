"""docs/observability.md says what a worker tells."""

import asyncio

import httpx
from prometheus_client import generate_latest

from service.telemetry import SharedCounts, WorkerTelemetry
from tests.documented import WORKER, rows, table
from tests.serving import free_ports
from tests.worker.conftest import Start, run


def _shared() -> list[str]:
    """The rows of a worker that shares embeddings."""
    telemetry = WorkerTelemetry("tiny")
    telemetry.watch_caches({}, lambda: SharedCounts({}, {}, 0))
    return rows(generate_latest(telemetry.registry).decode())


def test_the_page_has_every_metric_of_a_worker(start: Start) -> None:
    (port,) = free_ports(1)

    async def scenario() -> None:
        async with start(metrics_listen=f"127.0.0.1:{port}"):
            told = rows((await asyncio.to_thread(httpx.get, f"http://127.0.0.1:{port}/metrics")).text)
        assert len(told) > 5 and table(WORKER) == [*told, *(row for row in _shared() if row not in told)]

    run(scenario())


def test_beside_its_metrics_a_worker_tells_whether_it_is_ready(start: Start) -> None:
    (port,) = free_ports(1)

    async def asked() -> tuple[int, str]:
        answer = await asyncio.to_thread(httpx.get, f"http://127.0.0.1:{port}/readyz")
        return answer.status_code, answer.text

    async def scenario() -> None:
        async with start(warm=False, metrics_listen=f"127.0.0.1:{port}") as client:
            assert await asked() == (503, "not ready\n")
            await client.worker.warm()
            assert await asked() == (200, "ready\n")

    run(scenario())
