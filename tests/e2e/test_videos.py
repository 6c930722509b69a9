"""Whole videos as clients send them: over HTTP and gRPC, through a worker that is killed, and cut off."""

import io
import json
from typing import Any

import grpc
import pytest
from PIL import Image

from service.pb.efficientsam3.v1 import segmentation_pb2 as segmentation_pb
from service.pb.efficientsam3.v1 import tracking_pb2 as pb
from service.pb.efficientsam3.v1.tracking_pb2_grpc import TrackingStub
from service.video import Video, as_tiff
from tests.pictures import moving_clip
from tests.serving import Serving

FRAMES = 12
CLICK = {"points": [{"x": 30, "y": 30}]}
BOX = {"frame": 4, "box": [20, 10, 60, 40]}


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return moving_clip(tmp_path_factory.mktemp("clip"), FRAMES).read_bytes()


def stream(serving: Serving, video: bytes, **request: Any) -> Any:
    return serving.client.stream(
        "POST",
        "/v1/videos/track",
        files={"video": ("clip.mp4", video, "video/mp4")},
        data={"request": json.dumps(request)},
    )


def tracked(serving: Serving, video: bytes, **request: Any) -> tuple[str, list[Any]]:
    """The session, and every line."""
    with stream(serving, video, **request) as answer:
        lines = [json.loads(line) for line in answer.iter_lines()]
        assert answer.status_code == 200, lines
        assert answer.headers["content-type"] == "application/x-ndjson"
        return answer.headers["x-session-id"], lines


def objects(lines: list[Any]) -> list[Any]:
    return [line["objects"] for line in lines]


def frames_of(video: bytes) -> list[bytes]:
    with Video(video) as opened:
        return [as_tiff(picture) for picture in opened]


def test_a_line_per_frame_is_what_the_frames_get_one_by_one(lasting: Serving, clip: bytes) -> None:
    session, lines = tracked(lasting, clip, prompts=[CLICK, BOX])
    assert [line["frame"] for line in lines] == list(range(FRAMES))
    assert [[each["object"] for each in line["objects"]] for line in lines] == [[1]] * 4 + [[1, 2]] * 8
    state = lasting.client.get(f"/v1/sessions/{session}").json()
    assert (state["next_frame"], state["objects"]) == (FRAMES, [1, 2])
    assert lasting.client.get(f"/v1/variants/{state['variant']}").json()["memory"] == "perceiver"
    single = lasting.client.post("/v1/sessions", json={"frames_total": FRAMES}).json()["session"]
    shown = {0: CLICK, 4: {"box": BOX["box"]}}
    for index, image in enumerate(frames_of(clip)):
        prompts = [shown[index]] if index in shown else []
        answer = lasting.client.post(
            f"/v1/sessions/{single}/frames",
            files={"image": ("frame.tif", image, "image/tiff")},
            data={"request": json.dumps({"frame": index, "prompts": prompts})},
        )
        assert answer.json()["objects"] == lines[index]["objects"], index


def test_a_video_whose_worker_is_lost_goes_on_where_it_was(lasting: Serving, clip: bytes) -> None:
    _, undisturbed = tracked(lasting, clip, prompts=[CLICK, BOX])
    lines: list[Any] = []
    going_on: dict[str, Any] = {}
    while len(lines) < FRAMES:
        with stream(lasting, clip, prompts=[CLICK, BOX], **going_on) as answer:
            going_on = {"session": answer.headers["x-session-id"]}
            for line in map(json.loads, answer.iter_lines()):
                if "type" in line:
                    # The frame that a worker had begun is not sent to another, unless the client does that.
                    assert (line["type"], line["frame"]) == ("/problems/unavailable", len(lines))
                    break
                lines.append(line)
                if len(lines) in (2, 7):
                    # None, where it was so far ahead that the next has not come yet.
                    for worker in lasting.workers():
                        worker.kill()
        going_on["first"] = len(lines)
    assert [line["frame"] for line in lines] == list(range(FRAMES))
    assert objects(lines) == objects(undisturbed)


