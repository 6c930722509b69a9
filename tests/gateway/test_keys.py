"""Keys: who is let in, how often, to what, and that nobody reads one anywhere."""

import asyncio
import base64
import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from websockets import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from service.config import ConfigurationError
from service.errors import Kind, ServiceError
from service.pb.efficientsam3.v1 import segmentation_pb2 as pb
from service.pb.efficientsam3.v1 import tracking_pb2, tracking_pb2_grpc
from service.prompts import image_id
from service.rpc import from_rpc_error
from tests.gateway.conftest import House
from tests.gateway.fake_worker import FakeWorker
from tests.keys import KeysFile, authorization, secret
from tests.redis_server import RedisServer

BODY: dict[str, Any] = {"image": {"base64": base64.b64encode(b"x").decode()}, "prompts": [{"text": "truck"}]}
REQUEST = pb.SegmentRequest(image=pb.Image(data=b"x"), prompts=[pb.Prompt(text="truck")])
# Of no variant here: whoever hears that was let in.
SESSION = f"other.{32 * '0'}"


@pytest.fixture
def keys(tmp_path: Path) -> KeysFile:
    return KeysFile(tmp_path / "keys.toml", alice={}, bob={})


def opened(house: House, keys: KeysFile, **settings: Any) -> FakeWorker:
    """A gateway with these keys and a ready worker of "demo"."""
    worker = house.worker()
    house.run(worker.start())
    house.open(worker, keys_file=keys.path, **settings)
    house.wait_ready()
    return worker


def segment(house: House, name: str, **fields: Any) -> httpx.Response:
    return house.http.post("/v1/segment", json={**BODY, **fields}, headers=authorization(name))


def metadata(name: str) -> tuple[tuple[str, str]]:
    return (("authorization", f"Bearer {secret(name)}"),)


def refused(house: House, brought: tuple[tuple[str, str], ...]) -> ServiceError:
    """Why gRPC answers nothing to who brings this."""
    with pytest.raises(grpc.RpcError) as failure:
        house.stub.Segment(REQUEST, metadata=brought)
    return from_rpc_error(failure.value)


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


def test_a_key_over_its_rate_is_told_when_to_come_again(house: House, keys: KeysFile) -> None:
    keys.write(alice={"requests_per_s": 0.01, "burst": 3}, bob={"requests_per_s": 0.5})
    worker = opened(house, keys)
    assert [segment(house, "alice").status_code for _ in range(2)] == [200, 200]
    house.stub.Segment(REQUEST, metadata=metadata("alice"))
    answer = segment(house, "alice")
    assert (answer.status_code, answer.json()["type"]) == (429, "/problems/quota_exceeded")
    assert answer.json()["detail"] == "Key alice may send 0.01 requests per second, and 3 at once."
    assert 1 <= int(answer.headers["retry-after"]) <= 100
    told = refused(house, metadata("alice"))
    assert told.kind is Kind.QUOTA_EXCEEDED
    assert told.retry_after_s is not None and 0 < told.retry_after_s <= 100
    assert segment(house, "bob").status_code == 200
    assert len(worker.asked) == 4


def test_a_key_has_so_many_requests_under_way(house: House, keys: KeysFile) -> None:
    keys.write(alice={"concurrent": 1}, bob={"concurrent": 1})
    worker = opened(house, keys)
    house.tell(worker.gate.clear)
    with ThreadPoolExecutor() as threads:
        first = threads.submit(segment, house, "alice")
        assert worker.arrived.wait(30)
        over_http, over_grpc = segment(house, "alice"), refused(house, metadata("alice"))
        assert (over_http.status_code, over_http.json()["type"]) == (429, "/problems/quota_exceeded")
        assert over_http.headers["retry-after"] == "1"
        assert over_http.json()["detail"] == "Key alice has 1 requests under way, which is its limit."
        assert over_grpc.kind is Kind.QUOTA_EXCEEDED
        other = threads.submit(segment, house, "bob")
        house.tell(worker.gate.set)
        assert first.result().status_code == other.result().status_code == 200


def test_who_asks_one_after_another_is_never_refused(house: House, keys: KeysFile) -> None:
    """The place is free when the answer has come, over whatever connection the next request comes."""
    keys.write(alice={"concurrent": 1})
    opened(house, keys)
    for _ in range(20):
        with httpx.Client(base_url=house.gateway.url) as client:
            assert client.post("/v1/segment", json=BODY, headers=authorization("alice")).status_code == 200
        house.stub.Segment(REQUEST, metadata=metadata("alice"))
        assert house.http.get("/v1/variants", headers=authorization("alice")).status_code == 200
        assert house.http.post("/v1/segment", headers=authorization("alice")).status_code == 400


