"""Keys: who is let in, to what, and that nobody reads a key anywhere."""

import hashlib

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from service.errors import Kind
from service.prompts import image_id
from tests.gateway.conftest import House
from tests.gateway.keyed import BODY, REQUEST, ends, frame, metadata, opened, refused, segment, stream
from tests.keys import KeysFile, authorization, secret

BAD: dict[str, tuple[str | None, str]] = {
    "no key": (None, "A key is needed"),
    "a wrong key": ("Bearer secret-of-mallory", "The key is not known here."),
    "its hash": (f"Bearer {hashlib.sha256(b'secret-of-alice').hexdigest()}", "The key is not known here."),
    "nothing after the scheme": ("Bearer", "not of the form"),
    "another scheme": ("Basic c2VjcmV0LW9mLWFsaWNl", "not of the form"),
    "the key alone": ("secret-of-alice", "not of the form"),
    "two keys": ("Bearer secret-of-alice secret-of-bob", "not of the form"),
    "what no key is made of": ("Bearer secret,of\x09alice", "not of the form"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_request_without_a_good_key_is_refused(house: House, keys: KeysFile, case: str) -> None:
    worker = opened(house, keys)
    brought, says = BAD[case]
    headers = {} if brought is None else {"Authorization": brought}
    for method, path in (("POST", "/v1/segment"), ("GET", "/v1/variants"), ("GET", "/v1/nowhere")):
        answer = house.http.request(method, path, headers=headers)
        assert (answer.status_code, answer.json()["type"]) == (401, "/problems/unauthenticated")
        assert says in answer.json()["detail"]
        assert answer.headers["www-authenticate"] == "Bearer"
    told = refused(house, () if brought is None else (("authorization", brought.replace("\x09", " ")),))
    assert told.kind is Kind.UNAUTHENTICATED and says in told.detail
    assert not worker.asked


def test_a_good_key_is_let_in_and_what_is_sent_belongs_to_its_name(house: House, keys: KeysFile) -> None:
    worker = opened(house, keys)
    assert segment(house, "alice").status_code == 200
    shouted = {"authorization": f"BEARER  {secret('bob')}", "X-Owner": "alice"}
    assert house.http.post("/v1/segment", json=BODY, headers=shouted).status_code == 200
    house.stub.Segment(REQUEST, metadata=(*metadata("bob"), ("x-owner", "alice")))
    assert worker.owners == ["alice", "bob", "bob"]


def test_probes_and_documents_need_no_key(house: House, keys: KeysFile) -> None:
    opened(house, keys)
    for path in ("/healthz", "/readyz", "/metrics", "/docs", "/openapi.json"):
        assert house.http.get(path).status_code == 200, path
    assert house.channel
    health = health_pb2_grpc.HealthStub(house.channel)
    told = health.Check(health_pb2.HealthCheckRequest())
    assert told.status == health_pb2.HealthCheckResponse.SERVING
    document = house.http.get("/openapi.json").json()
    (scheme,) = document["paths"]["/v1/segment"]["post"]["security"][0]
    assert document["components"]["securitySchemes"][scheme] == {"type": "http", "scheme": "bearer"}
    assert {"401", "403", "429"} <= document["paths"]["/v1/variants"]["get"]["responses"].keys()
    assert "security" not in document["paths"]["/healthz"]["get"]


def test_an_allowed_page_may_ask_which_headers_it_may_send(house: House, keys: KeysFile) -> None:
    opened(house, keys, allowed_origins=["https://tool.example"])
    asked = {
        "Origin": "https://tool.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization",
    }
    assert house.http.options("/v1/segment", headers=asked).status_code == 200
    answer = house.http.get("/v1/variants", headers={"Origin": "https://tool.example"})
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (
        401,
        "https://tool.example",
    )


def test_a_key_may_use_the_variants_that_it_names(house: House, keys: KeysFile) -> None:
    keys.write(alice={"variants": ["other", "third"]}, bob={"variants": []}, carol={"variants": ["demo"]})
    worker = opened(house, keys)
    for path, body in (("segment", BODY), ("images", {"image": BODY["image"]}), ("sessions", {})):
        answer = house.http.post(f"/v1/{path}", json=body, headers=authorization("alice"))
        assert (answer.status_code, answer.json()["type"]) == (403, "/problems/forbidden")
        assert answer.json()["detail"] == "Key alice may not use variant demo, only: other, third."
    session = f"/v1/sessions/demo.{32 * '0'}"
    assert house.http.get(session, headers=authorization("alice")).status_code == 403
    told = refused(house, metadata("bob"))
    assert (told.kind, told.detail) == (Kind.FORBIDDEN, "Key bob may not use variant demo, only: none.")
    assert not worker.asked
    assert segment(house, "carol").status_code == 200


def test_images_of_another_key_do_not_exist(house: House, keys: KeysFile) -> None:
    opened(house, keys)
    image, id = BODY["image"], image_id(b"x")
    kept = house.http.post("/v1/images", json={"image": image}, headers=authorization("alice"))
    assert (kept.status_code, kept.json()["image"]["id"]) == (200, id)
    assert segment(house, "bob", image={"id": id}).json()["type"] == "/problems/image_not_found"
    gone = house.http.delete(f"/v1/images/{id}", headers=authorization("bob"))
    assert gone.json()["type"] == "/problems/image_not_found"
    assert segment(house, "alice", image={"id": id}).status_code == 200
    # It belongs to the name, whatever its key.
    keys.write(alice={"key": "rotated"}, bob={})
    assert segment(house, "alice").status_code == 401
    rotated = {"Authorization": "Bearer rotated"}
    by_id = house.http.post("/v1/segment", json={**BODY, "image": {"id": id}}, headers=rotated)
    assert by_id.status_code == 200


def test_no_key_is_told_to_anybody(house: House, keys: KeysFile, caplog: pytest.LogCaptureFixture) -> None:
    keys.write(alice={"requests_per_s": 0.01, "burst": 1})
    with caplog.at_level("INFO"):
        opened(house, keys)
        answers = [segment(house, "alice"), segment(house, "alice"), segment(house, "mallory")]
        refused(house, metadata("mallory"))
        with stream(house) as socket:
            ends(socket, key=secret("mallory"))
        with stream(house) as socket:
            assert "invalid_argument" in frame(socket, key=[secret("alice")])["type"]
        answers.append(house.http.get("/metrics"))
    assert [answer.status_code for answer in answers] == [200, 429, 401, 200]
    told = caplog.text + "".join(answer.text + str(answer.headers) for answer in answers)
    assert "key=alice" in told
    for name in ("alice", "mallory"):
        assert secret(name) not in told
        assert hashlib.sha256(secret(name).encode()).hexdigest() not in told


def test_without_a_file_of_keys_whatever_is_brought_does_not_matter(served: House) -> None:
    for headers in ({}, authorization("mallory"), {"Authorization": "nonsense"}):
        assert served.http.post("/v1/segment", json=BODY, headers=headers).status_code == 200
    assert served._workers[0].owners == ["", "", ""]
    with stream(served) as socket:
        assert frame(socket, key="whatever")["type"] == "/problems/session_not_found"