def test_a_client_that_left_goes_on_where_it_was(lasting: Serving, clip: bytes) -> None:
    _, undisturbed = tracked(lasting, clip, prompts=[CLICK])
    with stream(lasting, clip, prompts=[CLICK]) as answer:
        lines = answer.iter_lines()
        first = [json.loads(next(lines)) for _ in range(3)]
        session = answer.headers["x-session-id"]
    again, rest = tracked(lasting, clip, session=session, first=3, prompts=[CLICK])
    assert again == session
    assert objects([*first, *rest]) == objects(undisturbed)
    # However far the server was ahead; another worker gives the same answers.
    lasting.workers()[0].kill()
    assert objects(tracked(lasting, clip, session=session, prompts=[CLICK])[1]) == objects(undisturbed)


def test_a_video_goes_over_grpc(lasting: Serving, clip: bytes) -> None:
    stub = TrackingStub(grpc.insecure_channel(f"127.0.0.1:{lasting.grpc_port}"))
    shown = pb.TrackPrompt(points=[segmentation_pb.Point(x=30, y=30)])
    late = [pb.VideoPrompt(prompt=shown), pb.VideoPrompt(frame=FRAMES, prompt=shown)]
    request = pb.TrackVideoRequest(video=clip, prompts=late)
    answers = stub.TrackVideo(request, timeout=120)
    opened = next(answers)
    assert opened.opened.session and opened.opened.next_frame == 0
    found = []
    with pytest.raises(grpc.RpcError) as refused:
        found.extend(answers)
    assert [each.frame.frame for each in found] == list(range(FRAMES))
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert f"prompts[1].frame is {FRAMES}; the video has {FRAMES} frames" in refused.value.details()


def test_a_frame_that_is_refused_is_the_last_line(lasting: Serving, clip: bytes) -> None:
    outside = {"frame": 2, "points": [{"x": 500, "y": 1}]}
    session, lines = tracked(lasting, clip, prompts=[CLICK, outside])
    assert [line["frame"] for line in lines] == [0, 1, 2]
    assert (lines[-1]["type"], lines[-1]["status"]) == ("/problems/invalid_argument", 400)
    assert "prompts[0].points[0]" in lines[-1]["detail"]
    # The session stands before that frame, and takes the video without what was wrong.
    _, rest = tracked(lasting, clip, session=session, first=2, prompts=[CLICK])
    assert [line["frame"] for line in rest] == list(range(2, FRAMES))


def test_what_is_wrong_is_said_before_the_first_line(lasting: Serving, clip: bytes) -> None:
    picture = io.BytesIO()
    Image.new("RGB", (8, 8)).save(picture, "PNG")
    for video, request, status, says in (
        (b"no video", {}, 415, "video cannot be read as a video"),
        (clip[:200], {}, 415, "video "),
        (b"", {}, 400, "video is empty"),
        (clip, {"variant": "none"}, 404, "none"),
        (clip, {"prompts": [{"frame": 3}]}, 400, "prompts[0] is empty"),
        (clip, {"prompts": [{"frame": -1, **CLICK}]}, 400, "frame"),
        (clip, {"prompts": [CLICK] * 33}, 413, "prompts of frame 0 has 33 entries; the limit is 32"),
        (clip, {"session": f"{lasting.variant}.{32 * '0'}"}, 404, "no session"),
        (clip, {"session": f"{lasting.variant}.{32 * '0'}", "variant": lasting.variant}, 400, "both given"),
        (clip, {"ttl_s": 10**8}, 400, "ttl_s"),
    ):
        with stream(lasting, video, **request) as answer:
            body = json.loads(answer.read())
        assert answer.status_code == status and says in body["detail"], body
        assert answer.headers["content-type"] == "application/problem+json"
    answer = lasting.client.post("/v1/videos/track", json={"prompts": []})
    assert answer.status_code == 400 and "multipart/form-data" in answer.json()["detail"]


def test_a_damaged_video_says_so_in_its_last_line(lasting: Serving, clip: bytes) -> None:
    begin, end = clip.index(b"mdat") + 4, clip.index(b"moov") - 4
    half = (begin + end) // 2
    _, lines = tracked(lasting, clip[:half] + bytes(end - half) + clip[end:], prompts=[CLICK])
    assert (lines[-1]["type"], lines[-1]["frame"]) == ("/problems/unsupported_video", len(lines) - 1)
    assert "video is damaged" in lines[-1]["detail"]
