"""Readiness, variants, metrics, documents, refusals: what surrounds the requests."""

import json
import re
import socket
import subprocess
import sys

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from service.gateway.facts import describe
from service.pb.efficientsam3.v1 import variants_pb2, variants_pb2_grpc
from tests.gateway.conftest import House
from tests.redis_server import RedisServer

FORBIDDEN = {
    "numpy",
    "onnxruntime",
    "openvino",
    "torch",
    "cv2",
    "transformers",
    "timm",
    "model_store.networks",
}


def test_it_is_ready_as_soon_as_it_admits_and_says_what_is_missing(house: House) -> None:
    worker = house.worker()
    house.open(worker)
    assert house.http.get("/healthz").json() == {"status": "ok"}
    anyone, demo = house.http.get("/readyz"), house.http.get("/readyz", params={"variant": "demo"})
    assert (anyone.status_code, anyone.json()["status"]) == (200, "ready")
    assert (demo.status_code, demo.json()["status"]) == (503, "waiting")
    assert demo.json()["variants"] == {
        "demo": {"workers": 1, "workers_ready": 0, "missing": "of 1 configured, 1 not reachable"}
    }

    house.run(worker.start())
    house.wait_ready()
    demo = house.http.get("/readyz", params={"variant": "demo"})
    assert (demo.status_code, demo.json()["status"]) == (200, "ready")
    assert demo.json()["variants"] == {"demo": {"workers": 1, "workers_ready": 1, "missing": ""}}
    unknown = house.http.get("/readyz", params={"variant": "other"})
    assert (unknown.status_code, unknown.json()["type"]) == (404, "/problems/variant_not_found")


def test_without_variants_it_is_ready_and_says_so(house: House) -> None:
    house.open()
    assert house.http.get("/readyz").json() == {
        "status": "ready",
        "default_variant": "",
        "session_store": "none",
        "variants": {},
    }
    assert house.http.get("/v1/variants").json() == {"variants": []}
    answer = house.http.post("/v1/segment", json={"image": {"base64": "YQ=="}, "prompts": [{"text": "a"}]})
    assert (answer.status_code, answer.json()["type"]) == (404, "/problems/variant_not_found")
    assert "No variant is configured" in answer.json()["detail"]


def test_variants_are_told_alike_over_http_and_grpc(house: House) -> None:
    demo, other = house.worker("demo"), house.worker("other")
    house.run(demo.start())
    house.open(other, demo, default_variant="demo")
    house.wait_ready("demo")
    listed = house.http.get("/v1/variants").json()["variants"]
    assert [(each["name"], each["default"], each["workers_ready"]) for each in listed] == [
        ("other", False, 0),
        ("demo", True, 1),
    ]
    assert (listed[1]["digest"], listed[1]["score_threshold"], listed[1]["prompts"]) == (
        "sha256:feed",
        0.4,
        ["text"],
    )
    assert (listed[0]["digest"], listed[0]["memory"], listed[1]["memory"]) == ("", "", "dense")
    assert house.http.get("/v1/variants/demo").json() == listed[1]

    assert house.channel
    stub = variants_pb2_grpc.VariantsStub(house.channel)
    over_grpc = stub.ListVariants(variants_pb2.ListVariantsRequest()).variants
    assert [(each.name, each.default, each.digest) for each in over_grpc] == [
        ("other", False, ""),
        ("demo", True, "sha256:feed"),
    ]
    assert stub.GetVariant(variants_pb2.GetVariantRequest()) == over_grpc[1]

    # What a worker said of its variant outlives the worker.
    house.run(demo.die())
    house.wait_ready("demo", workers=0)
    gone = house.http.get("/v1/variants/demo").json()
    assert (gone["digest"], gone["workers_ready"]) == ("sha256:feed", 0)


