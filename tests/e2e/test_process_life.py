"""Processes that are killed, restarted and stopped."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.pictures import encoded, street
from tests.place import DEMO
from tests.serving import Serving

JPEG = encoded(street(1600, 1200), quality=92)
# Enough large masks that a worker is still computing when it is killed, and few enough for a busy machine to
# answer them within the deadline when they are computed again.
LONG: dict[str, Any] = {
    "prompts": [{"text": f"truck {index}"} for index in range(30)],
    "options": {"score_threshold": 0.0, "max_segments": 20},
}
SHORT: dict[str, Any] = {"prompts": [{"text": "truck"}]}


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Serving]:
    """A service of the test's own, since it will not be the same afterwards."""
    with Serving(DEMO, tmp_path / "log") as running:
        yield running


def _in_the_middle_of(serving: Serving, answers: list[httpx.Response]) -> threading.Thread:
    """Start a long request in a thread; return when the worker is computing it."""
    worker = serving.workers()[0]
    before = sum(worker.cpu_times()[:2])
    thread = threading.Thread(target=lambda: answers.append(serving.segment(JPEG, LONG)))
    thread.start()
    while sum(worker.cpu_times()[:2]) < before + 0.2:
        assert thread.is_alive(), "it takes too little"
        time.sleep(0.01)
    return thread


def test_a_worker_killed_in_the_middle_of_a_request_costs_that_request_at_most(serving: Serving) -> None:
    answers: list[httpx.Response] = []
    thread = _in_the_middle_of(serving, answers)
    killed = serving.workers()[0]
    killed.kill()
    thread.join()

    (answer,) = answers
    if answer.status_code == 200:
        assert len(answer.json()["results"]) == len(LONG["prompts"])
    else:
        assert answer.status_code == 503
        assert answer.json()["type"] == "/problems/unavailable"
        assert int(answer.headers["retry-after"]) >= 1
    assert serving.segment(JPEG, SHORT).status_code == 200
    assert serving.workers()[0].pid != killed.pid


def test_a_stopped_service_finishes_what_it_admitted_and_leaves_nothing(serving: Serving) -> None:
    answers: list[httpx.Response] = []
    thread = _in_the_middle_of(serving, answers)
    workers = serving.workers()
    assert serving.stop() == 0
    thread.join()
    assert answers[0].status_code == 200
    assert not any(psutil.pid_exists(worker.pid) for worker in workers)
    assert "Traceback" not in serving.log.read_text()


def test_workers_do_not_outlive_a_killed_supervisor(serving: Serving) -> None:
    workers = serving.workers()
    assert workers
    serving.process.kill()
    gone, alive = psutil.wait_procs(workers, timeout=30)
    assert not alive and len(gone) == len(workers)
