"""The frames of a video count as requests of its key: they come as fast as its rate allows."""

import json
from typing import Any

import grpc
import pytest

from service.errors import Kind
from service.pb.efficientsam3.v1 import tracking_pb2 as pb
from service.pb.efficientsam3.v1.tracking_pb2_grpc import TrackingStub
from service.rpc import from_rpc_error
from tests.gateway.conftest import House
from tests.gateway.keyed import metadata, opened, segment
from tests.keys import KeysFile, authorization
from tests.redis_server import RedisServer


def lines(house: House, name: str, frames: int, deadline_ms: int = 60_000, **request: Any) -> list[Any]:
    """What the video of so many frames is answered, line by line."""
    answer = house.http.post(
        "/v1/videos/track",
        files={
            "video": ("clip", str(frames).encode()),
            "request": (None, json.dumps({"prompts": [], **request})),
        },
        headers={**authorization(name), "X-Deadline-Ms": str(deadline_ms)},
    )
    assert answer.status_code == 200, answer.text
    return [json.loads(line) for line in answer.text.splitlines()]


def test_frames_wait_for_the_rate_of_their_key(house: House, keys: KeysFile) -> None:
    keys.write(alice={"requests_per_s": 50, "burst": 2})
    opened(house, keys)
    assert [line["frame"] for line in lines(house, "alice", 10)] == list(range(10))
    assert house.channel
    request = pb.TrackVideoRequest(video=b"10")
    answers = list(TrackingStub(house.channel).TrackVideo(request, metadata=metadata("alice"), timeout=60))
    assert [answer.frame.frame for answer in answers if answer.HasField("frame")] == list(range(10))


@pytest.mark.parametrize("shared", [False, True])
def test_a_video_beyond_the_rate_ends_before_its_deadline_and_leaves_tokens(
    house: House, keys: KeysFile, redis_server: RedisServer, shared: bool
) -> None:
    keys.write(alice={"requests_per_s": 0.01, "burst": 8}, bob={})
    opened(house, keys, redis_url=redis_server.url if shared else "")
    # One token is the request's own; its frames have half of the eight.
    *found, last = lines(house, "alice", 10, 5_000)
    assert [line["frame"] for line in found] == [0, 1, 2, 3]
    assert (last["type"], last["frame"], last["status"]) == ("/problems/quota_exceeded", 4, 429)
    assert last["detail"].startswith("Key alice: its videos may have 0.005 frames per second here")
    # Another video of the key has none left, over gRPC too. It takes a token for itself.
    assert house.channel
    request = pb.TrackVideoRequest(video=b"10")
    with pytest.raises(grpc.RpcError) as refused:
        list(TrackingStub(house.channel).TrackVideo(request, metadata=metadata("alice"), timeout=5))
    error = from_rpc_error(refused.value)
    assert error.kind is Kind.QUOTA_EXCEEDED
    assert error.retry_after_s is not None and 100 < error.retry_after_s <= 200
    # What interactive requests have: the rest.
    assert [segment(house, "alice").status_code for _ in range(3)] == [200, 200, 429]
    assert len(lines(house, "bob", 10, 5_000)) == 10