@pytest.mark.parametrize(
    ("method", "path", "status", "kind"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("GET", "/v1/segment/", 404, "not_found"),
        ("GET", "/v1/segment", 405, "method_not_allowed"),
        ("DELETE", "/v1/variants", 405, "method_not_allowed"),
        ("GET", "/v1/variants/nope", 404, "variant_not_found"),
    ],
)
def test_the_frameworks_refusals_are_problems_too(
    served: House, method: str, path: str, status: int, kind: str
) -> None:
    answer = served.http.request(method, path)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert (body["type"], body["status"], body["instance"]) == (
        f"/problems/{kind}",
        status,
        answer.headers["x-request-id"],
    )
    assert ("allow" in answer.headers) == (status == 405)


def test_metrics_count_what_happened(served: House) -> None:
    image = {"base64": "YQ=="}
    for _ in range(2):
        served.http.post("/v1/segment", json={"image": image, "prompts": [{"text": "a"}]})
    served.http.post("/v1/segment", json={"image": image, "prompts": []})
    served.http.post("/v1/segment", content="{", headers={"Content-Type": "application/json"})
    served.http.post("/v1/segment", json={"variant": "x" * 50, "image": image, "prompts": [{"text": "a"}]})
    served.http.get("/healthz")
    metrics = served.http.get("/metrics").text.splitlines()
    assert {
        'efficientsam3_requests_total{kind="ok",transport="http",variant="demo"} 2.0',
        'efficientsam3_requests_total{kind="invalid_argument",transport="http",variant="demo"} 1.0',
        'efficientsam3_requests_total{kind="invalid_argument",transport="http",variant=""} 1.0',
        'efficientsam3_requests_total{kind="variant_not_found",transport="http",variant=""} 1.0',
        'efficientsam3_request_seconds_count{transport="http",variant="demo"} 3.0',
        'efficientsam3_inflight_requests{variant="demo"} 0.0',
        'efficientsam3_stage_seconds_count{stage="image_encoder",variant="demo"} 2.0',
        'efficientsam3_stage_seconds_sum{stage="image_encoder",variant="demo"} 0.16',
        'efficientsam3_workers_ready{variant="demo"} 1.0',
    } <= set(metrics)
    assert any(line.startswith("efficientsam3_build_info{") for line in metrics)


def test_the_openapi_document_is_whole(served: House) -> None:
    document = served.http.get("/openapi.json").json()
    text = json.dumps(document)
    schemas = document["components"]["schemas"]
    named = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert named <= schemas.keys()
    segment = document["paths"]["/v1/segment"]["post"]
    assert segment["requestBody"]["content"].keys() == {"application/json", "multipart/form-data"}
    assert {"200", "400", "404", "413", "415", "429", "503", "504"} <= segment["responses"].keys()
    assert "application/problem+json" in segment["responses"]["503"]["content"]
    assert "422" not in segment["responses"]
    assert {"text", "exemplars", "points", "box", "mask"} <= schemas["PromptIn"]["properties"].keys()
    assert served.http.get("/docs").status_code == 200


def test_grpc_has_health_and_reflection(served: House) -> None:
    assert served.channel
    health = health_pb2_grpc.HealthStub(served.channel)
    for service in ("", "efficientsam3.v1.Segmentation", "efficientsam3.v1.Variants"):
        told = health.Check(health_pb2.HealthCheckRequest(service=service))
        assert told.status == health_pb2.HealthCheckResponse.SERVING
    with pytest.raises(grpc.RpcError):
        health.Check(health_pb2.HealthCheckRequest(service="nope"))
    reflection = reflection_pb2_grpc.ServerReflectionStub(served.channel)
    (answer,) = reflection.ServerReflectionInfo(
        iter([reflection_pb2.ServerReflectionRequest(list_services="")])
    )
    names = {service.name for service in answer.list_services_response.service}
    assert {"efficientsam3.v1.Segmentation", "efficientsam3.v1.Variants", "grpc.health.v1.Health"} <= names


