"""Tracking sessions as clients see them: over HTTP and gRPC, through workers and a Redis that are killed."""

import base64
import json
import queue
import threading
import time
from pathlib import Path
from queue import Queue
from typing import Any

import grpc
import httpx
import pytest
from websockets import ConnectionClosed, InvalidStatus, Origin
from websockets.sync.client import connect

from service.client import Client, Session
from service.errors import ServiceError
from service.pb.efficientsam3.v1 import segmentation_pb2 as segmentation_pb
from service.pb.efficientsam3.v1 import tracking_pb2 as pb
from service.pb.efficientsam3.v1.tracking_pb2_grpc import TrackingStub
from service.video import Video
from tests.command import run_command
from tests.pictures import encoded, moving_clip, moving_square
from tests.redis_server import RedisServer
from tests.serving import Serving

FRAMES = 8
CLICK = {"points": [{"x": 30, "y": 30}]}
BOX = {"box": [10, 10, 50, 40]}


def picture(index: int) -> bytes:
    """A bright square that moves to the right over a dark picture."""
    return encoded(moving_square(index), "PNG")


def add(serving: Serving, session: str, index: int, *prompts: Any, **fields: Any) -> httpx.Response:
    """Frame `index` as multipart."""
    body = {"frame": index, "prompts": list(prompts), **fields}
    return serving.client.post(
        f"/v1/sessions/{session}/frames",
        files={"image": ("frame.png", picture(index), "image/png")},
        data={"request": json.dumps(body)},
    )


def opened(serving: Serving, **fields: Any) -> str:
    answer = serving.client.post("/v1/sessions", json=fields)
    assert answer.status_code == 201, answer.text
    session: str = answer.json()["session"]
    return session


def followed(serving: Serving, before: dict[int, Any] | None = None) -> list[Any]:
    """The objects of every frame of a new session. Of `before`, what is there is done before that frame."""
    session, found = opened(serving), []
    for index in range(FRAMES):
        (before or {}).get(index, lambda: None)()
        answer = add(serving, session, index, *((CLICK, BOX) if not index else ()))
        assert answer.status_code == 200, answer.text
        found.append(answer.json()["objects"])
    return found


def test_the_verbs_of_a_session(small: Serving) -> None:
    client = small.client
    session = opened(small, variant=small.variant, ttl_s=100, frames_total=30)
    first = add(small, session, 0, CLICK, BOX | {"object": 5}).json()
    assert [each["object"] for each in first["objects"]] == [5, 6]
    assert [each["prompt"] for each in first["objects"]] == [1, 0]
    assert (first["frame"], first["revision"], first["image"]["width"]) == (0, 0, 90)
    again = client.post(f"/v1/sessions/{session}/frames", json={"frame": 0, "revision": 1, "prompts": [BOX]})
    assert [each["object"] for each in again.json()["objects"]] == [1]
    stands = client.get(f"/v1/sessions/{session}").json()
    assert (stands["next_frame"], stands["objects"], stands["variant"]) == (1, [1], small.variant)
    fork = client.post(f"/v1/sessions/{session}/fork")
    assert fork.status_code == 201 and fork.json()["next_frame"] == 1
    assert add(small, fork.json()["session"], 1).status_code == 200
    assert client.delete(f"/v1/sessions/{session}").status_code == 204
    assert client.get(f"/v1/sessions/{session}").json()["type"] == "/problems/session_not_found"
    assert client.get(f"/v1/sessions/{fork.json()['session']}").json()["next_frame"] == 2


def test_a_session_is_opened_by_an_empty_body_and_masks_come_as_asked(small: Serving) -> None:
    assert small.client.post("/v1/sessions").status_code == 201
    session = opened(small, options={"mask_format": "polygon", "return_logits": True})
    (found,) = add(small, session, 0, BOX).json()["objects"]
    assert found["logits"]["format"] == "logits"
    assert not found["visible"] or found["mask"]["format"] == "polygon"


