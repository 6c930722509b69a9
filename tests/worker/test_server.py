"""A worker's life from start to stop, with an artefact of small real graphs."""

import asyncio
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import grpc.aio
import onnx
import onnx.parser
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from model_store import artifact as artifacts
from model_store.artifact import Artifact, Graph
from service.config import WorkerSettings
from service.pb.efficientsam3.v1 import segmentation_pb2_grpc
from service.worker.server import StartError, run_worker
from tests.worker.conftest import asking, run

HEAD = '<ir_version: 8, opset_import: ["" : 18]>'
GRAPHS = {
    "image_encoder": """
image_encoder (uint8[N,32,32,3] pixels) => (float[N,32,32,3] embedding) { embedding = Cast<to=1>(pixels) }""",
    "concept_features": """
concept_features (float[N,32,32,3] embedding)
=> (float[N,32,32,3] features_x4, float[N,32,32,3] features_x2, float[N,32,32,3] features_x1) {
    features_x4 = Identity(embedding)
    features_x2 = Identity(embedding)
    features_x1 = Identity(embedding)
}""",
    "text_encoder": """
text_encoder (int32[B,16] tokens) => (float[B,16] text_features, bool[B,16] text_valid) {
    text_features = Cast<to=1>(tokens)
    text_valid = Cast<to=9>(tokens)
}""",
    "concept_decoder": """
concept_decoder (float[B,32,32,3] features_x1, float[B,16] text_features, bool[B,16] text_valid,
                 float[B,J,2] exemplar_points, int32[B,J] exemplar_point_labels,
                 float[B,K,4] exemplar_boxes, int32[B,K] exemplar_box_labels)
=> (float[1,2] logits, float[1,1] presence, float[1,2,4] boxes, float[1,2,1] queries,
    float[B,32,32,3] encoded, float[B,16] prompt, bool[B,16] prompt_valid) {
    logits = Constant<value = float[1,2] {2.0, 4.0}>()
    presence = Constant<value = float[1,1] {9.0}>()
    boxes = Constant<value = float[1,2,4] {0.0, 0.0, 0.5, 0.5, 0.5, 0.5, 1.0, 1.0}>()
    queries = Constant<value = float[1,2,1] {1.0, 2.0}>()
    encoded = Identity(features_x1)
    prompt = Identity(text_features)
    prompt_valid = Identity(text_valid)
}""",
    "concept_masks": """
concept_masks (float[B,32,32,3] encoded, float[B,16] prompt, bool[B,16] prompt_valid,
               float[B,32,32,3] features_x2, float[B,32,32,3] features_x4, float[B,Q,1] queries)
=> (float[B,Q,1,1] mask_logits) {
    axes = Constant<value = int64[1] {3}>()
    mask_logits = Unsqueeze(queries, axes)
}""",
}


@pytest.fixture
def store(artifact: Artifact, tmp_path: Path) -> Path:
    """A store with the artefact `tiny`, whose graphs are real files."""
    folder = tmp_path / "store" / "tiny"
    folder.mkdir(parents=True)
    (folder / "tokenizer.json").write_bytes((artifact.folder / "tokenizer.json").read_bytes())
    graphs = {}
    for name, text in GRAPHS.items():
        file = folder / f"{name}.onnx"
        onnx.save(onnx.parser.parse_model(HEAD + text), file)
        graphs[name] = Graph(file.name, artifacts.sha256_of(file), file.stat().st_size, (), (), {}, {})
    files = {"tokenizer.json": artifacts.sha256_of(folder / "tokenizer.json")}
    prompts = ("text", "exemplar_box", "exemplar_point")
    artifacts.write(folder, replace(artifact.manifest, prompts=prompts, graphs=graphs, files=files))
    return folder.parent


def _settings(store: Path, **changed: object) -> WorkerSettings:
    given = {"store": store, "listen": f"unix:{store}/worker.sock", "precision": "f32", "threads": 1}
    return WorkerSettings.model_validate({**given, **changed})


async def _until_serving(channel: grpc.aio.Channel) -> None:
    stub = health_pb2_grpc.HealthStub(channel)
    request = health_pb2.HealthCheckRequest(service="efficientsam3.v1.Segmentation")
    async for answer in stub.Watch(request, wait_for_ready=True):
        if answer.status == health_pb2.HealthCheckResponse.SERVING:
            return


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_a_worker_loads_serves_and_stops_when_its_parent_is_gone(store: Path, engine: str) -> None:
    async def scenario() -> None:
        parent_fd, parents = os.pipe()
        settings = _settings(store, engine=engine)
        worker = asyncio.create_task(run_worker(settings, "tiny", parent_fd))
        async with grpc.aio.insecure_channel(settings.listen) as channel:
            await _until_serving(channel)
            answer = await segmentation_pb2_grpc.SegmentationStub(channel).Segment(asking())
            assert [segment.area for segment in answer.results[0].segments] == [80 * 40] * 2
        assert not worker.done()
        os.close(parents)
        await worker
        os.close(parent_fd)

    run(scenario())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_a_worker(store: Path, number: signal.Signals) -> None:
    settings = _settings(store, engine="onnxruntime")
    program = (
        "import asyncio; from service.config import WorkerSettings; from service.worker import server; "
        f"settings = WorkerSettings.model_validate_json({settings.model_dump_json()!r}); "
        "asyncio.run(server.run_worker(settings, 'tiny'))"
    )

    async def scenario() -> None:
        worker = await asyncio.create_subprocess_exec(sys.executable, "-c", program)
        try:
            async with grpc.aio.insecure_channel(settings.listen) as channel:
                await _until_serving(channel)
                worker.send_signal(number)
                assert await worker.wait() == 0
        finally:
            if worker.returncode is None:
                worker.kill()
                await worker.wait()

    run(scenario())


def _refusal(settings: WorkerSettings, variant: str = "tiny") -> str:
    with pytest.raises(StartError) as refused:
        run(run_worker(settings, variant))
    return str(refused.value)


def test_no_artefact_is_one_clear_line(store: Path) -> None:
    line = _refusal(_settings(store), "es-xl")
    assert str(store / "es-xl") in line and "\n" not in line


def test_a_tampered_artefact_is_refused(store: Path) -> None:
    with (store / "tiny" / "text_encoder.onnx").open("ab") as file:
        file.write(b"\0")
    assert "text_encoder.onnx" in _refusal(_settings(store))


def test_a_precision_that_cannot_be_had_is_refused(store: Path) -> None:
    assert "bf16" in _refusal(_settings(store, engine="onnxruntime", precision="bf16"))


def test_an_address_that_is_taken_is_refused(store: Path) -> None:
    async def scenario() -> None:
        server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        with pytest.raises(StartError, match=f"cannot listen on 127.0.0.1:{port}"):
            await run_worker(_settings(store, listen=f"127.0.0.1:{port}"), "tiny")
        await server.stop(0)

    run(scenario())
