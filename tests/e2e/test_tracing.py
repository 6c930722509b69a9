"""Traces across gateway and worker of the embedded student, as a collector has them once both are gone."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from model_store import registry
from service.pb.efficientsam3.v1 import segmentation_pb2 as pb
from service.pb.efficientsam3.v1 import tracking_pb2
from service.pb.efficientsam3.v1.tracking_pb2_grpc import TrackingStub
from tests.collector import CLIENT, INTERNAL, SERVER, Collector, Seen, collecting
from tests.pictures import encoded, moving_clip, moving_square
from tests.serving import Serving

CALLER = "b7ad6b7169203331"
FRAMES = 3
VIDEO = "efficientsam3.v1.Tracking/TrackVideo"
TRACK = "efficientsam3.v1.Tracking/Track"
# What a frame of a session is computed by, whatever it shows.
STAGES = {"queue", "decode", "image_encoder", "interactive_features", "masks", "store"}


def _trace(name: str) -> str:
    """The id of the trace that a request by this name lies in."""
    return name.encode().hex().ljust(32, "0")


def _parent(name: str, flags: str = "01") -> str:
    return f"00-{_trace(name)}-{CALLER}-{flags}"


@dataclass(frozen=True)
class Told:
    """What came of a service's life, after its end."""

    collector: Collector
    # The JSON of its log's lines.
    log: list[dict[str, Any]]

    def beneath(self, span: Seen, name: str, process: str, kind: int) -> Seen:
        """The only span right beneath, which is such a one."""
        (found,) = self.collector.beneath(span)
        assert (found.name, found.process, found.kind) == (name, f"efficientsam3-{process}", kind)
        assert span.start <= found.start <= found.end <= span.end
        return found


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    """Requests of every sort, and then the end of the service by SIGTERM."""
    folder = tmp_path_factory.mktemp("traced")
    artefact, log = folder / "store" / registry.EMBEDDED, folder / "log"
    with collecting() as collector:
        settings = {"trace_endpoint": collector.endpoint, "log_format": "json", "precision": "f32"}
        with Serving(artefact, log, named=False, **settings) as serving:
            _ask(serving)
            _track(f"127.0.0.1:{serving.grpc_port}", "gateway", folder)
            (worker,) = serving.workers()
            command = worker.cmdline()
            _track(command[command.index("--listen") + 1], "worker", folder)
            assert serving.stop() == 0
        said = log.read_text()
        assert "Traceback" not in said
        lines = [line for line in said.splitlines() if line.startswith("{")]
        yield Told(collector, [json.loads(line) for line in lines])


def _ask(serving: Serving) -> None:
    picture = encoded(moving_square(0), "PNG")
    for name, flags in (("http", "01"), ("quiet", "00")):
        sent = {"traceparent": _parent(name, flags), "X-Request-Id": name}
        answer = serving.client.post(
            "/v1/segment",
            files={"image": ("picture", picture)},
            data={"request": json.dumps({"prompts": [{"text": "square"}]})},
            headers=sent,
        )
        assert answer.status_code == 200, answer.text
    serving.stub().Segment(
        pb.SegmentRequest(image=pb.Image(data=picture), prompts=[pb.Prompt(points=[pb.Point(x=20, y=20)])]),
        metadata=(("traceparent", _parent("grpc")), ("x-request-id", "grpc")),
    )


def _track(address: str, name: str, folder: Path) -> None:
    """Frames of a stream, and of a video."""
    click = tracking_pb2.TrackPrompt(points=[pb.Point(x=20, y=20)])
    shots = [
        tracking_pb2.Frame(frame=index, image=pb.Image(data=encoded(moving_square(index), "PNG")))
        for index in range(FRAMES)
    ]
    shots[0].prompts.append(click)
    messages = [tracking_pb2.TrackRequest(open=tracking_pb2.OpenSessionRequest())]
    messages += [tracking_pb2.TrackRequest(frame=shot) for shot in shots]
    file = tracking_pb2.TrackVideoRequest(video=moving_clip(folder, FRAMES).read_bytes())
    file.prompts.add(frame=0, prompt=click)
    with grpc.insecure_channel(address) as channel:
        stub = TrackingStub(channel)
        stream = stub.Track(iter(messages), metadata=_sent(f"{name}.s"))
        assert [answer.HasField("frame") for answer in stream] == [False, *[True] * FRAMES]
        video = stub.TrackVideo(file, metadata=_sent(f"{name}.v"))
        assert [answer.HasField("frame") for answer in video] == [False, *[True] * FRAMES]


def _sent(name: str) -> tuple[tuple[str, str], ...]:
    return (("traceparent", _parent(name)), ("x-request-id", name))