def test_what_is_wrong_is_named(small: Serving) -> None:
    session = opened(small)
    url = f"/v1/sessions/{session}/frames"
    sent = {"base64": base64.b64encode(picture(0)).decode()}
    for body, status, says in (
        ({"frame": 1, "image": {"id": "sha256:" + 64 * "0"}}, 409, "frame 0 comes next"),
        ({"frame": 0}, 400, "image is missing"),
        ({"frame": -1}, 400, "frame: "),
        ({"frame": 0, "prompts": [{"object": 0}]}, 400, "prompts[0].object"),
        (
            {"frame": 0, "image": sent, "prompts": [{"text": "dog", "object": 1}]},
            400,
            "prompts[0] mixes a text",
        ),
        ({"frame": 0, "prompts": [{"remove": {}}]}, 400, "needs an object or a text"),
    ):
        answer = small.client.post(url, json=body)
        assert answer.status_code == status and says in answer.json()["detail"], answer.text
    for path in ("/v1/sessions/no-session", f"/v1/sessions/other.{32 * '0'}"):
        assert small.client.get(path).status_code == 404
    for body, says in (
        ({"ttl_s": 10**8}, "ttl_s"),
        ({"variant": "none"}, "none"),
        ({"frames": 1}, "frames"),
        (
            {"options": {"confirm_frames": 61}},
            "options.confirm_frames: Input should be less than or equal to 60",
        ),
    ):
        answer = small.client.post("/v1/sessions", json=body)
        assert answer.status_code in (400, 404) and says in answer.json()["detail"], answer.text


def test_the_last_frames_are_the_same_after_the_worker_was_killed(lasting: Serving) -> None:
    undisturbed = followed(lasting)

    def kill() -> None:
        lasting.workers()[0].kill()

    assert followed(lasting, {2: kill, 5: kill}) == undisturbed


def test_the_last_frames_are_the_same_after_redis_was_killed(lasting: Serving, redis: RedisServer) -> None:
    undisturbed = followed(lasting)

    def kill() -> None:
        redis.kill()
        redis.start()

    assert followed(lasting, {3: kill, 6: kill}) == undisturbed


def test_the_client_goes_on_by_itself(lasting: Serving, redis: RedisServer, way: str) -> None:
    undisturbed = followed(lasting)
    with Client(lasting.address(way)) as client:
        session, found = client.open_session(ttl_s=100), []
        for index in range(FRAMES):
            if index == 2:
                lasting.workers()[0].kill()
            if index == 4:
                redis.kill()
                threading.Timer(1.0, redis.start).start()
            if index == 6:
                session = client.session(session.id)
            frame = session.add(picture(index), [] if index else [CLICK, BOX])
            assert frame.index == index and session.next_frame == index + 1
            found.append(frame.raw["objects"])
        assert found == undisturbed
        fork = session.fork()
        corrected = session.correct([{"remove": {"object": 1}}], picture(FRAMES - 1))
        assert (corrected.revision, [each.id for each in corrected.objects]) == (1, [2])
        assert client.session(session.id).correct([], picture(FRAMES - 1)).revision == 2
        assert [each.id for each in fork.add(picture(FRAMES)).objects] == [1, 2]
        session.delete()
        with pytest.raises(ServiceError, match="no session"):
            session.state()


def test_a_frame_of_a_stream_is_refused_and_the_session_goes_on(small: Serving, way: str) -> None:
    expected = followed(small)
    frames = [(picture(index), [] if index else [CLICK, BOX]) for index in range(FRAMES)]
    unknown, misspelt = [{"remove": {"object": 9}}], [{"txt": "dog"}]
    with Client(small.address(way)) as client:
        session, found = client.open_session(), []
        for image, prompts, kind in (
            (picture(2), unknown, "invalid_argument"),
            (picture(2), misspelt, "invalid_argument"),
            (b"no image", [], "unsupported_image"),
            (bytes(33 * 2**20), [], "payload_too_large"),
        ):
            good = frames[session.next_frame : 2]
            with pytest.raises(ServiceError) as refused:
                _streamed(session, [*good, (image, prompts), *frames[3:]], found)
            assert (refused.value.kind.value, session.next_frame) == (kind, 2)
        _streamed(session, frames[2:], found, in_flight=2)
        assert found == expected
        session.delete()
        with pytest.raises(ServiceError, match="no session"):
            next(session.stream(frames))
        with pytest.raises(ValueError, match="1 to 4"):
            next(session.stream(frames, in_flight=5))


