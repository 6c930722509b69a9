"""A gateway behind keys, and who asks it."""

import base64
import json
from typing import Any

import grpc
import httpx
import pytest
from websockets import ConnectionClosed
from websockets.sync.client import connect

from service.errors import ServiceError
from service.pb.efficientsam3.v1 import segmentation_pb2 as pb
from service.rpc import from_rpc_error
from tests.gateway.conftest import House
from tests.gateway.fake_worker import FakeWorker
from tests.keys import KeysFile, authorization, secret

BODY: dict[str, Any] = {"image": {"base64": base64.b64encode(b"x").decode()}, "prompts": [{"text": "truck"}]}
REQUEST = pb.SegmentRequest(image=pb.Image(data=b"x"), prompts=[pb.Prompt(text="truck")])
# Of no variant here: whoever hears that was let in.
SESSION = f"other.{32 * '0'}"


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


def stream(house: House, **headers: str) -> Any:
    address = f"{house.gateway.url.replace('http', 'ws')}/v1/sessions/{SESSION}/stream"
    return connect(address, additional_headers=headers)


def frame(socket: Any, **fields: Any) -> dict[str, Any]:
    """The answer to a frame that is sent so."""
    socket.send(json.dumps({"frame": 0, **fields}))
    socket.send(b"image")
    answer: dict[str, Any] = json.loads(socket.recv(timeout=60))
    return answer


def ends(socket: Any, **fields: Any) -> None:
    """The frame is refused as nobody's, and the connection closed."""
    assert frame(socket, **fields)["type"] == "/problems/unauthenticated"
    with pytest.raises(ConnectionClosed) as closed:
        socket.recv(timeout=60)
    assert closed.value.rcvd is not None and closed.value.rcvd.code == 1008
