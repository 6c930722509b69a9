"""Spans of requests, as a collector sees them."""

import base64
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from service.errors import Kind, ServiceError
from service.pb.efficientsam3.v1 import segmentation_pb2 as pb
from service.pb.efficientsam3.v1 import tracking_pb2
from service.pb.efficientsam3.v1.tracking_pb2_grpc import TrackingStub
from tests.collector import CLIENT, SERVER, Collector, collecting
from tests.gateway.conftest import House
from tests.gateway.fake_worker import FakeWorker
from tests.gateway.keyed import SESSION, frame, stream
from tests.keys import KeysFile, authorization, secret
from tests.serving import free_ports

IMAGE = b"the bytes of an image"
BODY: dict[str, Any] = {
    "image": {"base64": base64.b64encode(IMAGE).decode()},
    "prompts": [{"text": "truck"}],
}
REQUEST = pb.SegmentRequest(image=pb.Image(data=IMAGE), prompts=[pb.Prompt(text="truck")])
TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = f"00-{TRACE}-{CALLER}-01"
UNSAMPLED = f"00-{TRACE}-{CALLER}-00"
SEGMENT = "POST /v1/segment"


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


def _open(house: House, collector: Collector, workers: int = 1, **settings: Any) -> list[FakeWorker]:
    """A gateway that is traced, and its workers."""
    started = [house.worker() for _ in range(workers)]
    for worker in started:
        house.run(worker.start())
    house.open(*started, trace_endpoint=collector.endpoint, **settings)
    house.wait_ready(workers=workers)
    return started


def test_an_http_request_is_a_span_between_the_callers_and_the_workers(
    house: House, collector: Collector
) -> None:
    (worker,) = _open(house, collector)
    sent = {"traceparent": PARENT, "tracestate": "vendor=1", "X-Request-Id": "r1"}
    assert house.http.post("/v1/segment", json=BODY, headers=sent).status_code == 200
    house.stop()
    served, asked = collector.one(SEGMENT), collector.one("ask worker")
    assert (served.process, served.kind, served.failed) == ("efficientsam3-gateway", SERVER, False)
    assert (served.trace, served.parent) == (TRACE, CALLER)
    assert served.facts == {
        "http.request.method": "POST",
        "http.route": "/v1/segment",
        "efficientsam3.request_id": "r1",
        "efficientsam3.variant": "demo",
        "efficientsam3.kind": "ok",
    }
    assert (asked.kind, asked.trace, asked.parent) == (CLIENT, TRACE, served.id)
    assert asked.facts == {"efficientsam3.worker": worker.address, "efficientsam3.kind": "ok"}
    assert served.start <= asked.start <= asked.end <= served.end
    assert worker.traceparents == [f"00-{TRACE}-{asked.id}-01"]
    assert len(collector.spans) == 2


def test_a_grpc_request_is_one_too(house: House, collector: Collector) -> None:
    (worker,) = _open(house, collector)
    house.stub.Segment(REQUEST, metadata=(("traceparent", PARENT), ("x-request-id", "r2")))
    house.stop()
    served, asked = collector.one("efficientsam3.v1.Segmentation/Segment"), collector.one("ask worker")
    assert (served.kind, served.trace, served.parent) == (SERVER, TRACE, CALLER)
    assert served.facts == {
        "rpc.method": "efficientsam3.v1.Segmentation/Segment",
        "efficientsam3.request_id": "r2",
        "efficientsam3.variant": "demo",
        "efficientsam3.kind": "ok",
    }
    assert (asked.kind, asked.parent) == (CLIENT, served.id)
    assert worker.traceparents == [f"00-{TRACE}-{asked.id}-01"]


def test_a_request_without_a_caller_begins_a_trace(house: House, collector: Collector) -> None:
    _open(house, collector)
    for _ in range(2):
        house.http.post("/v1/segment", json=BODY)
    # Not one that there could be.
    house.http.post("/v1/segment", json=BODY, headers={"traceparent": f"00-{32 * '0'}-{CALLER}-01"})
    house.stop()
    spans = collector.named(SEGMENT)
    assert [span.parent for span in spans] == ["", "", ""]
    assert len({span.trace for span in spans}) == 3


