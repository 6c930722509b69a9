"""Which worker answers, and what happens while there is none."""

import asyncio
import base64
import threading
from typing import Any

import grpc
import httpx
import pytest

from service.config import ConfigurationError
from service.errors import Kind, ServiceError
from service.pb.efficientsam3.v1 import segmentation_pb2 as pb
from service.rpc import from_rpc_error
from tests.gateway.conftest import House
from tests.gateway.fake_worker import FakeWorker

BODY: dict[str, Any] = {"image": {"base64": base64.b64encode(b"x").decode()}, "prompts": [{"text": "truck"}]}


class Asking(threading.Thread):
    """A request in a thread of its own."""

    def __init__(self, house: House, **headers: str) -> None:
        super().__init__()
        self._house = house
        self._headers = headers
        self._answer: httpx.Response | None = None
        self.start()

    def run(self) -> None:
        self._answer = self._house.http.post("/v1/segment", json=BODY, headers=self._headers)

    def answer(self) -> httpx.Response:
        self.join(60)
        assert self._answer is not None
        return self._answer


def _inflight(house: House, expected: float) -> None:
    """Return when so many requests are in flight."""
    for _ in range(3000):
        if (
            house.gateway.telemetry.registry.get_sample_value(
                "efficientsam3_inflight_requests", {"variant": "demo"}
            )
            == expected
        ):
            return
        house.run(asyncio.sleep(0.01))
    raise AssertionError("the requests never came in flight")


def test_without_a_ready_worker_a_request_waits_for_its_deadline(house: House) -> None:
    house.open(house.worker())
    answer = house.http.post("/v1/segment", json=BODY, headers={"X-Deadline-Ms": "300"})
    assert (answer.status_code, answer.json()["type"]) == (503, "/problems/unavailable")
    assert answer.json()["detail"] == "Variant demo has no ready worker: of 1 configured, 1 not reachable."
    assert int(answer.headers["retry-after"]) >= 1

    with pytest.raises(grpc.RpcError) as failure:
        house.stub.Segment(
            pb.SegmentRequest(image=pb.Image(data=b"x"), prompts=[pb.Prompt(text="a")]), timeout=1
        )
    error = from_rpc_error(failure.value)
    assert (error.kind, error.detail) == (Kind.UNAVAILABLE, answer.json()["detail"])


def test_what_is_missing_is_said(house: House) -> None:
    starting, misplaced, absent = house.worker(), house.worker("other"), house.worker()
    house.run(starting.start(serving=False))
    house.run(misplaced.start())
    house.open(workers={"demo": [starting.address, misplaced.address, absent.address]})

    def missing() -> str:
        return str(house.http.get("/readyz").json()["variants"]["demo"]["missing"])

    wanted = "of 3 configured, 1 not reachable, 1 starting, 1 serving another variant"
    while missing() != wanted:
        house.run(asyncio.sleep(0.01))
    house.run(starting.serve(True))
    house.wait_ready()
    assert missing() == "of 3 configured, 1 not reachable, 1 ready, 1 serving another variant"


def test_a_request_is_held_for_a_worker_that_comes_up_late(house: House) -> None:
    late = house.worker()
    house.open(late)
    asking = Asking(house)
    _inflight(house, 1)
    house.run(late.start(serving=False))
    house.run(late.serve(True))
    assert asking.answer().status_code == 200
    _inflight(house, 0)


def test_the_deadline_bounds_the_worker_too(served: House) -> None:
    worker = served._workers[0]
    served.tell(worker.gate.clear)
    answer = served.http.post("/v1/segment", json=BODY, headers={"X-Deadline-Ms": "200"})
    assert (answer.status_code, answer.json()["type"]) == (504, "/problems/deadline_exceeded")
    assert worker.cancelled.wait(30)


def _two(house: House) -> tuple[FakeWorker, FakeWorker]:
    one, other = house.worker(), house.worker()
    house.run(one.start())
    house.run(other.start())
    house.open(one, other)
    house.wait_ready(workers=2)
    return one, other


def test_the_worker_with_the_fewest_requests_is_next(house: House) -> None:
    workers = _two(house)
    for worker in workers:
        house.tell(worker.gate.clear)
    asking = [Asking(house) for _ in range(6)]
    while sum(len(worker.asked) for worker in workers) < 6:
        house.run(asyncio.sleep(0.01))
    assert [len(worker.asked) for worker in workers] == [3, 3]
    for worker in workers:
        house.tell(worker.gate.set)
    assert [each.answer().status_code for each in asking] == [200] * 6


def test_a_request_whose_worker_dies_is_sent_to_another_once(house: House) -> None:
    one, other = _two(house)
    house.tell(one.gate.clear)
    house.tell(other.gate.clear)
    asking = Asking(house)
    while not (one.asked or other.asked):
        house.run(asyncio.sleep(0.01))
    struck, spared = (one, other) if one.asked else (other, one)
    house.run(struck.die())
    assert spared.arrived.wait(30)
    house.tell(spared.gate.set)
    assert asking.answer().status_code == 200
    assert (len(struck.asked), len(spared.asked)) == (1, 1)