def test_the_place_of_a_client_that_leaves_is_free(house: House, keys: KeysFile) -> None:
    keys.write(alice={"concurrent": 1})
    worker = opened(house, keys)
    house.tell(worker.gate.clear)
    with pytest.raises(httpx.ReadTimeout):
        house.http.post("/v1/segment", json=BODY, headers=authorization("alice"), timeout=0.5)
    assert worker.cancelled.wait(30)
    house.tell(worker.gate.set)
    while segment(house, "alice").status_code != 200:
        house.run(asyncio.sleep(0.01))


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


def test_the_file_is_read_again_when_it_changes(
    house: House, keys: KeysFile, caplog: pytest.LogCaptureFixture
) -> None:
    opened(house, keys)
    keys.write(alice={"variants": ["other"]}, carol={})
    assert [segment(house, name).status_code for name in ("alice", "bob", "carol")] == [403, 401, 200]
    for broken, says in (
        ("[keys.alice]\nsha256 = 'secret-of-alice'", "keys.alice.sha256: it is not 64 hexadecimal digits"),
        ("secret-of-alice", "is no TOML"),
        ("\xff", "is no text in UTF-8"),
    ):
        caplog.clear()
        keys.replace(broken.encode("latin-1"))
        assert [segment(house, name).status_code for name in ("alice", "bob", "carol")] == [403, 401, 200]
        (told,) = (record.message for record in caplog.records if record.name == "service.gateway.keys")
        assert str(keys.path) in told and says in told and "stay as they were" in told
        assert "secret-of" not in told
    keys.path.unlink()
    assert segment(house, "carol").status_code == 200
    # A file without keys lets nobody in.
    keys.write()
    assert segment(house, "carol").status_code == 401
    keys.write(bob={})
    assert segment(house, "bob").status_code == 200