def test_the_gateway_imports_no_model_runtime() -> None:
    code = (
        "import sys, service.cli, service.supervisor, service.gateway.server, service.gateway.facts, "
        "service.client, service.overlay; print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not FORBIDDEN & set(done.stdout.split())


def test_a_session_store_that_is_gone_is_told_and_images_are_served_without_it(
    house: House, redis_server: RedisServer
) -> None:
    house.open(redis_url=redis_server.url)
    assert house.http.get("/readyz").json()["session_store"] == "ready"
    redis_server.kill()
    readiness = house.http.get("/readyz")
    assert (readiness.status_code, readiness.json()["session_store"]) == (200, "unavailable")
    redis_server.start()
    assert house.http.get("/readyz").json()["session_store"] == "ready"


def test_pages_of_other_origins_are_refused_unless_allowed(house: House) -> None:
    house.open(allowed_origins=["https://tool.example"])
    host = house.http.base_url.netloc.decode()
    for origin, status in (
        (f"http://{host}", 200),
        ("https://tool.example", 200),
        ("https://evil.example", 403),
    ):
        answer = house.http.get("/v1/variants", headers={"Origin": origin})
        assert answer.status_code == status, origin
    assert answer.json()["type"] == "/problems/forbidden"
    allowed = house.http.get("/v1/variants", headers={"Origin": "https://tool.example"})
    assert allowed.headers["access-control-allow-origin"] == "https://tool.example"


def test_every_origin_may_be_allowed(house: House) -> None:
    house.open(allowed_origins=["*"])
    answer = house.http.get("/v1/variants", headers={"Origin": "https://any.example"})
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, "*")


def test_an_allowed_page_may_read_every_refusal(house: House) -> None:
    house.open(house.worker(), allowed_origins=["https://tool.example"], max_body_bytes=1000)
    origin = {"Origin": "https://tool.example"}
    large = house.http.post("/v1/segment", content=bytes(2000), headers=origin)
    late = house.http.get("/v1/variants", headers={**origin, "X-Deadline-Ms": "soon"})
    absent = house.http.get("/nowhere", headers=origin)
    assert [large.status_code, late.status_code, absent.status_code] == [413, 400, 404]
    for answer in (large, late, absent):
        assert answer.headers["access-control-allow-origin"] == "https://tool.example"
        assert answer.headers["x-request-id"] == answer.json()["instance"]
    asked = {
        **origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "x-deadline-ms",
    }
    assert house.http.options("/v1/segment", headers=asked).status_code == 200
    asked["Origin"] = "https://evil.example"
    refused = house.http.options("/v1/segment", headers=asked)
    assert refused.status_code == 400 and "access-control-allow-origin" not in refused.headers


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/readyz?variant=demo"])
def test_probes_may_ask_for_the_head_alone(house: House, path: str) -> None:
    house.open(house.worker())
    head, whole = house.http.head(path), house.http.get(path)
    assert head.status_code == whole.status_code != 405
    assert head.headers["content-type"] == whole.headers["content-type"]
    assert head.content == b"" != whole.content


def test_what_a_variant_can_do_is_said_by_its_worker_alone() -> None:
    told = describe("es-ev-m-mc-s0")
    assert (told.image_encoder, told.text_encoder) == ("efficientvit_b1", "mobileclip_s0")
    assert told.context_length and told.source
    assert not (told.prompts or told.licence or told.digest)
    assert describe("nope") == variants_pb2.Variant(name="nope")


def test_the_documentation_page_asks_nothing_of_another_host(house: House) -> None:
    house.open()
    page = house.http.get("/docs").text
    addresses = re.findall(r"""(?:src|href)=["']([^"']+)""", page)
    assert len(addresses) >= 2
    assert all(house.http.get(address).status_code == 200 for address in addresses)


def test_an_answers_body_does_not_wait_for_its_headers_to_be_acknowledged(house: House) -> None:
    house.open()
    house.http.get("/healthz")
    (connection,) = house.gateway._http.server_state.connections
    transport = connection.transport  # type: ignore[union-attr]
    assert transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
