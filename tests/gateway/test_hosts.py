"""Names that the gateway is addressed by: a page may have its own name point at us (DNS rebinding)."""

import json
import socket
from typing import Any

import pytest
from websockets import InvalidStatus
from websockets.sync.client import connect

from tests.gateway.conftest import House
from tests.gateway.keyed import SESSION, frame, opened
from tests.gateway.raw import connected, first_answer
from tests.keys import KeysFile, authorization

ADDRESSES = ["127.0.0.1:80", "[::1]:8080", "[::1]", "10.1.2.3:8080", "169.254.1.1"]
LOOPBACK = ["localhost", "LOCALHOST:8080", "localhost.", "sam.localhost:1", *ADDRESSES]
FOREIGN = [
    "rebinding.example",
    "rebinding.example:8080",
    "localhost.rebinding.example",
    "127.0.0.1.rebinding.example",
    "rebinding.example:80@127.0.0.1",
    "127.1",
    "[::1].rebinding.example]",
    "xlocalhost",
    "1",
]
PROBES = ["/healthz", "/readyz", "/metrics"]


def status(house: House, host: str, path: str = "/v1/variants", **headers: str) -> int:
    return house.http.get(path, headers={"Host": host, **headers}).status_code


def test_a_gateway_on_loopback_without_keys_is_addressed_by_loopback_names(house: House) -> None:
    house.open(house.worker())
    for host in LOOPBACK:
        assert status(house, host) == 200, host
    for path in ("/v1/variants", "/", "/docs", "/openapi.json"):
        assert status(house, "rebinding.example", path) == 403
    for host in FOREIGN[:-3] + FOREIGN[-2:]:
        answer = house.http.get("/v1/variants", headers={"Host": host, "Origin": f"http://{host}"})
        assert (answer.status_code, answer.json()["type"]) == (403, "/problems/forbidden"), host
        assert "the setting allowed_hosts" in answer.json()["detail"]


@pytest.mark.parametrize("path", PROBES)
def test_probes_may_use_any_name(house: House, path: str) -> None:
    house.open()
    assert status(house, "pod-7.example", path) == 200


def test_names_can_be_allowed(house: House) -> None:
    house.open(house.worker(), allowed_hosts=["segment.example", "*.internal.example"])
    for host in ("segment.example", "SEGMENT.example:443", "a.internal.example", *LOOPBACK):
        assert status(house, host) == 200, host
    for host in ("rebinding.example", "internal.example", "xinternal.example", "a.segment.example"):
        assert status(house, host) == 403, host


def test_every_name_can_be_allowed(house: House) -> None:
    house.open(house.worker(), allowed_hosts=["*"])
    assert status(house, "any.example") == 200


def test_with_keys_names_are_checked_where_some_are_allowed(house: House, keys: KeysFile) -> None:
    opened(house, keys)
    assert status(house, "segment.example", **authorization("alice")) == 200
    house.stop()
    opened(house, keys, allowed_hosts=["segment.example"])
    assert status(house, "segment.example", **authorization("alice")) == 200
    assert status(house, "rebinding.example", **authorization("alice")) == 403


def test_a_gateway_on_every_address_takes_every_name_unless_some_are_allowed(house: House) -> None:
    house.open(house.worker(), host="0.0.0.0")
    house.http.base_url = f"http://127.0.0.1:{house.gateway.http_port}"
    assert status(house, "gateway.namespace.svc") == 200


def test_a_websocket_is_refused_alike(house: House) -> None:
    house.open(house.worker())
    address = f"/v1/sessions/{SESSION}/stream"
    port = house.gateway.http_port
    with connect(f"ws://127.0.0.1:{port}{address}", additional_headers={}) as known:
        assert frame(known)["type"] == "/problems/session_not_found"
    with pytest.raises(InvalidStatus) as refusal:
        # As the browser would: a foreign name that leads here, and a matching origin.
        connect(
            f"ws://rebinding.example:{port}{address}",
            sock=socket.create_connection(("127.0.0.1", port)),
            origin=f"http://rebinding.example:{port}",  # type: ignore[arg-type]
        )
    assert refusal.value.response.status_code == 403
    told: dict[str, Any] = json.loads(refusal.value.response.body or b"")
    assert "allowed_hosts" in told["detail"]


def test_a_client_that_names_no_host_is_no_browser(house: House) -> None:
    house.open(house.worker())
    with connected(house, b"GET /v1/variants HTTP/1.0\r\n\r\n") as connection:
        assert b" 200 " in first_answer(connection)
    with connected(house, b"GET /v1/variants HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n") as connection:
        assert connection.recv(20).startswith(b"HTTP/1.1 400")
