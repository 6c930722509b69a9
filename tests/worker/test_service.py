"""How a worker behaves when asked too much, too late, wrongly, or while it stops."""

import asyncio
from typing import Any

import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from service.errors import INTERNAL_DETAIL, Kind, ServiceError
from service.pb.efficientsam3.v1 import segmentation_pb2 as pb
from service.pb.efficientsam3.v1 import variants_pb2, variants_pb2_grpc
from tests.serving import free_ports
from tests.worker.conftest import Client, Gate, Start, asking, blank, picture, run


async def _health(client: Client, service: str = "") -> Any:
    request = health_pb2.HealthCheckRequest(service=service)
    return (await health_pb2_grpc.HealthStub(client.channel).Check(request)).status


def test_a_full_queue_refuses_and_the_rest_are_answered(start: Start) -> None:
    async def scenario() -> None:
        async with start(max_queued=1) as client:
            client.engine.before = gate = Gate("image_encoder")
            running = asyncio.create_task(client.segment(asking()))
            await gate.reached()
            others = {asyncio.create_task(client.segment(asking())) for _ in range(2)}
            (refused,), (waiting,) = await asyncio.wait(others, return_when="FIRST_COMPLETED")
            error = refused.exception()
            assert isinstance(error, ServiceError)
            assert (error.kind, error.retry_after_s) == (Kind.OVERLOADED, 0.5)
            gate.open()
            assert (await running).results and (await waiting).results

    run(scenario())


def test_what_cannot_be_served_is_refused_without_waiting(start: Start) -> None:
    async def scenario() -> None:
        async with start(manifest={"prompts": ("text",)}) as client:
            client.engine.before = gate = Gate("image_encoder")
            running = asyncio.create_task(client.segment(asking()))
            await gate.reached()
            click = pb.Prompt(points=[pb.Point(x=1, y=1)])
            assert (await client.refused(asking(click))).kind == Kind.UNSUPPORTED_PROMPT
            gate.open()
            await running

    run(scenario())


def test_a_request_whose_deadline_passed_in_the_queue_is_not_computed(start: Start) -> None:
    async def scenario() -> None:
        async with start() as client:
            client.engine.before = gate = Gate("image_encoder")
            running = asyncio.create_task(client.segment(asking()))
            await gate.reached()
            assert (await client.refused(asking(), deadline_s=0.3)).kind == Kind.DEADLINE_EXCEEDED
            gate.open()
            await running
            await client.segment(asking())
            assert client.engine.calls.count("image_encoder") == 2

    run(scenario())


def test_a_client_that_leaves_stops_its_request_at_the_next_graph(start: Start) -> None:
    async def scenario() -> None:
        async with start() as client:
            client.engine.before = gate = Gate("concept_features")
            assert (await _leaving(client, gate)).kind == Kind.DEADLINE_EXCEEDED
            client.engine.before = lambda graph: None
            gate.open()
            await client.segment(asking())
            assert client.engine.calls.count("image_encoder") == 2
            assert client.engine.calls.count("concept_decoder") == 1

    async def _leaving(client: Client, gate: Gate) -> ServiceError:
        leaving = asyncio.create_task(client.refused(asking(), deadline_s=0.5))
        await gate.reached()
        return await leaving

    run(scenario())


def test_the_unexpected_is_internal_and_the_service_goes_on(start: Start) -> None:
    def fail(graph: str) -> None:
        raise ZeroDivisionError(graph)

    async def scenario() -> None:
        async with start() as client:
            client.engine.before = fail
            error = await client.refused(asking())
            assert (error.kind, error.detail) == (Kind.INTERNAL, INTERNAL_DETAIL)
            client.engine.before = lambda graph: None
            assert (await client.segment(asking())).results

    run(scenario())