def test_each_try_is_a_span_of_its_own(house: House, collector: Collector) -> None:
    workers = _open(house, collector, workers=2)
    for worker in workers:
        worker.failure = ServiceError(Kind.UNAVAILABLE, "I am about to stop.")
    assert house.http.post("/v1/segment", json=BODY).status_code == 503
    house.stop()
    served = collector.one(SEGMENT)
    asked = collector.beneath(served)
    assert [span.name for span in asked] == ["ask worker"] * 2
    assert {span.facts["efficientsam3.worker"] for span in asked} == {worker.address for worker in workers}
    assert [span.facts["efficientsam3.kind"] for span in (served, *asked)] == ["unavailable"] * 3
    assert served.failed and all(span.failed for span in asked)


def test_a_span_says_how_its_request_ended(house: House, collector: Collector) -> None:
    (worker,) = _open(house, collector)
    for path, body in (
        ("/v1/segment", {**BODY, "prompts": []}),
        ("/v1/segment", {**BODY, "variant": "nope"}),
        ("/v1/nowhere", {}),
        ("/v1/sessions/a/frames", {}),
    ):
        house.http.post(path, json=body)
    with pytest.raises(grpc.RpcError):
        house.stub.Segment(pb.SegmentRequest())
    worker.failure = ServiceError(Kind.INTERNAL, "told by the worker")
    house.http.post("/v1/segment", json=BODY)
    house.http.get("/healthz")
    house.stop()
    told = [
        (span.name, span.facts["efficientsam3.kind"], span.failed)
        for span in sorted(collector.spans, key=lambda each: each.start)
    ]
    assert told == [
        (SEGMENT, "invalid_argument", False),
        (SEGMENT, "variant_not_found", False),
        ("POST", "not_found", False),
        ("POST /v1/sessions/{id}/frames", "invalid_argument", False),
        ("efficientsam3.v1.Segmentation/Segment", "invalid_argument", False),
        (SEGMENT, "internal", True),
        ("ask worker", "internal", True),
    ]


def test_a_client_that_left_is_told_of(house: House, collector: Collector) -> None:
    (worker,) = _open(house, collector)
    house.tell(worker.gate.clear)
    asking = house.stub.Segment.future(REQUEST)
    assert worker.arrived.wait(30)
    asking.cancel()
    assert worker.cancelled.wait(30)
    house.stop()
    kinds = [span.facts["efficientsam3.kind"] for span in collector.spans]
    assert kinds == ["cancelled"] * 2


def test_frames_of_a_websocket_are_traces_of_their_own_that_are_linked_to_it(
    house: House, collector: Collector
) -> None:
    _open(house, collector)
    with stream(house, traceparent=PARENT) as socket:
        for _ in range(2):
            assert frame(socket)["type"] == "/problems/session_not_found"
    house.stop()
    opened = collector.one("WS /v1/sessions/{id}/stream")
    assert (opened.kind, opened.trace, opened.parent) == (SERVER, TRACE, CALLER)
    frames = collector.named("WS /v1/sessions/{id}/stream frame")
    assert [(span.kind, span.parent, span.links) for span in frames] == [
        (SERVER, "", ((TRACE, opened.id),))
    ] * 2
    assert len({TRACE, *(span.trace for span in frames)}) == 3
    for span in frames:
        assert span.facts.pop("efficientsam3.request_id")
        assert span.facts == {
            "http.route": "/v1/sessions/{id}/stream",
            "efficientsam3.kind": "session_not_found",
        }