def _streamed(session: Session, frames: list[Any], found: list[Any], **how: int) -> None:
    """Add the objects of every frame that is answered to `found`."""
    found.extend(frame.raw["objects"] for frame in session.stream(frames, **how))


def test_the_command_draws_what_it_followed(small: Serving, tmp_path: Path) -> None:
    clip, out = moving_clip(tmp_path, 5), tmp_path / "out.mp4"
    command = ["track", str(clip), "--server", small.url, "--box", "10,10,50,40", "--box", "20,5,60,50"]
    done = run_command(*command, "--json", "--out", str(out))
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["frame"] for line in lines] == [0, 1, 2, 3, 4]
    assert all([each["object"] for each in line["objects"]] == [1, 2] for line in lines)
    with Video(out) as drawn:
        assert [frame.size for frame in drawn] == [(90, 60)] * 5
        assert drawn.rate == 10
    refused = run_command(*command, "--json", "--confirm-frames", "61", fails=True)
    assert "options.confirm_frames" in refused.stderr and not refused.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["clip.mp4"], "nothing is followed"),
        (["clip.mp4", "--box", "1,1,2,2"], "nowhere to put the answer"),
        (["none.mp4", "--box", "1,1,2,2", "--json"], "none.mp4"),
        (["text.mp4", "--box", "1,1,2,2", "--json"], "cannot be read as a video"),
    ],
)
def test_the_command_says_what_is_wrong(
    small: Serving, tmp_path: Path, arguments: list[str], says: str
) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    video, *options = arguments
    done = run_command("track", str(tmp_path / video), *options, "--server", small.url, fails=True)
    assert says in done.stderr and "Traceback" not in done.stderr


def test_a_stream_goes_on_through_a_killed_worker_and_is_opened_again(lasting: Serving) -> None:
    stub = TrackingStub(grpc.insecure_channel(f"127.0.0.1:{lasting.grpc_port}"))

    def frame(index: int) -> pb.TrackRequest:
        click = pb.TrackPrompt(points=[segmentation_pb.Point(x=30, y=30)])
        image = segmentation_pb.Image(data=picture(index))
        return pb.TrackRequest(frame=pb.Frame(frame=index, image=image, prompts=[] if index else [click]))

    def watch(session: str, indices: range, killed: int = -1) -> list[pb.TrackResponse]:
        requests: queue.Queue[pb.TrackRequest | None] = queue.Queue()
        requests.put(pb.TrackRequest(open=pb.OpenSessionRequest(session=session)))
        answers = stub.Track(iter(requests.get, None), timeout=120)
        answered = [next(answers)]
        for index in indices:
            requests.put(frame(index))
            if index == killed:
                lasting.workers()[0].kill()
            # A frame that a worker had begun is sent to another by its client alone.
            while (answer := next(answers)).error.kind == "unavailable":
                requests.put(frame(index))
            answered.append(answer)
        requests.put(None)
        return answered

    def found(answers: list[pb.TrackResponse]) -> list[Any]:
        assert not any(answer.HasField("error") for answer in answers), answers
        return [(each.frame.frame, list(each.frame.objects)) for each in answers if each.HasField("frame")]

    opening, *whole = watch("", range(FRAMES))
    assert opening.opened.next_frame == 0
    first = watch("", range(5), killed=3)
    session = first[0].opened.session
    # Two frames are sent again: what was lost on the way is answered the same way.
    second = watch(session, range(3, FRAMES))
    assert (second[0].opened.next_frame, second[0].opened.oldest_answer) == (5, 1)
    assert found(first) + found(second)[2:] == found(whole)
    assert found(second)[:2] == found(first)[3:]


