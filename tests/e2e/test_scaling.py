"""A variant's workers come with its requests and go with them: from none, to several, to none."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from service.client import Client
from tests.autoscaler import Autoscaler
from tests.deployment import Process
from tests.listed import ListedGateway
from tests.place import DEMO, PATIENCE_S
from tests.tracked_clip import SAMPLES

_CLIENTS = 12
_AT_MOST = 3


def test_workers_come_and_go_with_the_requests(tmp_path: Path) -> None:
    def worker(number: int) -> tuple[str, Process]:
        address = f"unix:{tmp_path}/{number}.sock"
        options = ("worker", DEMO.name, "--store", str(DEMO.parent), "--threads", "1", "--listen", address)
        return address, Process(tmp_path / f"worker-{number}.log", {}, *options)

    picture = (SAMPLES / "street.jpg").read_bytes()
    settings = {"probe_interval_s": 0.2, "default_deadline_ms": PATIENCE_S * 1000}
    with ListedGateway(tmp_path, DEMO.name, **settings) as gateway:
        scaler = Autoscaler(
            gateway, DEMO.name, worker, requests_per_worker=4, at_most=_AT_MOST, cooldown_s=2.0
        )
        with scaler, Client(gateway.url, timeout_s=PATIENCE_S) as client:
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
                    gateway.wait(lambda: gateway.told("workers_ready", variant=DEMO.name) == _AT_MOST)
                finally:
                    full.set()
                # Whoever was admitted was answered: nothing raised.
                for each in asking:
                    each.result()
            assert len(answered) >= 3 * _CLIENTS and all(answered)
            gateway.wait(lambda: scaler.history[-1] == 0 or scaler.failure is not None)
            assert scaler.failure is None
            assert max(scaler.history) == _AT_MOST
            assert set(scaler.left()) == {0}
