"""Nobody can use a session or a key by what the gateway logs."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import grpc
import httpx
import pytest
from websockets import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from service.pb.efficientsam3.v1 import tracking_pb2 as pb
from service.pb.efficientsam3.v1.tracking_pb2_grpc import TrackingStub
from tests.gateway.keyed import metadata
from tests.gateway.serve_fakes import Served
from tests.keys import KeysFile, authorization, secret

SESSION = "demo.feedfeedfeed-" + 32 * "7"
HASH = hashlib.sha256(SESSION.encode()).hexdigest()[:12]
KEY = "es3_" + 43 * "k"


@pytest.fixture
def logged(tmp_path: Path, keys: KeysFile) -> Iterator[Served]:
    """A gateway that logs all there is, with keys."""
    settings = {"EFFICIENTSAM3_KEYS_FILE": str(keys.path), "EFFICIENTSAM3_LOG_LEVEL": "DEBUG"}
    with Served(tmp_path / "log", "1", "demo", **settings) as served:
        served.wait_for("worker .* is ready")
        yield served


def test_a_sessions_id_is_logged_as_its_hash(logged: Served) -> None:
    alice = authorization("alice")
    with httpx.Client(base_url=logged.url, headers=alice, timeout=60) as client:
        for method, path in (
            ("GET", ""),
            ("DELETE", ""),
            ("POST", "/fork"),
            ("POST", "/frames"),
            ("GET", "/nowhere"),
            ("GET", "?id=" + SESSION),
            ("GET", "%2Fframes"),
        ):
            client.request(method, f"/v1/sessions/{SESSION}{path}")
        client.get(f"/v1/variants/{SESSION}")
        client.get("/v1/sessions/whatever-else-it-is")
    address = f"{logged.url.replace('http', 'ws')}/v1/sessions/{SESSION}/stream"
    with connect(address, additional_headers=alice) as socket:
        for message in ('{"frame":0,"known_image":true}', "{"):
            socket.send(message)
            socket.recv(timeout=60)
    with grpc.insecure_channel(logged.grpc_url.removeprefix("grpc://")) as channel:
        stub = TrackingStub(channel)
        with pytest.raises(grpc.RpcError):
            stub.GetSession(pb.SessionRequest(session=SESSION), metadata=metadata("alice"))
    logged.wait_for("target='/efficientsam3.v1.Tracking/GetSession'")
    text = logged.log.read_text()
    assert SESSION not in text and 32 * "7" not in text and "whatever-else" not in text
    for target in ("GET", "DELETE", "POST", "WS"):
        assert f"target='{target} /v1/sessions/{HASH}" in text


def test_a_key_is_never_logged_or_told(logged: Served, keys: KeysFile) -> None:
    keys.write(alice={}, other={"key": KEY})
    told = []
    with httpx.Client(base_url=logged.url, timeout=60) as client:
        for headers in (
            authorization("alice"),
            authorization("mallory"),
            {"Authorization": secret("alice")},
            {"Authorization": f"Basic {secret('alice')}"},
            {"Authorization": f"Bearer {KEY}"},
        ):
            for path in ("/v1/variants", f"/v1/variants?key={secret('alice')}", f"/v1/{KEY}"):
                answer = client.get(path, headers=headers)
                told.append(answer.text if KEY not in path else "")
                told.append(str(answer.headers))
    address = f"{logged.url.replace('http', 'ws')}/v1/sessions/{SESSION}/stream"
    with pytest.raises(InvalidStatus) as refusal:
        connect(address, additional_headers=authorization("mallory"))
    told.append(str(refusal.value.response.body))
    for message in (
        {"frame": 0, "known_image": True, "key": secret("mallory")},
        {"frame": "x", "key": secret("alice")},
        {"frame": 0, "key": [secret("alice")]},
        {"frame": 0, "known_image": True, "key": secret("alice") + " " + secret("alice")},
        {"frame": 0, "known_image": True, "key": KEY},
    ):
        with connect(f"{address}?key={KEY}") as socket:
            socket.send(json.dumps(message))
            told.append(str(socket.recv(timeout=60)))
            try:
                told.append(str(socket.recv(timeout=0.1)))
            except TimeoutError:
                pass
            except ConnectionClosed as closed:
                told.append(str(closed))
    with grpc.insecure_channel(logged.grpc_url.removeprefix("grpc://")) as channel:
        with pytest.raises(grpc.RpcError) as failure:
            TrackingStub(channel).GetSession(pb.SessionRequest(), metadata=metadata("mallory"))
        told.append(str(failure.value))
    text = logged.wait_for("target='/efficientsam3.v1.Tracking/GetSession'").string
    assert "key=alice" in text and "key=other" in text
    for private in ("secret-of", KEY):
        assert private not in text and private not in "".join(told)


def test_a_requests_id_is_plain_text(logged: Served) -> None:
    with httpx.Client(base_url=logged.url, headers=authorization("alice"), timeout=60) as client:
        for offered in (b"a\tb", b"caf\xe9", b"x" * 129, b"a b", b"\x7f", b"%0d%0aforged", b'"', b"<b>"):
            answer = client.get("/v1/variants", headers={b"X-Request-Id": offered})
            given = answer.headers["x-request-id"]
            if answer.status_code == 200:
                assert len(given) == 32 and given.isalnum()
        assert client.get("/v1/variants", headers={"X-Request-Id": "last-1"}).status_code == 200
    lines = logged.wait_for("request_id=last-1 .*").string.splitlines()
    assert all("forged" not in line and "\x7f" not in line for line in lines)