@pytest.mark.parametrize(
    ("way", "name", "graph"),
    [
        ("http", "POST /v1/segment", "concept_decoder"),
        ("grpc", "efficientsam3.v1.Segmentation/Segment", "prompt_decoder"),
    ],
)
def test_a_request_is_one_trace_through_gateway_and_worker(
    told: Told, way: str, name: str, graph: str
) -> None:
    gateway = told.collector.one(name, trace=_trace(way), parent=CALLER)
    assert (gateway.process, gateway.kind) == ("efficientsam3-gateway", SERVER)
    asked = told.beneath(gateway, "ask worker", "gateway", CLIENT)
    served = told.beneath(asked, "efficientsam3.v1.Segmentation/Segment", "worker", SERVER)
    assert {span.facts["efficientsam3.kind"] for span in (gateway, asked, served)} == {"ok"}
    assert {span.facts["efficientsam3.request_id"] for span in (gateway, served)} == {way}
    stages = told.collector.beneath(served)
    assert {"queue", graph, "masks"} <= {stage.name for stage in stages}
    # The picture is known from the first.
    assert ("image_encoder" in {stage.name for stage in stages}) == (way == "http")
    assert all(served.start <= stage.start <= stage.end <= served.end for stage in stages)
    assert len([span for span in told.collector.spans if span.trace == _trace(way)]) == 3 + len(stages)


def test_a_streams_frames_are_linked_to_it_and_go_through_gateway_and_worker(told: Told) -> None:
    stream = told.collector.one(TRACK, trace=_trace("gateway.s"), parent=CALLER)
    linked = {"links": ((stream.trace, stream.id),), "process": "efficientsam3-gateway"}
    opened = told.collector.one(f"{TRACK} open", **linked)
    frames = told.collector.named(f"{TRACK} frame", **linked)
    assert len(frames) == FRAMES
    assert len({stream.trace, opened.trace, *(frame.trace for frame in frames)}) == FRAMES + 2
    for frame in frames:
        assert (frame.kind, frame.parent, frame.facts["efficientsam3.variant"]) == (SERVER, "", "demo")
        assert frame.facts["efficientsam3.request_id"] == "gateway.s"
        asked = told.beneath(frame, "ask worker", "gateway", CLIENT)
        served = told.beneath(asked, "efficientsam3.v1.Tracking/AddFrame", "worker", SERVER)
        assert {stage.name for stage in told.collector.beneath(served)} >= STAGES


def test_a_videos_frames_are_linked_to_its_request_on_the_worker(told: Told) -> None:
    gateway = told.collector.one(VIDEO, trace=_trace("gateway.v"), parent=CALLER)
    asked = told.beneath(gateway, "ask worker", "gateway", CLIENT)
    served = told.beneath(asked, VIDEO, "worker", SERVER)
    frames = told.collector.named(f"{VIDEO} frame", links=((served.trace, served.id),))
    assert [(frame.kind, frame.parent) for frame in frames] == [(INTERNAL, "")] * FRAMES
    for frame in frames:
        assert frame.facts["efficientsam3.request_id"] == "gateway.v"
        assert {stage.name for stage in told.collector.beneath(frame)} >= STAGES


@pytest.mark.parametrize(
    ("name", "method", "kind"), [("worker.s", TRACK, SERVER), ("worker.v", VIDEO, INTERNAL)]
)
def test_a_worker_that_is_asked_directly_tells_the_same(
    told: Told, name: str, method: str, kind: int
) -> None:
    asked = told.collector.one(method, trace=_trace(name), parent=CALLER)
    frames = told.collector.named(f"{method} frame", links=((asked.trace, asked.id),))
    assert [(frame.kind, frame.process) for frame in frames] == [(kind, "efficientsam3-worker")] * FRAMES
    for frame in frames:
        assert {stage.name for stage in told.collector.beneath(frame)} >= STAGES


def test_lines_of_the_log_name_the_trace_of_a_request_that_is_traced(told: Told) -> None:
    lines = {line.get("request_id"): line.get("trace_id") for line in told.log}
    assert (lines["http"], lines["grpc"]) == (_trace("http"), _trace("grpc"))
    # Nobody would find it.
    assert lines["quiet"] is None
    assert not told.collector.named("POST /v1/segment", trace=_trace("quiet"))
    # A frame's line names the frame's trace.
    frames = {span.trace for span in told.collector.named(f"{TRACK} frame", process="efficientsam3-gateway")}
    named = {line.get("trace_id") for line in told.log if line.get("request_id") == "gateway.s"}
    assert named > frames
    # What concerns no request names none.
    assert any("is ready" in line["message"] for line in told.log)
    assert all("trace_id" not in line for line in told.log if "is ready" in line["message"])
