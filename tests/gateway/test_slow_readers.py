"""Answers that nobody reads are ended, and what they held is free."""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import grpc
import httpx
import pytest

from service.pb.efficientsam3.v1 import tracking_pb2 as pb
from service.pb.efficientsam3.v1.tracking_pb2_grpc import TrackingStub
from service.rpc import from_rpc_error
from tests.deployment import told
from tests.gateway.conftest import House
from tests.gateway.fake_tracking import ENDLESS
from tests.gateway.fake_worker import FakeWorker

# Longer than any of these tests takes.
_HANG_S = 60.0


@pytest.fixture
def worker(house: House) -> Iterator[FakeWorker]:
    """A gateway of one video at a time that waits half a second for its readers, and its worker."""
    worker = house.worker()
    house.run(worker.start())
    house.open(worker, max_videos=1, write_timeout_s=0.5)
    house.wait_ready()
    yield worker


def until(done: Any) -> None:
    """Return when it is so."""
    limit = time.monotonic() + _HANG_S
    while not done():
        assert time.monotonic() < limit
        time.sleep(0.01)


def recorded(house: House, kind: str) -> float:
    return told(house.gateway.url, "requests_total", kind=kind, variant="demo")


def files(video: bytes) -> dict[str, Any]:
    return {"video": ("clip", video), "request": (None, json.dumps({"prompts": []}))}


def unread(house: House) -> socket.socket:
    """A connection that has asked for an endless video over HTTP, and reads nothing."""
    request = httpx.Request("POST", f"{house.gateway.url}/v1/videos/track", files=files(ENDLESS))
    head = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
    connection = socket.create_connection(("127.0.0.1", house.gateway.http_port))
    connection.sendall(f"POST /v1/videos/track HTTP/1.1\r\n{head}\r\n".encode() + request.read())
    return connection


def finite(house: House, frames: int) -> list[int]:
    """The frames of such a video, over HTTP."""
    answer = house.http.post("/v1/videos/track", files=files(str(frames).encode()))
    assert answer.status_code == 200, answer.text
    return [json.loads(line)["frame"] for line in answer.text.splitlines()]


def test_an_unread_answer_over_http_is_cut_off_and_frees_its_place(house: House, worker: FakeWorker) -> None:
    with closing(unread(house)) as connection:
        until(lambda: worker.tracking.answered)
        until(lambda: not worker.tracking.under_way)
        assert recorded(house, "slow_reader") == 1
        assert finite(house, 5) == [0, 1, 2, 3, 4]
        # What lies on the way is read; then there is no end of the answer, but of the connection.
        connection.settimeout(_HANG_S)
        received = b""
        with pytest.raises(ConnectionResetError):
            while chunk := connection.recv(1_000_000):
                received = (received + chunk)[-100:]
            raise ConnectionResetError
        assert not received.endswith(b"0\r\n\r\n")


def test_an_unread_answer_over_grpc_is_cut_off_and_frees_its_place(house: House, worker: FakeWorker) -> None:
    assert house.channel
    answers = TrackingStub(house.channel).TrackVideo(pb.TrackVideoRequest(video=ENDLESS))
    assert next(answers).opened.session
    until(lambda: worker.tracking.answered)
    until(lambda: not worker.tracking.under_way)
    until(lambda: recorded(house, "slow_reader") == 1)
    assert finite(house, 5) == [0, 1, 2, 3, 4]
    with pytest.raises(grpc.RpcError):
        for _ in answers:
            pass


def test_a_client_that_reads_gets_everything(house: House, worker: FakeWorker) -> None:
    with house.http.stream("POST", "/v1/videos/track", files=files(ENDLESS)) as answer:
        lines = answer.iter_lines()
        # Far more than lies on the way, over longer than a reader may pause.
        read = [json.loads(next(lines))["frame"] for _ in range(60) if not time.sleep(0.02)]
    assert read == list(range(60))
    until(lambda: not worker.tracking.under_way)
    until(lambda: recorded(house, "cancelled") == 1)
    assert recorded(house, "slow_reader") == 0


def test_one_video_more_is_refused_and_takes_no_place_of_a_prompt(house: House, worker: FakeWorker) -> None:
    assert house.channel
    answers = TrackingStub(house.channel).TrackVideo(pb.TrackVideoRequest(video=ENDLESS))
    next(answers)
    refused = house.http.post("/v1/videos/track", files=files(b"1"))
    assert (refused.status_code, refused.json()["type"]) == (429, "/problems/overloaded")
    assert refused.json()["detail"] == "Variant demo has 1 videos being tracked; the limit is 1."
    assert int(refused.headers["retry-after"]) >= 1
    with pytest.raises(grpc.RpcError) as failure:
        next(TrackingStub(house.channel).TrackVideo(pb.TrackVideoRequest(video=b"1")))
    assert from_rpc_error(failure.value).kind == "overloaded"
    answers.cancel()
    until(lambda: not worker.tracking.under_way)
    until(lambda: house.http.post("/v1/videos/track", files=files(b"1")).status_code == 200)
