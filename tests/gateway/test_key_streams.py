"""Keys of streams, which come with the handshake or with a frame."""

import json
import time

import grpc
import pytest
from websockets import ConnectionClosed, InvalidStatus

from service.errors import Kind
from service.pb.efficientsam3.v1 import tracking_pb2, tracking_pb2_grpc
from service.rpc import from_rpc_error
from tests.gateway.conftest import House
from tests.gateway.keyed import SESSION, ends, frame, metadata, opened, stream
from tests.keys import KeysFile, authorization, secret


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
        ends(socket)
    with stream(house) as socket:
        ends(socket)
    with stream(house) as socket:
        ends(socket, key=secret("mallory"))
    with pytest.raises(InvalidStatus) as refusal, stream(house, **authorization("mallory")):
        pass
    response = refusal.value.response
    assert (response.status_code, response.headers["www-authenticate"]) == (401, "Bearer")
    assert json.loads(response.body or b"")["type"] == "/problems/unauthenticated"


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


def test_who_leaves_before_the_image_came_has_cancelled(house: House, keys: KeysFile) -> None:
    opened(house, keys)
    with stream(house, **authorization("alice")) as socket:
        socket.send(json.dumps({"frame": 0}))
    line = 'efficientsam3_requests_total{kind="cancelled",transport="http",variant=""} 1.0'
    until = time.monotonic() + 60
    while line not in house.http.get("/metrics").text.splitlines():
        assert time.monotonic() < until
        time.sleep(0.01)
    assert 'kind="internal"' not in house.http.get("/metrics").text


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
