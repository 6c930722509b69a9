"""Foreign names, ambiguous addresses and raised limits, at every entry point."""

import json
from typing import Any

import grpc
import pytest

from service.errors import Kind
from service.pb.efficientsam3.v1 import segmentation_pb2 as segmentation_pb
from service.pb.efficientsam3.v1 import tracking_pb2 as pb
from service.pb.efficientsam3.v1.tracking_pb2_grpc import TrackingStub
from service.rpc import from_rpc_error
from tests.gateway.conftest import House
from tests.gateway.fake_tracking import ENDLESS
from tests.gateway.keyed import BODY, REQUEST, SESSION, metadata, opened, refused, segment, stream
from tests.keys import KeysFile

BACKSLASH = chr(92)
ADDRESSES = [
    f"https://localhost:6666{BACKSLASH}@host/",
    f"http://127.0.0.1{BACKSLASH}@pictures.example/",
    f"http://pictures.example{BACKSLASH}@127.0.0.1/",
    "http://user@127.0.0.1/",
    "http://127.0.0.1#@pictures.example/",
    "http://127.0.0.1?@pictures.example/",
    "http://[::ffff:127.0.0.1]/",
    "http://2130706433/",
    "http://0/",
    "file:///etc/passwd",
    "gopher://127.0.0.1/",
    "//127.0.0.1/",
]
FRAMES = f"/v1/sessions/demo.feedfeedfeed-{32 * '0'}/frames"
# Every route, with the method that it takes.
ROUTES = [
    ("POST", "/v1/segment"),
    ("POST", "/v1/images"),
    ("DELETE", "/v1/images/a"),
    ("GET", "/v1/variants"),
    ("GET", "/v1/variants/demo"),
    ("POST", "/v1/sessions"),
    ("GET", f"/v1/sessions/{SESSION}"),
    ("DELETE", f"/v1/sessions/{SESSION}"),
    ("POST", f"/v1/sessions/{SESSION}/fork"),
    ("POST", f"/v1/sessions/{SESSION}/frames"),
    ("POST", "/v1/videos/track"),
    ("OPTIONS", "/v1/segment"),
    ("GET", "/"),
    ("GET", "/docs"),
    ("GET", "/openapi.json"),
    ("GET", "/nowhere"),
]


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_a_foreign_name_is_refused_on_every_route_without_keys(house: House, method: str, path: str) -> None:
    house.open(house.worker())
    port = house.gateway.http_port
    for host in (f"rebinding.example:{port}", "rebinding.example", f"127.0.0.1.rebinding.example:{port}"):
        headers = {"Host": host, "Origin": f"http://{host}", "Sec-Fetch-Site": "same-origin"}
        answer = house.http.request(method, path, headers=headers, content=b"{}")
        assert (answer.status_code, answer.json()["type"]) == (403, "/problems/forbidden"), path
        assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("address", ADDRESSES)
def test_an_ambiguous_address_is_refused_at_every_entry_point(house: House, address: str) -> None:
    house.open(house.worker(), allow_image_urls=True)
    image = {"url": address}
    with stream(house) as socket:
        socket.send(json.dumps({"frame": 0, "image": image}))
        told = [json.loads(socket.recv(timeout=60))]
    for path, body in (
        ("/v1/segment", {"image": image, "prompts": [{"text": "a"}]}),
        ("/v1/images", {"image": image}),
        (FRAMES, {"frame": 0, "image": image}),
    ):
        told.append(house.http.post(path, json=body).json())
    kinds = [each["type"].removeprefix("/problems/") for each in told]
    details = [each["detail"] for each in told]
    assert house.channel
    by_address = segmentation_pb.Image(url=address)
    frame = pb.Frame(frame=0, image=by_address)
    session = FRAMES.split("/")[3]
    for method, request in (
        (house.stub.Segment, segmentation_pb.SegmentRequest(image=by_address, prompts=REQUEST.prompts)),
        (house.stub.EncodeImage, segmentation_pb.EncodeImageRequest(image=by_address)),
        (TrackingStub(house.channel).AddFrame, pb.AddFrameRequest(session=session, frame=frame)),
    ):
        with pytest.raises(grpc.RpcError) as failure:
            method(request, timeout=60)
        error = from_rpc_error(failure.value)
        kinds.append(str(error.kind))
        details.append(error.detail)
    assert set(kinds[1:]) == {"invalid_argument"}, details
    # The stream's session is of another variant.
    assert kinds[0] in ("invalid_argument", "session_not_found")
    assert not any("passwd" in detail or "127.0.0.1" in detail for detail in details), details


@pytest.mark.parametrize(
    "value", ["600001", "1e9", "99999999999999999999", "-1", "nan", "inf", "0x10", "\u0663"]
)
def test_no_request_has_a_longer_deadline_than_is_allowed(house: House, value: str) -> None:
    house.open(house.worker())
    headers = {b"X-Deadline-Ms": value.encode()}
    for path in ("/v1/segment", "/v1/images", "/v1/sessions", FRAMES, "/v1/videos/track"):
        answer = house.http.post(path, json=BODY, headers=headers)
        assert (answer.status_code, answer.json()["type"]) == (400, "/problems/invalid_argument"), path
        assert "600000" in answer.json()["detail"].replace(",", "")


def test_no_metadata_raises_a_limit_or_speaks_for_another(house: House, keys: KeysFile) -> None:
    keys.write(alice={"requests_per_s": 0.01, "burst": 2, "variants": ["demo"]}, bob={})
    worker = opened(house, keys)
    forged = (
        ("x-owner", "bob"),
        ("x-session", "demo.feed-1"),
        ("x-sessions", "1000000"),
        ("x-announce", "1"),
        ("x-begun", "1"),
        ("requests_per_s", "1000000"),
        ("x-deadline-ms", "99999999"),
    )
    headers = {name.replace("_", "-"): value for name, value in forged if name != "x-deadline-ms"}
    assert house.stub.Segment(REQUEST, metadata=(*metadata("alice"), *forged)).variant == "demo"
    answer = house.http.post(
        "/v1/segment", json=BODY, headers={**headers, "Authorization": metadata("alice")[0][1]}
    )
    assert answer.status_code == 200 and worker.owners == ["alice", "alice"]
    assert refused(house, (*metadata("alice"), *forged)).kind is Kind.QUOTA_EXCEEDED
    assert segment(house, "bob").status_code == 200


def test_videos_take_no_place_of_a_click(house: House) -> None:
    worker = house.worker()
    house.run(worker.start())
    house.open(worker, max_videos=3, max_waiting=1)
    house.wait_ready()
    assert house.channel
    unread: list[Any] = [
        TrackingStub(house.channel).TrackVideo(pb.TrackVideoRequest(video=ENDLESS)) for _ in range(3)
    ]
    for video in unread:
        next(video)
    for _ in range(5):
        assert house.http.post("/v1/segment", json=BODY).status_code == 200
    for video in unread:
        video.cancel()