def test_a_request_is_never_sent_a_third_time(house: House) -> None:
    workers = [house.worker() for _ in range(3)]
    for worker in workers:
        house.run(worker.start())
        house.tell(worker.gate.clear)
    house.open(*workers)
    house.wait_ready(workers=3)
    asking = Asking(house)
    for _ in range(2):
        while not (struck := [each for each in workers if each.arrived.is_set()]):
            house.run(asyncio.sleep(0.01))
        struck[0].arrived.clear()
        house.run(struck[0].die())
    answer = asking.answer()
    assert (answer.status_code, answer.json()["type"]) == (503, "/problems/unavailable")
    assert sorted(len(worker.asked) for worker in workers) == [0, 1, 1]


def test_a_worker_that_comes_back_at_its_address_is_used_again(house: House) -> None:
    worker = house.worker()
    house.run(worker.start())
    house.open(worker)
    house.wait_ready()
    house.run(worker.die())
    house.wait_ready(workers=0)
    house.run(worker.start())
    assert house.http.post("/v1/segment", json=BODY).status_code == 200


def test_no_more_is_admitted_than_may_wait(house: House) -> None:
    late = house.worker()
    house.open(late, max_waiting=2)
    asking = [Asking(house) for _ in range(2)]
    _inflight(house, 2)
    answer = house.http.post("/v1/segment", json=BODY, headers={"X-Deadline-Ms": "1000"})
    assert (answer.status_code, answer.json()["type"]) == (429, "/problems/overloaded")
    assert "demo has 2 requests waiting or running" in answer.json()["detail"]
    assert answer.headers["retry-after"] == "1"
    _inflight(house, 2)
    house.run(late.start())
    assert [each.answer().status_code for each in asking] == [200, 200]
    _inflight(house, 0)
    assert house.http.post("/v1/segment", json=BODY).status_code == 200


def test_what_workers_would_refuse_does_not_get_to_them(house: House) -> None:
    one, other = house.worker(), house.worker()
    one.capacity, other.capacity = 2, 1
    for worker in (one, other):
        house.run(worker.start())
        house.tell(worker.gate.clear)
    house.open(one, other)
    house.wait_ready(workers=2)
    assert house.http.get("/v1/variants").json()["variants"][0]["capacity"] == 3
    asking = [Asking(house) for _ in range(3)]
    _inflight(house, 3)
    answer = house.http.post("/v1/segment", json=BODY)
    assert (answer.status_code, answer.json()["type"]) == (429, "/problems/overloaded")
    assert answer.headers["retry-after"] == "1"
    assert len(one.asked) + len(other.asked) <= 3
    house.tell(one.gate.set)
    house.tell(other.gate.set)
    assert [each.answer().status_code for each in asking] == [200] * 3
    # With one worker fewer there is room for fewer.
    house.run(one.die())
    house.wait_ready(workers=1)
    assert house.http.get("/v1/variants").json()["variants"][0]["capacity"] == 1


def test_a_request_that_no_worker_had_is_not_said_to_have_lost_one(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    house.open(house.worker())
    answer = house.http.post("/v1/segment", json=BODY, headers={"X-Deadline-Ms": "100"})
    assert answer.status_code == 503
    assert "went away" not in caplog.text


def test_workers_may_come_and_go_while_it_runs(house: House) -> None:
    first, second = house.worker(), house.worker()
    house.run(first.start())
    house.run(second.start())
    house.open(first)
    house.wait_ready()
    pool = house.gateway.router.pool("demo")
    house.tell(lambda: pool.place([first.address, second.address]))
    house.wait_ready(workers=2)
    house.tell(lambda: pool.place([second.address]))
    house.wait_ready(workers=1)
    assert house.http.post("/v1/segment", json=BODY).status_code == 200
    assert (len(first.asked), len(second.asked)) == (0, 1)


def test_a_stopping_gateway_finishes_what_it_admitted(served: House) -> None:
    worker = served._workers[0]
    served.tell(worker.gate.clear)
    asking = Asking(served)
    assert worker.arrived.wait(30)
    stopping = asyncio.run_coroutine_threadsafe(served.gateway.stop(asyncio.Event()), served._loop)
    while not served.gateway.router.draining:
        served.run(asyncio.sleep(0.01))
    served.tell(worker.gate.set)
    assert asking.answer().status_code == 200
    stopping.result(60)
    with pytest.raises(httpx.ConnectError):
        served.http.get("/healthz")
    served._gateway = None
    assert served.channel
    served.http.close()
    served.channel.close()


def test_the_default_must_be_one_of_the_served(house: House) -> None:
    with pytest.raises(ConfigurationError, match=r"default_variant is 'other'.*demo"):
        house.open(house.worker(), default_variant="other")


def test_a_default_without_workers_says_what_to_set(house: House) -> None:
    with pytest.raises(ConfigurationError, match=r"'other'.*none; set workers .*EFFICIENTSAM3_WORKERS="):
        house.open(default_variant="other")


def test_a_worker_that_fails_again_and_again_is_set_aside(house: House) -> None:
    failing, sound = _two(house)
    failing.failure = ServiceError(Kind.INTERNAL, "broken")
    answers = [house.http.post("/v1/segment", json=BODY).status_code for _ in range(30)]
    assert answers[:6] == [500] * 5 + [200]
    # It was tried again now and then, once each time.
    assert len(sound.asked) > len(failing.asked)
    # Where there is no other it is asked all the same.
    house.run(sound.die())
    house.wait_ready(workers=1)
    assert house.http.post("/v1/segment", json=BODY).status_code == 500
    failing.failure = None
    assert house.http.post("/v1/segment", json=BODY).status_code == 200