def test_messages_of_a_grpc_stream_are_too(house: House, collector: Collector) -> None:
    _open(house, collector)
    assert house.channel
    opening = tracking_pb2.OpenSessionRequest(variant="nope")
    with pytest.raises(grpc.RpcError):
        asked = iter([tracking_pb2.TrackRequest(open=opening)])
        list(TrackingStub(house.channel).Track(asked, metadata=(("traceparent", PARENT),)))
    house.stop()
    opened = collector.one("efficientsam3.v1.Tracking/Track")
    assert (opened.trace, opened.parent) == (TRACE, CALLER)
    message = collector.one("efficientsam3.v1.Tracking/Track open")
    assert (message.kind, message.parent, message.links) == (SERVER, "", ((TRACE, opened.id),))
    assert message.facts["efficientsam3.kind"] == "variant_not_found"


@pytest.mark.parametrize(
    ("ratio", "parent"), [(1.0, UNSAMPLED), (0.0, None)], ids=["by the caller", "by the ratio"]
)
def test_what_is_sampled_out_is_not_sent(
    house: House, collector: Collector, ratio: float, parent: str | None
) -> None:
    (worker,) = _open(house, collector, trace_sample_ratio=ratio)
    headers = {"traceparent": parent} if parent else {}
    metadata = tuple(headers.items())
    assert house.http.post("/v1/segment", json=BODY, headers=headers).status_code == 200
    house.stub.Segment(REQUEST, metadata=metadata)
    with stream(house, **headers) as socket:
        frame(socket)
    # The worker is not to decide it otherwise: the lowest bit says that it is sampled.
    assert [int((told or "1")[-2:], 16) & 1 for told in worker.traceparents] == [0, 0]
    # Of this one it is known that it is sent.
    house.http.get("/v1/variants", headers={"traceparent": PARENT})
    house.stop()
    assert [span.name for span in collector.spans] == ["GET /v1/variants"]


def test_all_frames_of_a_stream_are_sampled_or_none(house: House, collector: Collector) -> None:
    _open(house, collector, trace_sample_ratio=0.0)
    with stream(house, traceparent=PARENT) as socket:
        for _ in range(3):
            frame(socket)
    house.stop()
    assert len(collector.named("WS /v1/sessions/{id}/stream frame")) == 3


def test_a_share_of_the_traces_is_sampled(house: House, collector: Collector) -> None:
    _open(house, collector, trace_sample_ratio=0.5)
    for _ in range(200):
        house.http.get("/v1/variants")
    house.stop()
    assert 50 < len(collector.spans) < 150


def test_nothing_of_a_request_itself_is_sent(house: House, collector: Collector, keys: KeysFile) -> None:
    _open(house, collector, keys_file=keys.path)
    headers = authorization("alice")
    for asked in (headers, {}):
        house.http.post("/v1/segment", json=BODY, headers=asked)
        house.http.post("/v1/segment?text=truck", json=BODY, headers=asked)
        house.http.get(f"/v1/sessions/{SESSION}", headers=asked)
    house.stub.Segment(REQUEST, metadata=(("authorization", headers["Authorization"]),))
    with stream(house, **headers) as socket:
        frame(socket, prompts=[{"text": "truck"}])
    house.stop()
    assert len(collector.spans) > 8
    told = b"".join(collector.raw)
    assert b"/v1/sessions/{id}" in told
    for private in (IMAGE, base64.b64encode(IMAGE), b"truck", secret("alice").encode(), SESSION.encode()):
        assert private not in told


def test_a_collector_that_is_away_hurts_no_request(house: House) -> None:
    (port,) = free_ports(1)
    worker = house.worker()
    house.run(worker.start())
    house.open(worker, trace_endpoint=f"http://127.0.0.1:{port}")
    house.wait_ready()
    for _ in range(5):
        assert house.http.post("/v1/segment", json=BODY).status_code == 200
    house.stop()


def test_a_collector_that_takes_nothing_hurts_no_request(house: House, collector: Collector) -> None:
    collector.open.clear()
    _open(house, collector)
    for _ in range(5):
        assert house.http.post("/v1/segment", json=BODY).status_code == 200
    assert collector.arrived.wait(60)
    # It has not let go of what it was sent, and requests go on.
    for _ in range(5):
        assert house.http.post("/v1/segment", json=BODY).status_code == 200
    house.stop()
    assert not collector.spans
