"""Keys before real workers: sessions belong to a key's name, and there are as many as it may have."""

import json
from collections.abc import Iterator
from typing import Any

import grpc
import httpx
import pytest
from websockets.sync.client import connect

from service.errors import Kind
from service.pb.efficientsam3.v1 import tracking_pb2 as pb
from service.pb.efficientsam3.v1.tracking_pb2_grpc import TrackingStub
from service.rpc import from_rpc_error
from tests.keys import KeysFile, authorization, secret
from tests.pictures import encoded, moving_square
from tests.place import DEMO
from tests.serving import Serving

BOX = {"box": [10, 10, 50, 40]}


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> KeysFile:
    entries = {"alice": {"sessions": 2}, "bob": {}, "carol": {"requests_per_s": 0.01, "burst": 3}}
    return KeysFile(tmp_path_factory.mktemp("keys") / "keys.toml", **entries)


@pytest.fixture(scope="module", params=["memory", "redis"])
def keyed(
    request: pytest.FixtureRequest, keys: KeysFile, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Serving]:
    """The embedded student behind keys, with its sessions in memory and in Redis."""
    settings: dict[str, Any] = {"keys_file": keys.path}
    if request.param == "redis":
        settings["redis_url"] = request.getfixturevalue("redis").url
    with Serving(DEMO, tmp_path_factory.mktemp("keyed") / "log", **settings) as serving:
        yield serving
        assert "secret-of" not in serving.log.read_text()


def opened(serving: Serving, name: str) -> httpx.Response:
    return serving.client.post("/v1/sessions", headers=authorization(name))


def add(serving: Serving, session: str, name: str, index: int = 0) -> httpx.Response:
    return serving.client.post(
        f"/v1/sessions/{session}/frames",
        files={"image": ("frame.png", encoded(moving_square(index), "PNG"), "image/png")},
        data={"request": json.dumps({"frame": index, "prompts": [] if index else [BOX]})},
        headers=authorization(name),
    )


def test_sessions_of_another_key_do_not_exist(keyed: Serving) -> None:
    session = opened(keyed, "bob").json()["session"]
    assert add(keyed, session, "bob").status_code == 200
    path = f"/v1/sessions/{session}"
    for method, address in (("GET", path), ("DELETE", path), ("POST", f"{path}/fork")):
        answer = keyed.client.request(method, address, headers=authorization("alice"))
        assert (answer.status_code, answer.json()["type"]) == (404, "/problems/session_not_found"), method
    assert add(keyed, session, "alice", 1).status_code == 404
    assert add(keyed, session, "bob", 1).status_code == 200


def test_a_key_has_so_many_sessions(keyed: Serving) -> None:
    first = opened(keyed, "alice").json()["session"]
    forked = keyed.client.post(f"/v1/sessions/{first}/fork", headers=authorization("alice"))
    assert forked.status_code == 201
    stub = TrackingStub(grpc.insecure_channel(f"127.0.0.1:{keyed.grpc_port}"))
    metadata = (("authorization", f"Bearer {secret('alice')}"), ("x-sessions", "9"))
    for ask in (
        lambda: stub.OpenSession(pb.OpenSessionRequest(), metadata=metadata),
        lambda: stub.ForkSession(pb.SessionRequest(session=first), metadata=metadata),
        lambda: list(stub.Track(iter([pb.TrackRequest(open=pb.OpenSessionRequest())]), metadata=metadata)),
    ):
        with pytest.raises(grpc.RpcError) as failure:
            ask()
        told = from_rpc_error(failure.value)
        assert (told.kind, "2 are allowed" in told.detail) == (Kind.QUOTA_EXCEEDED, True)
    refused = opened(keyed, "alice")
    assert (refused.status_code, refused.json()["type"]) == (429, "/problems/quota_exceeded")
    assert int(refused.headers["retry-after"]) >= 1
    assert opened(keyed, "bob").status_code == 201
    # One that ends makes room.
    for session in (first, forked.json()["session"]):
        gone = keyed.client.delete(f"/v1/sessions/{session}", headers=authorization("alice"))
        assert gone.status_code == 204
    again = opened(keyed, "alice")
    assert again.status_code == 201
    ended = f"/v1/sessions/{again.json()['session']}"
    assert keyed.client.delete(ended, headers=authorization("alice")).status_code == 204


def test_a_rotated_key_keeps_its_sessions(keyed: Serving, keys: KeysFile) -> None:
    session = opened(keyed, "bob").json()["session"]
    before = keys.path.read_bytes()
    keys.write(bob={"key": "another"})
    assert keyed.client.get(f"/v1/sessions/{session}", headers=authorization("bob")).status_code == 401
    rotated = {"Authorization": "Bearer another"}
    assert keyed.client.get(f"/v1/sessions/{session}", headers=rotated).status_code == 200
    keys.replace(before)


def test_a_stream_is_answered_for_the_key_in_its_first_frame(keyed: Serving) -> None:
    session = opened(keyed, "bob").json()["session"]
    address = f"{keyed.url.replace('http', 'ws')}/v1/sessions/{session}/stream"
    with connect(address) as socket:
        for index, fields in enumerate(({"key": secret("bob"), "prompts": [BOX]}, {}, {})):
            socket.send(json.dumps({"frame": index, **fields}))
            socket.send(encoded(moving_square(index), "PNG"))
            answer = json.loads(socket.recv(timeout=60))
            assert (answer["frame"], len(answer["objects"])) == (index, 1)


def test_frames_of_a_grpc_stream_count_and_one_too_many_does_not_end_it(keyed: Serving) -> None:
    stub = TrackingStub(grpc.insecure_channel(f"127.0.0.1:{keyed.grpc_port}"))
    image = {"data": encoded(moving_square(0), "PNG")}
    asked = [
        pb.TrackRequest(open=pb.OpenSessionRequest()),
        *(pb.TrackRequest(frame=pb.Frame(frame=index, image=image)) for index in range(4)),
    ]
    metadata = (("authorization", f"Bearer {secret('carol')}"),)
    answers = list(stub.Track(iter(asked), metadata=metadata, timeout=120))
    kinds = [answer.error.kind or answer.WhichOneof("response") for answer in answers]
    assert kinds == ["opened", "frame", "frame", "quota_exceeded", "quota_exceeded"]
