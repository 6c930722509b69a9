"""What a worker tells of its requests: a span each, and beneath it the stages that `timings_ms` has."""

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pytest

from service.pb.efficientsam3.v1 import segmentation_pb2 as pb
from service.pb.efficientsam3.v1.segmentation_pb2_grpc import SegmentationStub
from tests.collector import INTERNAL, SERVER, Collector, Seen, collecting
from tests.worker.conftest import Start, asking, picture, run

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
METADATA = (("traceparent", f"00-{TRACE}-{CALLER}-01"), ("x-request-id", "r1"))
PROMPTS = (pb.Prompt(text="dog"), pb.Prompt(text="cat"), pb.Prompt(points=[pb.Point(x=5, y=5)]))


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


def _ms(stages: list[Seen]) -> dict[str, float]:
    """Milliseconds by stage, added up."""
    added: dict[str, float] = defaultdict(float)
    for stage in stages:
        added[stage.name] += (stage.end - stage.start) / 1e6
    return added


def test_a_request_is_a_span_with_its_stages_beneath(start: Start, collector: Collector) -> None:
    told: dict[str, Any] = {}

    async def scenario() -> None:
        async with start(trace_endpoint=collector.endpoint) as client:
            stub: Any = SegmentationStub(client.channel)
            told["Segment"] = (await stub.Segment(asking(*PROMPTS), metadata=METADATA)).timings_ms
            keep = pb.EncodeImageRequest(image=pb.Image(data=picture()))
            told["EncodeImage"] = (await stub.EncodeImage(keep)).timings_ms

    run(scenario())
    served = collector.one("efficientsam3.v1.Segmentation/Segment")
    assert (served.process, served.kind) == ("efficientsam3-worker", SERVER)
    assert (served.trace, served.parent) == (TRACE, CALLER)
    assert served.facts == {
        "rpc.method": "efficientsam3.v1.Segmentation/Segment",
        "efficientsam3.request_id": "r1",
        "efficientsam3.kind": "ok",
    }
    for method, told_ms in told.items():
        timings_ms = {stage: ms for stage, ms in told_ms.items() if stage != "total"}
        served = collector.one(f"efficientsam3.v1.Segmentation/{method}")
        stages = collector.beneath(served)
        assert _ms(stages) == pytest.approx(timings_ms, abs=0.001)
        assert {stage.kind for stage in stages} == {INTERNAL}
        assert all(served.start <= stage.start <= stage.end <= served.end for stage in stages)


def test_what_is_refused_unworked_has_no_stages(start: Start, collector: Collector) -> None:
    async def scenario() -> None:
        async with start(trace_endpoint=collector.endpoint) as client:
            await client.refused(pb.SegmentRequest())
            await client.refused(asking(data=b"\xff\xd8\xff no image"))

    run(scenario())
    unworked, unreadable = collector.named("efficientsam3.v1.Segmentation/Segment")
    assert [unworked.facts["efficientsam3.kind"], unreadable.facts["efficientsam3.kind"]] == [
        "invalid_argument",
        "unsupported_image",
    ]
    assert not collector.beneath(unworked)
    assert [stage.name for stage in collector.beneath(unreadable)] == ["queue", "decode"]