DEFECTS = {
    "no prompts": (pb.SegmentRequest(image=pb.Image(data=b"x")), Kind.INVALID_ARGUMENT, "prompts is empty"),
    "another variant": (
        pb.SegmentRequest(variant="es-xl", image=pb.Image(data=b"x"), prompts=[pb.Prompt(text="a")]),
        Kind.VARIANT_NOT_FOUND,
        "'es-xl'",
    ),
    "an address": (
        pb.SegmentRequest(image=pb.Image(url="http://a/b"), prompts=[pb.Prompt(text="a")]),
        Kind.INVALID_ARGUMENT,
        "image.url",
    ),
    "an id": (
        pb.SegmentRequest(image=pb.Image(id=f"sha256:{'0' * 64}"), prompts=[pb.Prompt(text="a")]),
        Kind.IMAGE_NOT_FOUND,
        "image.id",
    ),
    "no image": (asking(data=b"no image"), Kind.UNSUPPORTED_IMAGE, "JPEG"),
    "half an image": (asking(data=picture(800, 400)[:-400]), Kind.UNSUPPORTED_IMAGE, "truncated"),
    "144 million pixels": (
        asking(data=blank(12_000, 12_000)),
        Kind.PAYLOAD_TOO_LARGE,
        "12,000 x 12,000 pixels",
    ),
    "over our limit": (asking(data=bytes(1_100_000)), Kind.PAYLOAD_TOO_LARGE, "limit is 1,000,000 bytes"),
    "over gRPC's limit": (asking(data=bytes(5_000_000)), Kind.PAYLOAD_TOO_LARGE, "bytes"),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_defect_is_refused_by_its_kind_and_the_service_goes_on(start: Start, defect: str) -> None:
    request, kind, words = DEFECTS[defect]

    async def scenario() -> None:
        async with start(max_body_bytes=1_000_000) as client:
            error = await client.refused(request)
            assert error.kind == kind, error.detail
            assert words in error.detail
            assert client.engine.calls == []
            assert (await client.segment(asking())).results

    run(scenario())


def test_health_is_serving_once_every_graph_has_run(start: Start) -> None:
    serving, not_serving = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING

    async def scenario() -> None:
        async with start(warm=False) as client:
            assert await _health(client) == not_serving
            await client.worker.warm()
            for service in ("", "efficientsam3.v1.Segmentation", "efficientsam3.v1.Variants"):
                assert await _health(client, service) == serving
            graphs = {
                *("image_encoder", "concept_features", "text_encoder", "concept_decoder", "concept_masks"),
                *("interactive_features", "prompt_decoder"),
            }
            assert set(client.engine.calls) == graphs

    run(scenario())


def test_reflection_lists_the_services(start: Start) -> None:
    async def scenario() -> None:
        async with start() as client:
            stub = reflection_pb2_grpc.ServerReflectionStub(client.channel)
            asked = reflection_pb2.ServerReflectionRequest(list_services="")
            async for answer in stub.ServerReflectionInfo(iter([asked])):
                names = {service.name for service in answer.list_services_response.service}
            assert {"efficientsam3.v1.Segmentation", "efficientsam3.v1.Variants"} <= names

    run(scenario())


def test_a_worker_describes_its_variant(start: Start) -> None:
    async def scenario() -> None:
        async with start() as client:
            stub = variants_pb2_grpc.VariantsStub(client.channel)
            (listed,) = (await stub.ListVariants(variants_pb2.ListVariantsRequest())).variants
            assert (listed.name, listed.image_size, listed.synthetic) == ("tiny", 32, True)
            assert listed.memory == "", "it follows nothing"
            assert list(listed.prompts) == [
                *("text", "exemplar_box", "exemplar_point", "points", "box", "mask")
            ]
            assert listed.parameters == 7
            assert listed.digest == "sha256:" + "0" * 64
            for name in ("", "tiny"):
                assert await stub.GetVariant(variants_pb2.GetVariantRequest(name=name)) == listed

    run(scenario())


def test_draining_finishes_what_it_has_and_takes_no_more(start: Start) -> None:
    async def scenario() -> None:
        async with start() as client:
            client.engine.before = gate = Gate("image_encoder")
            running = asyncio.create_task(client.segment(asking()))
            await gate.reached()
            draining = asyncio.create_task(client.worker.drain())
            await asyncio.sleep(0)
            while (error := await _refusal(client)) is None:
                pass
            assert error.kind == Kind.UNAVAILABLE
            gate.open()
            assert (await running).results
            await draining

    async def _refusal(client: Client) -> ServiceError | None:
        try:
            await client.segment(asking(), deadline_s=0.3)
        except ServiceError as error:
            return None if error.kind == Kind.DEADLINE_EXCEEDED else error
        return None

    run(scenario())


def test_a_worker_tells_what_it_does(start: Start) -> None:
    async def scenario() -> None:
        (port,) = free_ports(1)
        kept = {"embedding_cache_bytes": 1 << 20, "feature_cache_bytes": 1 << 20}
        async with start(metrics_listen=f"127.0.0.1:{port}", max_queued=1, **kept) as client:
            await client.segment(asking())
            await client.segment(asking())
            client.engine.before = gate = Gate("concept_decoder")
            running = asyncio.create_task(client.segment(asking()))
            await gate.reached()
            others = {asyncio.create_task(client.segment(asking())) for _ in range(2)}
            (refused,), (waiting,) = await asyncio.wait(others, return_when="FIRST_COMPLETED")
            assert "waiting already" in str(refused.exception())
            told = await asyncio.to_thread(httpx.get, f"http://127.0.0.1:{port}/metrics")
            gate.open()
            await asyncio.gather(running, waiting)
        lines = [line.rsplit(" ", 1) for line in told.text.splitlines() if not line.startswith("#")]
        found = {name: float(value) for name, value in lines}
        cache = 'efficientsam3_cache_requests_total{cache="%s",outcome="%s",variant="tiny"}'
        for name, value in {
            'efficientsam3_worker_waiting_requests{variant="tiny"}': 1,
            'efficientsam3_worker_running_requests{variant="tiny"}': 1,
            'efficientsam3_worker_refusals_total{reason="full",variant="tiny"}': 1,
            'efficientsam3_worker_queue_seconds_count{urgency="usual",variant="tiny"}': 5,
            'efficientsam3_engine_batch_rows_sum{graph="image_encoder",variant="tiny"}': 2,
            'efficientsam3_engine_seconds_count{graph="text_encoder",variant="tiny"}': 2,
            # The warming picture, and ours.
            cache % ("embeddings", "miss"): 2,
            cache % ("embeddings", "hit"): 2,
            cache % ("features", "hit"): 2,
            'efficientsam3_hot_sessions{variant="tiny"}': 0,
        }.items():
            assert found.pop(name) == value, name
        assert found['efficientsam3_cache_bytes{cache="embeddings",variant="tiny"}'] > 0

    run(scenario())