def test_sessions_their_bytes_and_streams_are_counted(small: Serving) -> None:
    labels = f'{{variant="{small.variant}"}}'
    names = [
        f"sessions_total{labels}",
        *(f"session_memory_bytes_{part}{labels}" for part in ("count", "sum")),
    ]
    streams = [f'open_streams{{transport="{transport}"}}' for transport in ("http", "grpc")]

    def read(name: str) -> float:
        lines = small.client.get("/metrics").text.splitlines()
        found = [line.split()[-1] for line in lines if line.startswith(f"efficientsam3_{name} ")]
        return float(found[0]) if found else 0.0

    before = [read(name) for name in names]
    session, stub = opened(small), TrackingStub(grpc.insecure_channel(f"127.0.0.1:{small.grpc_port}"))
    kept = [
        add(small, session, index, *([BOX] if not index else [])).json()["memory_bytes"] for index in (0, 1)
    ]
    assert small.client.get(f"/v1/sessions/{session}").json()["memory_bytes"] == kept[1] > kept[0] > 0
    assert small.client.post(f"/v1/sessions/{session}/fork").status_code == 201
    counted = [read(name) - start for name, start in zip(names, before, strict=True)]
    assert counted == [2, 2, sum(kept)]
    asked = Queue[pb.TrackRequest | None]()
    with connect(f"{small.url.replace('http', 'ws')}/v1/sessions/{session}/stream"):
        answers = stub.Track(iter(asked.get, None), timeout=60)
        asked.put(pb.TrackRequest(open=pb.OpenSessionRequest(session=session)))
        assert next(answers).opened.session == session
        assert [read(name) for name in streams] == [1, 1]
    asked.put(None)
    assert list(answers) == []
    until = time.monotonic() + 10
    while [read(name) for name in streams] != [0, 0]:
        assert time.monotonic() < until, "a stream that ended is counted"
        time.sleep(0.05)


def test_frames_go_through_a_websocket(small: Serving) -> None:
    expected = followed(small)
    session, found = opened(small), []
    address = f"{small.url.replace('http', 'ws')}/v1/sessions/{session}/stream"
    with connect(address) as socket:
        # All are sent before the first answer is read.
        for index in range(FRAMES):
            socket.send(json.dumps({"frame": index, "prompts": [] if index else [CLICK, BOX]}))
            socket.send(picture(index))
        for index in range(FRAMES):
            answer = json.loads(socket.recv(timeout=60))
            assert answer["frame"] == index
            found.append(answer["objects"])
        assert found == expected
        last = FRAMES - 1
        for asked, kind in (
            ({"frame": last + 2, "image": {"base64": "/9j/"}}, "frame_gap"),
            ({"frame": last + 1, "colour": 1, "known_image": True}, "invalid_argument"),
        ):
            socket.send(json.dumps(asked))
            refused = json.loads(socket.recv(timeout=60))
            assert refused["type"] == f"/problems/{kind}", refused
        socket.send(json.dumps({"frame": last, "revision": 1, "known_image": True}))
        assert json.loads(socket.recv(timeout=60))["revision"] == 1
        socket.send(b"an image that nothing announced")
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(timeout=60)
        assert closed.value.rcvd is not None and "take turns" in closed.value.rcvd.reason
    with pytest.raises(InvalidStatus), connect(address, origin=Origin("https://elsewhere.example")):
        pass
    for deadline_ms, says in (("1", "deadline_exceeded"), ("soon", "X-Deadline-Ms must be")):
        with connect(address, additional_headers={"X-Deadline-Ms": deadline_ms}) as socket:
            try:
                socket.send(json.dumps({"frame": last + 1}))
                socket.send(picture(last + 1))
                told = json.loads(socket.recv(timeout=60))["type"]
            except ConnectionClosed as closing:
                told = str(closing)
            assert says in told