HASH = 64 * "0"
BROKEN = {
    "no such file": (None, "No such file or directory"),
    "no TOML": ("keys = ", "is no TOML"),
    "a key in the place of its hash": (
        "[keys.alice]\nsha256 = 'secret'",
        "keys.alice.sha256: it is not 64 hexadecimal digits in lower case",
    ),
    "a name that cannot be": (f"[keys.'a b']\nsha256 = '{HASH}'", "keys.a b"),
    "no hash": ("[keys.alice]\nburst = 1", "keys.alice.sha256: Field required"),
    "a limit of nothing": (
        f"[keys.alice]\nsha256 = '{HASH}'\nconcurrent = 0",
        "keys.alice.concurrent: Input should be greater than or equal to 1",
    ),
    "a limit that there is not": (
        f"[keys.alice]\nsha256 = '{HASH}'\nsession = 1",
        "keys.alice.session: Extra inputs are not permitted",
    ),
    "a rate without end": (
        f"[keys.alice]\nsha256 = '{HASH}'\nrequests_per_s = inf",
        "keys.alice.requests_per_s: Input should be less than or equal to 1000000",
    ),
    "a burst of no rate": (
        f"[keys.alice]\nsha256 = '{HASH}'\nburst = 2",
        "keys.alice: burst needs requests_per_s",
    ),
    "a key of two names": (
        f"[keys.alice]\nsha256 = '{HASH}'\n[keys.bob]\nsha256 = '{HASH}'",
        "keys.bob: it is the key of keys.alice",
    ),
    "another table": ("[users]", "users: Extra inputs are not permitted"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_file_at_the_start_is_an_error_that_names_it(
    house: House, tmp_path: Path, case: str
) -> None:
    path, (text, says) = tmp_path / "keys.toml", BROKEN[case]
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigurationError) as failure:
        house.open(keys_file=path)
    assert f"keys_file {path}" in str(failure.value) and says in str(failure.value)
    assert "secret" not in str(failure.value)


@pytest.fixture
def second(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Another house, for another gateway."""
    house = House(tmp_path_factory.mktemp("second"))
    yield house
    house.close()


def test_gateways_count_together_in_redis(
    house: House, second: House, keys: KeysFile, redis_server: RedisServer
) -> None:
    keys.write(alice={"requests_per_s": 0.01, "burst": 3}, bob={"concurrent": 1})
    workers = [opened(each, keys, redis_url=redis_server.url) for each in (house, second)]
    answers = [segment(each, "alice").status_code for each in (house, second, house, second, house)]
    assert answers == [200, 200, 200, 429, 429]
    house.tell(workers[0].gate.clear)
    workers[0].arrived.clear()
    with ThreadPoolExecutor() as threads:
        first = threads.submit(segment, house, "bob")
        assert workers[0].arrived.wait(30)
        assert segment(second, "bob").json()["type"] == "/problems/quota_exceeded"
        house.tell(workers[0].gate.set)
        assert first.result().status_code == 200
    assert segment(second, "bob").status_code == 200
    # Without it each counts alone, and nobody is refused for its sake.
    redis_server.kill()
    answers = [segment(each, "alice").status_code for each in (*4 * (house,), *4 * (second,))]
    assert answers == 2 * [200, 200, 200, 429]
    assert segment(house, "bob").status_code == 200


def stream(house: House, **headers: str) -> Any:
    address = f"{house.gateway.url.replace('http', 'ws')}/v1/sessions/{SESSION}/stream"
    return connect(address, additional_headers=headers)


def frame(socket: Any, **fields: Any) -> dict[str, Any]:
    """The answer to a frame that is sent so."""
    socket.send(json.dumps({"frame": 0, **fields}))
    socket.send(b"image")
    answer: dict[str, Any] = json.loads(socket.recv(timeout=60))
    return answer


def test_a_stream_brings_its_key_with_its_handshake_or_its_first_frame(house: House, keys: KeysFile) -> None:
    opened(house, keys)
    found = "/problems/session_not_found"
    with stream(house, **authorization("alice")) as socket:
        assert [frame(socket)["type"] for _ in range(2)] == [found, found]
    with stream(house) as socket:
        assert frame(socket, key=secret("alice"))["type"] == found
        assert frame(socket)["type"] == found
        # A key that is revoked opens nothing more.
        keys.write(bob={})
        _ends(socket)
    with stream(house) as socket:
        _ends(socket)
    with stream(house) as socket:
        _ends(socket, key=secret("mallory"))
    with pytest.raises(InvalidStatus) as refusal, stream(house, **authorization("mallory")):
        pass
    response = refusal.value.response
    assert (response.status_code, response.headers["www-authenticate"]) == (401, "Bearer")
    assert json.loads(response.body or b"")["type"] == "/problems/unauthenticated"


def _ends(socket: Any, **fields: Any) -> None:
    """The frame is refused as nobody's, and the connection closed."""
    assert frame(socket, **fields)["type"] == "/problems/unauthenticated"
    with pytest.raises(ConnectionClosed) as closed:
        socket.recv(timeout=60)
    assert closed.value.rcvd is not None and closed.value.rcvd.code == 1008


def test_a_stream_without_a_key_is_not_waited_for(house: House, keys: KeysFile) -> None:
    opened(house, keys)
    with stream(house, **{"X-Deadline-Ms": "1"}) as socket, pytest.raises(ConnectionClosed) as closed:
        socket.recv(timeout=60)
    assert closed.value.rcvd is not None and closed.value.rcvd.reason == "No key came in time."


def test_frames_of_a_stream_are_requests_and_one_too_many_does_not_end_it(
    house: House, keys: KeysFile
) -> None:
    keys.write(alice={"requests_per_s": 0.01, "burst": 2}, bob={})
    opened(house, keys)
    with stream(house, **authorization("alice")) as socket:
        kinds = [frame(socket)["type"].removeprefix("/problems/") for _ in range(3)]
        assert kinds == ["session_not_found", "session_not_found", "quota_exceeded"]
        assert frame(socket, key=secret("bob"))["type"] == "/problems/session_not_found"


def test_a_stream_over_grpc_needs_a_key_too(house: House, keys: KeysFile) -> None:
    opened(house, keys)
    assert house.channel
    stub = tracking_pb2_grpc.TrackingStub(house.channel)
    opening = tracking_pb2.TrackRequest(open=tracking_pb2.OpenSessionRequest(session=SESSION))
    for brought, kind in (
        ((), Kind.UNAUTHENTICATED),
        (metadata("mallory"), Kind.UNAUTHENTICATED),
        (metadata("alice"), Kind.SESSION_NOT_FOUND),
    ):
        with pytest.raises(grpc.RpcError) as failure:
            next(stub.Track(iter([opening]), metadata=brought))
        assert from_rpc_error(failure.value).kind is kind


def test_no_key_is_told_to_anybody(house: House, keys: KeysFile, caplog: pytest.LogCaptureFixture) -> None:
    keys.write(alice={"requests_per_s": 0.01, "burst": 1})
    with caplog.at_level("INFO"):
        opened(house, keys)
        answers = [segment(house, "alice"), segment(house, "alice"), segment(house, "mallory")]
        refused(house, metadata("mallory"))
        with stream(house) as socket:
            _ends(socket, key=secret("mallory"))
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
