"""Sends an image and a prompt to each public entry point that takes them, and returns the outcome."""

import base64
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import httpx
from websockets.sync.client import connect

from service.client import messages
from service.errors import Kind
from service.pb.efficientsam3.v1 import segmentation_pb2, tracking_pb2
from service.pb.efficientsam3.v1.segmentation_pb2_grpc import SegmentationStub
from service.pb.efficientsam3.v1.tracking_pb2_grpc import TrackingStub
from service.rpc import from_rpc_error
from tests.fuzz.oracle import LEAKS
from tests.serving import Serving

Json = dict[str, Any]
# The kind of the refusal and its sentence, or "ok" and nothing.
Outcome = tuple[str, str]
Send = Callable[[Serving, bytes, Json], Outcome]

TIMEOUT_S = 120


def of_http(answer: httpx.Response) -> Outcome:
    """Return the outcome of a response, whose headers must reveal nothing internal either."""
    assert not LEAKS.search(str(answer.headers)), answer.headers
    if answer.status_code in (200, 201):
        return "ok", ""
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    return of_problem(answer.json())


def of_problem(problem: Json) -> Outcome:
    return problem["type"].removeprefix("/problems/"), problem["detail"]


@contextmanager
def channel(serving: Serving) -> Iterator[grpc.Channel]:
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(f"127.0.0.1:{serving.grpc_port}", options=options) as channel:
        yield channel


def of_call(method: Any, request: Any) -> Outcome:
    """Return the outcome of a unary call."""
    try:
        method(request, timeout=TIMEOUT_S)
    except grpc.RpcError as error:
        # A bare status of gRPC would be "internal" here.
        refused = from_rpc_error(error)
        return str(refused.kind), refused.detail
    return "ok", ""


def image_json(image: bytes) -> Json:
    return {"base64": base64.b64encode(image).decode()}


def parts(image: bytes, request: Json, file: str = "image") -> Json:
    """Return the multipart body of an image, or another file, and its request."""
    return {
        "files": {file: ("file", image, "application/octet-stream")},
        "data": {"request": json.dumps(request)},
    }


def segment_json(serving: Serving, image: bytes, prompt: Json) -> Outcome:
    body = {"image": image_json(image), "prompts": [prompt]}
    return of_http(serving.client.post("/v1/segment", json=body))


def segment_multipart(serving: Serving, image: bytes, prompt: Json) -> Outcome:
    return of_http(serving.client.post("/v1/segment", **parts(image, {"prompts": [prompt]})))


def segment_grpc(serving: Serving, image: bytes, prompt: Json) -> Outcome:
    with channel(serving) as opened:
        request = messages.segment_request(image, {"prompts": [prompt]})
        return of_call(SegmentationStub(opened).Segment, request)


def images_json(serving: Serving, image: bytes, prompt: Json) -> Outcome:
    return of_http(serving.client.post("/v1/images", json={"image": image_json(image)}))


def images_multipart(serving: Serving, image: bytes, prompt: Json) -> Outcome:
    return of_http(serving.client.post("/v1/images", **parts(image, {})))


def images_grpc(serving: Serving, image: bytes, prompt: Json) -> Outcome:
    with channel(serving) as opened:
        request = segmentation_pb2.EncodeImageRequest(image=segmentation_pb2.Image(data=image))
        return of_call(SegmentationStub(opened).EncodeImage, request)


def new_session(serving: Serving) -> str:
    return str(serving.client.post("/v1/sessions", json={}).raise_for_status().json()["session"])


def frame_json(serving: Serving, image: bytes, prompt: Json) -> Outcome:
    body = {"frame": 0, "image": image_json(image), "prompts": [prompt]}
    return of_http(serving.client.post(f"/v1/sessions/{new_session(serving)}/frames", json=body))


def frame_multipart(serving: Serving, image: bytes, prompt: Json) -> Outcome:
    body = parts(image, {"frame": 0, "prompts": [prompt]})
    return of_http(serving.client.post(f"/v1/sessions/{new_session(serving)}/frames", **body))


def frame_grpc(serving: Serving, image: bytes, prompt: Json) -> Outcome:
    frame = messages.frame({"frame": 0, "prompts": [prompt]}, image)
    with channel(serving) as opened:
        request = tracking_pb2.AddFrameRequest(session=new_session(serving), frame=frame)
        return of_call(TrackingStub(opened).AddFrame, request)


def stream_grpc(serving: Serving, image: bytes, prompt: Json) -> Outcome:
    frame = messages.frame({"frame": 0, "prompts": [prompt]}, image)
    asked = [
        tracking_pb2.TrackRequest(open=tracking_pb2.OpenSessionRequest()),
        tracking_pb2.TrackRequest(frame=frame),
    ]
    with channel(serving) as opened:
        _, answer = TrackingStub(opened).Track(iter(asked), timeout=TIMEOUT_S)
    if answer.HasField("error"):
        return answer.error.kind, answer.error.detail
    return "ok", ""


def stream_websocket(serving: Serving, image: bytes, prompt: Json) -> Outcome:
    address = f"{serving.url.replace('http', 'ws')}/v1/sessions/{new_session(serving)}/stream"
    with connect(address, max_size=None) as socket:
        socket.send(json.dumps({"frame": 0, "prompts": [prompt]}))
        socket.send(image)
        answer: Json = json.loads(socket.recv(timeout=TIMEOUT_S))
    return of_problem(answer) if "type" in answer else ("ok", "")


def video_http(serving: Serving, video: bytes, prompt: Json) -> Outcome:
    """Return the outcome of a video: that of the response, or of its last line."""
    answer = serving.client.post("/v1/videos/track", **parts(video, {"prompts": [prompt]}, "video"))
    if answer.status_code != 200:
        return of_http(answer)
    last: Json = json.loads(answer.text.splitlines()[-1])
    return of_problem(last) if "type" in last else ("ok", "")


def video_grpc(serving: Serving, video: bytes, prompt: Json) -> Outcome:
    """As `video_http`, over gRPC."""
    request = messages.video_request({"prompts": [prompt]}, video)
    with channel(serving) as opened:
        try:
            *_, last = TrackingStub(opened).TrackVideo(request, timeout=TIMEOUT_S)
        except grpc.RpcError as error:
            refused = from_rpc_error(error)
            return str(refused.kind), refused.detail
    return (last.error.kind, last.error.detail) if last.HasField("error") else ("ok", "")


PROMPTED: tuple[Send, ...] = (
    segment_json,
    segment_multipart,
    segment_grpc,
    frame_json,
    frame_multipart,
    frame_grpc,
    stream_grpc,
    stream_websocket,
)
IMAGES: tuple[Send, ...] = (*PROMPTED, images_json, images_multipart, images_grpc)
VIDEOS: tuple[Send, ...] = (video_http, video_grpc)


def is_plain(outcome: Outcome) -> bool:
    """Return whether the kind is known, no failure of ours, and the sentence reveals nothing internal."""
    kind, detail = outcome
    if kind == "ok":
        return True
    ours = (Kind.INTERNAL, Kind.UNAVAILABLE, Kind.DEADLINE_EXCEEDED)
    return kind in set(Kind) and kind not in ours and bool(detail) and not LEAKS.search(detail)
