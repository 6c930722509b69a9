"""A variant's workers come with its requests and go with them: from none, to several, to none."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from service.client import Client
from tests.autoscaler import Autoscaler
from tests.deployment import Process
from tests.place import DEMO, PATIENCE_S
from tests.serving import free_ports
from tests.tracked_clip import SAMPLES

_CLIENTS = 12
_AT_MOST = 3


def _gateway(folder: Path, file: Path) -> tuple[Process, str]:
    http, grpc = free_ports(2)
    told = {
        "EFFICIENTSAM3_WORKERS_FILE": str(file),
        "EFFICIENTSAM3_DISCOVERY_INTERVAL_S": "0.1",
        "EFFICIENTSAM3_PROBE_INTERVAL_S": "0.2",
        "EFFICIENTSAM3_DEFAULT_DEADLINE_MS": str(PATIENCE_S * 1000),
    }
    process = Process(
        folder / "gateway.log", told, "gateway", "--http-port", str(http), "--grpc-port", str(grpc)
    )
    return process, f"http://127.0.0.1:{http}"


def _wait(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _listens(url: str) -> bool:
    try:
        return httpx.get(f"{url}/healthz").is_success
    except httpx.TransportError:
        return False


def _ready(url: str) -> int:
    return int(httpx.get(f"{url}/v1/variants").json()["variants"][0]["workers_ready"])


def test_workers_come_and_go_with_the_requests(tmp_path: Path) -> None:
    def worker(number: int) -> tuple[str, Process]:
        address = f"unix:{tmp_path}/{number}.sock"
        options = ("worker", DEMO.name, "--store", str(DEMO.parent), "--threads", "1", "--listen", address)
        return address, Process(tmp_path / f"worker-{number}.log", {}, *options)

    file, picture = tmp_path / "workers.json", (SAMPLES / "street.jpg").read_bytes()
    gateway, url = _gateway(tmp_path, file)
    scaler = Autoscaler(
        DEMO.name,
        f"{url}/metrics",
        file,
        worker,
        requests_per_worker=4,
        at_most=_AT_MOST,
        cooldown_s=2.0,
    )
    gateway.start()
    try:
        _wait(lambda: _listens(url))
        with scaler, Client(url, timeout_s=PATIENCE_S) as client:
            # Long enough for somebody to scale up without being asked.
            time.sleep(1)
            assert scaler.history == [0]
            began = time.perf_counter()
            assert client.segment(picture, [{"text": "car"}], variant=DEMO.name).results[0]
            print(f"from zero: first answer after {time.perf_counter() - began:.1f} s")

            full, answered = threading.Event(), list[int]()

            def ask(number: int) -> None:
                """Until all workers have come, and a while longer."""
                rest = 3
                while rest:
                    rest -= full.is_set()
                    # What follows the end of a JPEG makes it another picture.
                    new = picture + number.to_bytes(2, "big") + len(answered).to_bytes(4, "big")
                    answer = client.segment(new, [{"text": "car"}], variant=DEMO.name)
                    answered.append(len(answer.results[0]))

            with ThreadPoolExecutor(_CLIENTS) as pool:
                asking = [pool.submit(ask, number) for number in range(_CLIENTS)]
                try:
                    _wait(lambda: _ready(url) == _AT_MOST)
                finally:
                    full.set()
                # Whoever was admitted was answered: nothing raised.
                for each in asking:
                    each.result()
            assert len(answered) >= 3 * _CLIENTS and all(answered)
            _wait(lambda: scaler.history[-1] == 0 or scaler.failure is not None)
            assert scaler.failure is None
            assert max(scaler.history) == _AT_MOST
            assert set(scaler.left()) == {0}
    finally:
        gateway.kill()
