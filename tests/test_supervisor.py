"""Worker processes that die, stop and lose their supervisor. The processes are real, the workers fakes."""

import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.gateway.serve_fakes import Served

BODY: dict[str, Any] = {"image": {"base64": "YQ=="}, "prompts": [{"text": "truck"}]}


Start = Callable[..., Served]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a supervisor: `start("2", "demo")` has two workers of demo."""
    with ExitStack() as stack:
        yield lambda *arguments, log="log", **environment: stack.enter_context(
            Served(tmp_path / log, *arguments, **environment)
        )


def test_a_worker_that_is_killed_is_started_again(start: Start) -> None:
    served = start("1", "demo")
    served.wait_for("demo is ready")
    (killed,) = served.workers()
    killed.kill()
    served.wait_for("worker demo was killed by SIGKILL; starting it again in 0.2 s")
    assert httpx.post(f"{served.url}/v1/segment", json=BODY, timeout=60).status_code == 200
    (restarted,) = served.workers()
    assert restarted.pid != killed.pid


def test_the_log_is_of_json_where_that_is_asked_for(start: Start) -> None:
    served = start("1", "demo", EFFICIENTSAM3_LOG_FORMAT="json")
    served.wait_for("demo is ready")
    headers = {"X-Request-Id": "mine"}
    assert httpx.post(f"{served.url}/v1/segment", json=BODY, headers=headers, timeout=60).is_success
    served.wait_for('"mine"')
    lines = [json.loads(line) for line in served.log.read_text().splitlines() if line.startswith("{")]
    (told,) = [line for line in lines if line.get("request_id") == "mine"]
    assert told["logger"] == "service.request" and told["level"] == "INFO" and told["time"].endswith("+00:00")
    assert (told["target"], told["variant"], told["kind"]) == ("POST /v1/segment", "demo", "ok")
    assert told["ms"] > 0 and "request_id=mine" in told["message"] and "YQ==" not in served.log.read_text()
    assert any("is ready" in line["message"] for line in lines)


def test_a_worker_that_cannot_start_is_tried_less_and_less(start: Start) -> None:
    served = start("1", "broken")
    for delay in ("0.2", "0.4", "0.8"):
        served.wait_for(f"worker broken exited with code 3; starting it again in {delay} s")
    answer = httpx.get(f"{served.url}/readyz", params={"variant": "broken"})
    assert (answer.status_code, answer.json()["variants"]["broken"]["workers_ready"]) == (503, 0)
    assert httpx.get(f"{served.url}/readyz").status_code == 200


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_and_leaves_nothing(start: Start, number: signal.Signals) -> None:
    served = start("2", "demo", "other")
    served.wait_for("Try: curl")
    workers, folder = served.workers(), served.folder()
    assert len(workers) == 4
    assert folder.stat().st_mode & 0o777 == 0o700
    # A variant is ready with its first worker; on a busy machine the second comes a while later.
    for _ in range(600):
        if len(list(folder.iterdir())) == 4:
            break
        time.sleep(0.05)
    assert len(list(folder.iterdir())) == 4
    served.process.send_signal(number)
    assert served.process.wait(30) == 0
    assert not any(worker.is_running() for worker in workers)
    assert not folder.exists()
    assert "Traceback" not in served.log.read_text()


def test_workers_do_not_outlive_a_killed_supervisor(start: Start) -> None:
    served = start("2", "demo")
    served.wait_for("demo is ready")
    workers = served.workers()
    served.process.kill()
    gone, alive = psutil.wait_procs(workers, timeout=30)
    assert (len(gone), alive) == (2, [])


def test_what_a_frozen_worker_has_is_answered_by_another(start: Start) -> None:
    served = start("2", "demo")
    while httpx.get(f"{served.url}/readyz").json()["variants"]["demo"]["workers_ready"] < 2:
        time.sleep(0.02)
    frozen, _ = served.workers()
    with ThreadPoolExecutor() as threads, _suspended(frozen):
        ask = partial(httpx.post, f"{served.url}/v1/segment", json=BODY, timeout=60)
        # Every other request goes to the frozen worker for as long as it is thought to be ready.
        asked = [threads.submit(ask, headers={"X-Deadline-Ms": "30000"}) for _ in range(4)]
        assert [each.result().status_code for each in asked] == [200] * 4


@contextmanager
def _suspended(process: psutil.Process) -> Iterator[None]:
    process.suspend()
    try:
        yield
    finally:
        process.resume()


def _asking_forever(served: Served) -> tuple[threading.Thread, list[httpx.Response | httpx.TransportError]]:
    """A request that its worker never answers, under way."""
    ended: list[httpx.Response | httpx.TransportError] = []
    url = served.url

    def ask() -> None:
        try:
            ended.append(
                httpx.post(f"{url}/v1/segment", json={**BODY, "prompts": [{"text": "forever"}]}, timeout=60)
            )
        except httpx.TransportError as error:
            ended.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    while 'inflight_requests{variant="demo"} 1.0' not in httpx.get(f"{url}/metrics").text:
        time.sleep(0.02)
    return thread, ended


def test_a_second_signal_does_not_wait_for_requests(start: Start) -> None:
    served = start("1", "demo")
    served.wait_for("demo is ready")
    thread, ended = _asking_forever(served)
    served.process.terminate()
    served.wait_for("A second signal stops at once")
    served.process.terminate()
    assert served.process.wait(20) == 0
    thread.join()
    assert len(ended) == 1
    assert "Traceback" not in served.log.read_text()


def test_what_does_not_finish_in_time_is_cut_off(start: Start) -> None:
    served = start("1", "demo", EFFICIENTSAM3_DRAIN_S="1")
    served.wait_for("demo is ready")
    thread, ended = _asking_forever(served)
    served.process.terminate()
    assert served.process.wait(20) == 0
    thread.join()
    (answer,) = ended
    assert isinstance(answer, httpx.Response)
    assert (answer.status_code, answer.json()["type"]) == (503, "/problems/unavailable")
    assert "stopped" in answer.json()["detail"]
    assert "Traceback" not in served.log.read_text()


def test_a_worker_that_ignores_sigterm_is_killed(start: Start) -> None:
    served = start("1", "stubborn", EFFICIENTSAM3_DRAIN_S="0.5")
    served.wait_for("stubborn is ready")
    (worker,) = served.workers()
    served.process.terminate()
    assert served.process.wait(20) == 0
    served.wait_for("worker stubborn did not stop in time and is killed")
    assert not worker.is_running()


def test_a_second_signal_does_not_wait_for_workers(start: Start) -> None:
    served = start("1", "stubborn", EFFICIENTSAM3_DRAIN_S="600")
    served.wait_for("stubborn is ready")
    (worker,) = served.workers()
    served.process.terminate()
    served.wait_for("asked to stop")
    served.process.terminate()
    assert served.process.wait(20) == 0
    assert not worker.is_running()


def test_the_folder_of_a_killed_supervisor_is_removed_and_that_of_a_living_one_kept(
    start: Start, tmp_path: Path
) -> None:
    killed, living = start("1", "demo"), start("1", "demo", log="living")
    for each in (killed, living):
        each.wait_for("demo is ready")
    left, kept = killed.folder(), living.folder()
    (worker,) = killed.workers()
    worker.kill()
    killed.process.kill()
    killed.process.wait()
    foreign = tmp_path / "efficientsam3-checkout"
    foreign.mkdir()
    (foreign / "file").touch()
    assert left.exists()
    start("1", "demo", log="next").wait_for("demo is ready")
    assert not left.exists()
    assert kept.exists() and foreign.exists()
    assert httpx.post(f"{living.url}/v1/segment", json=BODY, timeout=60).status_code == 200
