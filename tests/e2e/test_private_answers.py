"""No answer reveals what another key has sent, and no log has a session's id."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from websockets.sync.client import connect

from service.client import messages
from service.pb.efficientsam3.v1 import tracking_pb2
from service.pb.efficientsam3.v1.segmentation_pb2_grpc import SegmentationStub
from service.pb.efficientsam3.v1.tracking_pb2_grpc import TrackingStub
from tests.e2e.entry_points import channel, image_json, parts
from tests.gateway.keyed import metadata
from tests.hostile_videos import written
from tests.keys import KeysFile, authorization, secret
from tests.pictures import encoded, street
from tests.place import DEMO
from tests.serving import Serving

CLICK = {"points": [{"x": 30, "y": 70}]}
# (service, key's name, image, text) -> stages of the answer.
Stages = Callable[[Serving, str, bytes, str], set[str]]


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """The embedded student behind a gateway with two keys; both log as much as they can."""
    folder = tmp_path_factory.mktemp("private")
    keys = KeysFile(folder / "keys.toml", alice={}, bob={})
    settings: dict[str, Any] = {"keys_file": keys.path, "log_level": "DEBUG", "precision": "f32"}
    with Serving(DEMO, folder / "log", **settings) as serving:
        yield serving


def stages_of(answer: httpx.Response) -> set[str]:
    return set(answer.raise_for_status().json()["timings_ms"])


def segment(serving: Serving, name: str, image: bytes, text: str) -> set[str]:
    body = {"image": image_json(image), "prompts": [{"text": text}, CLICK]}
    return stages_of(serving.client.post("/v1/segment", json=body, headers=authorization(name)))


def keep(serving: Serving, name: str, image: bytes, text: str) -> set[str]:
    headers = authorization(name)
    return stages_of(serving.client.post("/v1/images", json={"image": image_json(image)}, headers=headers))


def segment_over_grpc(serving: Serving, name: str, image: bytes, text: str) -> set[str]:
    request = messages.segment_request(image, {"prompts": [{"text": text}, CLICK]})
    with channel(serving) as opened:
        return set(SegmentationStub(opened).Segment(request, metadata=metadata(name)).timings_ms)


def opened_session(serving: Serving, name: str) -> str:
    answer = serving.client.post("/v1/sessions", json={}, headers=authorization(name))
    return str(answer.raise_for_status().json()["session"])


def frame(serving: Serving, name: str, image: bytes, text: str) -> set[str]:
    body = {"frame": 0, "image": image_json(image), "prompts": [{"text": text}, CLICK]}
    path = f"/v1/sessions/{opened_session(serving, name)}/frames"
    return stages_of(serving.client.post(path, json=body, headers=authorization(name)))


@pytest.mark.parametrize("first", [segment, keep, segment_over_grpc, frame])
@pytest.mark.parametrize("then", [segment, keep, segment_over_grpc, frame])
def test_stages_of_an_answer_are_those_of_a_new_image(
    serving: Serving, first: Stages, then: Stages, request: pytest.FixtureRequest
) -> None:
    texts = [f"{each} of {request.node.name}" for each in ("a", "b")]
    # Bytes behind a JPEG's end make it another file.
    known, fresh = (encoded(street(160, 120)) + text.encode() for text in texts)
    first(serving, "alice", known, texts[0])
    found = then(serving, "bob", known, texts[0])
    assert found == then(serving, "bob", fresh, texts[1])
    if then is not frame:
        # What a key has sent itself is not computed again.
        assert then(serving, "bob", known, texts[0]) < found


def test_no_log_has_a_sessions_id_or_a_key(serving: Serving) -> None:
    alice = authorization("alice")
    image = encoded(street(160, 120))
    video = parts(written(160, 120, 2), {"prompts": [CLICK]}, "video")
    told: list[Any] = []
    with serving.client.stream("POST", "/v1/videos/track", headers=alice, **video) as answer:
        told.append(answer.headers["x-session-id"])
        assert len(list(answer.iter_lines())) == 2
    session = opened_session(serving, "alice")
    path = f"/v1/sessions/{session}"
    for number, given in ((0, image), (0, image), (7, image), (1, b"no image"), (1, image)):
        body = {"frame": number, "image": image_json(given), "prompts": [] if number else [CLICK]}
        serving.client.post(f"{path}/frames", json=body, headers=alice)
    forked = serving.client.post(f"{path}/fork", headers=alice).raise_for_status().json()["session"]
    address = f"{serving.url.replace('http', 'ws')}/v1/sessions/{forked}/stream"
    with connect(address) as socket:
        socket.send(json.dumps({"frame": 2, "key": secret("alice")}))
        socket.send(image)
        assert json.loads(socket.recv(timeout=60))["frame"] == 2
    with channel(serving) as opened:
        stub = TrackingStub(opened)
        opening = tracking_pb2.TrackRequest(open=tracking_pb2.OpenSessionRequest())
        first = messages.frame({"frame": 0, "prompts": [CLICK]}, image)
        answers = stub.Track(
            iter([opening, tracking_pb2.TrackRequest(frame=first)]), metadata=metadata("alice")
        )
        told.append(next(answers).opened.session)
        assert next(answers).frame.frame == 0
    for each in (session, forked, "nowhere." + 32 * "5"):
        serving.client.get(f"/v1/sessions/{each}", headers=authorization("bob"))
        serving.client.delete(f"/v1/sessions/{each}", headers=alice)
        told.append(each)
    log = serving.log.read_text()
    assert "DELETE /v1/sessions/" in log
    for each in told:
        # The last part is what makes an id secret.
        assert each not in log and each.rpartition(".")[2] not in log and each[-32:] not in log
    assert "secret-of" not in log
