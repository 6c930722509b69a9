"""POST /v1/segment and Segmentation.Segment: two ways to ask one thing."""

import base64
import importlib
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from service.errors import Kind, ServiceError
from service.pb.efficientsam3.v1 import segmentation_pb2 as pb
from service.rpc import from_rpc_error
from tests.gateway.conftest import House
from tests.gateway.fake_worker import PNG, FakeWorker

IMAGE = b"\xff\xd8 not decoded here"
BASE64 = base64.b64encode(IMAGE).decode()
TRUCK: dict[str, Any] = {"prompts": [{"text": "truck"}]}


def _segment(house: House, request: dict[str, Any], **headers: str) -> Any:
    return house.http.post(
        "/v1/segment", json={**TRUCK, "image": {"base64": BASE64}, **request}, headers=headers
    )


def _worker(house: House) -> FakeWorker:
    return house._workers[0]


@pytest.mark.parametrize("mask_format", ["rle", "png", "polygon", "none"])
def test_json_multipart_and_grpc_give_the_same_answer(served: House, mask_format: str) -> None:
    request = {
        "variant": "demo",
        "prompts": [{"text": "truck"}, {"text": "Schuh ß 鞋"}],
        "options": {"mask_format": mask_format, "return_logits": True, "score_threshold": 0.25},
    }
    as_json = _segment(served, request).json()
    text = json.dumps(request)
    fields = served.http.post("/v1/segment", files={"image": ("a.jpg", IMAGE)}, data={"request": text}).json()
    parts = {"image": ("a.jpg", IMAGE), "request": ("r.json", text, "application/json")}
    files = served.http.post("/v1/segment", files=parts).json()
    over_grpc = served.stub.Segment(
        pb.SegmentRequest(
            variant="demo",
            image=pb.Image(data=IMAGE),
            prompts=[pb.Prompt(text="truck"), pb.Prompt(text="Schuh ß 鞋")],
            options=pb.SegmentOptions(
                mask_format=pb.MaskFormat.Value(f"MASK_FORMAT_{mask_format.upper()}"),
                return_logits=True,
                score_threshold=0.25,
            ),
        )
    )

    assert as_json == fields == files
    first, *others = _worker(served).asked
    assert [other.SerializeToString(deterministic=True) for other in others] == [
        first.SerializeToString(deterministic=True)
    ] * 3

    segment, theirs = as_json["results"][1]["segments"][0], over_grpc.results[1].segments[0]
    assert (segment["score"], segment["area"], segment["label"]) == (theirs.score, theirs.area, theirs.label)
    assert segment["box"] == [1.5, 2.0, 3.25, 4.0]
    assert as_json["image"] == {"id": over_grpc.image.id, "width": 6, "height": 4}
    assert as_json["timings_ms"] == dict(over_grpc.timings_ms)
    assert segment["logits"] == {"format": "logits", "size": [1, 1], "logits": "ADw="}
    assert (
        segment.get("mask")
        == {
            "rle": {"format": "rle", "size": [4, 6], "counts": "05l1"},
            "png": {"format": "png", "size": [4, 6], "png": base64.b64encode(PNG).decode()},
            "polygon": {
                "format": "polygon",
                "size": [4, 6],
                "rings": [{"xy": [0.0, 0.0, 2.0, 0.0, 2.0, 2.0], "hole": True}],
            },
            "none": None,
        }[mask_format]
    )


def test_every_field_of_the_json_reaches_the_worker(served: House) -> None:
    answer = _segment(
        served,
        {
            "prompts": [
                {
                    "text": "shoe",
                    "exemplars": [{"box": [1, 2, 3, 4], "positive": False}],
                    "score_threshold": 0,
                },
                {"exemplars": [{"point": {"x": 7, "y": 8.5}}]},
                {
                    "points": [{"x": 5, "y": 6}, {"x": 1, "y": 1, "positive": False}],
                    "box": [0, 0, 9.5, 9],
                    "mask": {"format": "rle", "size": [4, 6], "counts": "05l1"},
                },
                {"mask": {"format": "png", "size": [4, 6], "png": "AAEC"}},
                {"mask": {"format": "polygon", "size": [4, 6], "rings": [{"xy": [0, 0, 2, 0, 2, 2]}]}},
                {"mask": {"format": "logits", "size": [1, 2], "logits": "AAECAw=="}},
            ],
            "options": {"mask_format": "none", "max_segments": 3, "multimask": True, "score_threshold": 1},
        },
    )
    assert answer.status_code == 200, answer.text
    shoe, point, clicked, *masks = _worker(served).asked[0].prompts
    assert (shoe.text, shoe.HasField("score_threshold"), shoe.score_threshold) == ("shoe", True, 0)
    assert shoe.exemplars[0] == pb.Exemplar(box=pb.Box(x0=1, y0=2, x1=3, y1=4), positive=False)
    assert point.exemplars[0] == pb.Exemplar(point=pb.Point(x=7, y=8.5), positive=True)
    assert list(clicked.points) == [pb.Point(x=5, y=6, positive=True), pb.Point(x=1, y=1, positive=False)]
    assert clicked.box == pb.Box(x0=0, y0=0, x1=9.5, y1=9)
    assert clicked.mask == pb.Mask(height=4, width=6, rle="05l1")
    assert [mask.mask for mask in masks] == [
        pb.Mask(height=4, width=6, png=b"\x00\x01\x02"),
        pb.Mask(height=4, width=6, polygon=pb.Polygon(rings=[pb.Ring(xy=[0, 0, 2, 0, 2, 2])])),
        pb.Mask(height=1, width=2, logits=b"\x00\x01\x02\x03"),
    ]
    assert _worker(served).asked[0].options == pb.SegmentOptions(
        mask_format=pb.MASK_FORMAT_NONE, max_segments=3, multimask=True, score_threshold=1
    )


DEFECTS: dict[str, tuple[dict[str, Any], str]] = {
    "a misspelt field": ({"prompts": [{"txt": "truck"}]}, "prompts[0].txt: there is no such field"),
    "a misspelt option": ({"options": {"format": "png"}}, "options.format: there is no such field"),
    "no prompts": ({"prompts": []}, "prompts is empty"),
    "a text that is a number": ({"prompts": [{"text": 7}]}, "prompts[0].text: "),
    "a coordinate in a string": ({"prompts": [{"points": [{"x": "1", "y": 1}]}]}, "prompts[0].points[0].x: "),
    "a box of three": ({"prompts": [{"box": [1, 2, 3]}]}, "prompts[0].box[3]: "),
    "two kinds of image": ({"image": {"base64": BASE64, "id": "sha256:0"}}, "image: needs exactly one of"),
    "no kind of image": ({"image": {}}, "image: needs exactly one of"),
    "an empty image": ({"image": {"base64": ""}}, "image is empty"),
    "base64 without padding": ({"image": {"base64": "YQ"}}, "image.base64: is not valid base64"),
    "base64 with a line break": ({"image": {"base64": "YWJj\nYWJj"}}, "image.base64: is not valid base64"),
    "an unknown mask format": ({"options": {"mask_format": "bmp"}}, "options.mask_format: "),
    "a mask without its size": (
        {"prompts": [{"mask": {"format": "rle", "counts": "0"}}]},
        "prompts[0].mask.size: ",
    ),
    "a mixed prompt": ({"prompts": [{"text": "a", "box": [0, 0, 1, 1]}]}, "prompts[0] mixes a concept"),
    "a negative count": ({"options": {"max_segments": -1}}, "options.max_segments: "),
    "a count of 2**40": ({"options": {"max_segments": 2**40}}, "options.max_segments: "),
    "an exemplar that is nothing": ({"prompts": [{"exemplars": [{}]}]}, "prompts[0].exemplars[0]: needs"),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_defect_is_named_by_its_json_path(served: House, defect: str) -> None:
    request, sentence = DEFECTS[defect]
    answer = _segment(served, request)
    assert answer.status_code == 400, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["type"] == "/problems/invalid_argument"
    assert answer.json()["detail"].startswith(sentence), answer.json()["detail"]
    assert not _worker(served).asked


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_are_none_are_refused(served: House, number: str) -> None:
    body = f'{{"image": {{"base64": "YQ=="}}, "prompts": [{{"points": [{{"x": {number}, "y": 1}}]}}]}}'
    answer = served.http.post("/v1/segment", content=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["type"]) == (400, "/problems/invalid_argument")
    assert "prompts[0].points[0].x" in answer.json()["detail"]


@pytest.mark.parametrize("body", ["", "{", "[]", "null", '{"prompts": "\\ud800"}', "\x00", "[" * 5000])
def test_malformed_json_is_refused(served: House, body: str) -> None:
    answer = served.http.post("/v1/segment", content=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["type"]) == (400, "/problems/invalid_argument")


@pytest.mark.parametrize("charset", ["utf-7", "unicode_escape", "undefined", "latin-1"])
def test_json_in_multipart_is_utf_8_whatever_charset_is_named(served: House, charset: str) -> None:
    for text, status in ((b"+2AA-", 400), (b"\\ud800", 400), ('{"prompts":[{"text":"é"}]}'.encode(), 200)):
        body = (
            b'--b\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\nx\r\n'
            b'--b\r\nContent-Disposition: form-data; name="request"\r\n\r\n' + text + b"\r\n--b--\r\n"
        )
        kind = f"multipart/form-data; boundary=b; charset={charset}"
        answer = served.http.post("/v1/segment", content=body, headers={"Content-Type": kind})
        assert answer.status_code == status, answer.text
    assert _worker(served).asked[-1].prompts[0].text == "é"


def test_malformed_multipart_is_refused(served: House) -> None:
    def post(detail: str, **content: Any) -> None:
        answer = served.http.post("/v1/segment", **content)
        assert (answer.status_code, answer.json()["type"]) == (400, "/problems/invalid_argument"), answer.text
        assert detail in answer.json()["detail"]

    image, request = ("a.jpg", IMAGE), json.dumps(TRUCK)
    post("'request' is missing", files={"image": image})
    post("'image' is missing", files={"request": (None, request)})
    post("no part 'picture'", files={"image": image, "picture": image}, data={"request": request})
    post("'image' was sent 2 times", files=[("image", image), ("image", image)], data={"request": request})
    post(
        "image: there is no such field", files={"image": image}, data={"request": '{"prompts":[],"image":{}}'}
    )
    post("Invalid JSON", files={"image": image}, data={"request": "{"})
    post("boundary", content=b"--x", headers={"Content-Type": "multipart/form-data"})
    post("Content-Type must be", content=b"x", headers={"Content-Type": "image/jpeg"})
    post("Content-Type must be", content=b"x")


def test_an_image_that_is_no_file_is_refused(served: House) -> None:
    parts = {"image": (None, IMAGE), "request": (None, json.dumps(TRUCK))}
    answer = served.http.post("/v1/segment", files=parts)
    assert (answer.status_code, answer.json()["type"]) == (400, "/problems/invalid_argument")
    assert answer.json()["detail"] == "The part 'image' must be a file: give it a filename."
    assert not _worker(served).asked


def test_a_body_over_the_limit_is_refused_announced_or_not(served: House) -> None:
    def chunks() -> Any:
        for _ in range(20):
            yield bytes(10_000)

    for content_type in ("application/json", "multipart/form-data; boundary=x"):
        headers = {"Content-Type": content_type}
        start = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
        announced = served.http.post("/v1/segment", content=start + bytes(150_000), headers=headers)
        streamed = served.http.post("/v1/segment", content=_after(start, chunks()), headers=headers)
        for answer in (announced, streamed):
            assert (answer.status_code, answer.json()["type"]) == (413, "/problems/payload_too_large")
            assert "100,000" in answer.json()["detail"]
    assert _segment(served, {}).status_code == 200


HEAD = '{"image": {"base64": "YQ=="}, '
HUGE: dict[str, tuple[str, str]] = {
    "empty prompts": ('"prompts": [' + "{}," * 300_000 + "{}]}", "more values than the limit of 100,000"),
    "unknown fields": (
        '"prompts": [], ' + ", ".join(f'"f{each}": 0' for each in range(200_000)) + "}",
        "more values than the limit of 100,000",
    ),
    "many prompts": (
        '"prompts": [' + "{}," * 5000 + "{}]}",
        "prompts has more entries than the limit of 4,096",
    ),
    "many points": (
        '"prompts": [{"points": [' + '{"x": 1, "y": 2},' * 5000 + '{"x": 1, "y": 2}]}]}',
        "prompts[0].points has more entries than the limit of 4,096",
    ),
    "many rings": (
        '"prompts": [{"mask": {"format": "polygon", "size": [1, 1], "rings": ['
        + '{"xy": []},' * 5000
        + '{"xy": []}]}}]}',
        "prompts[0].mask.rings has more entries than the limit of 4,096",
    ),
    "more prompts than allowed": (
        '"prompts": [' + '{"text": "a"},' * 40 + '{"text": "a"}]}',
        "prompts has 41 entries; the limit is 32",
    ),
}


@pytest.mark.parametrize("case", HUGE)
def test_json_that_grows_in_memory_is_refused(house: House, case: str) -> None:
    rest, detail = HUGE[case]
    worker = house.worker()
    house.open(worker, max_body_bytes=8_000_000)
    headers = {"Content-Type": "application/json"}
    whole = house.http.post("/v1/segment", content=HEAD + rest, headers=headers)
    parts = house.http.post("/v1/segment", files={"image": ("a", b"a")}, data={"request": "{" + rest})
    for answer in (whole, parts):
        assert (answer.status_code, answer.json()["type"]) == (413, "/problems/payload_too_large")
        assert detail in answer.json()["detail"]


def test_the_request_part_holds_no_image(house: House) -> None:
    house.open(house.worker(), max_body_bytes=8_000_000)
    request = json.dumps({**TRUCK, "variant": "x" * 5_000_000})
    answer = house.http.post("/v1/segment", files={"image": ("a", b"a")}, data={"request": request})
    assert (answer.status_code, answer.json()["type"]) == (413, "/problems/payload_too_large")
    assert "The part 'request' has more bytes than the limit of 4,194,304" in answer.json()["detail"]


def test_only_the_first_wrong_entry_of_a_list_is_told(served: House) -> None:
    answer = _segment(served, {"prompts": [{"txt": "a"}, {"txt": "a"}]})
    assert answer.json()["detail"] == "prompts[0].txt: there is no such field"


@pytest.mark.parametrize("step", ["body.segment_request", "app.segment_answer"])
def test_json_is_read_and_written_beside_the_event_loop(
    served: House, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    module, name = step.split(".")
    real = getattr(importlib.import_module(f"service.gateway.{module}"), name)
    begun, go_on = threading.Event(), threading.Event()

    def held(*arguments: Any) -> Any:
        begun.set()
        assert go_on.wait(30)
        return real(*arguments)

    monkeypatch.setattr(f"service.gateway.{module}.{name}", held)
    files = {"image": ("a.jpg", IMAGE)}
    with ThreadPoolExecutor() as threads:
        try:
            asked = threads.submit(
                served.http.post, "/v1/segment", files=files, data={"request": json.dumps(TRUCK)}
            )
            assert begun.wait(30)
            assert served.http.get("/healthz", timeout=10).status_code == 200
        finally:
            go_on.set()
        assert asked.result(60).status_code == 200


def _after(start: bytes, chunks: Any) -> Any:
    yield start
    yield from chunks


def test_a_message_over_the_limit_is_refused_over_grpc(served: House) -> None:
    # In between is refused by us, beyond it by gRPC itself: the same kind.
    for size in (150_000, 2_000_000):
        with pytest.raises(grpc.RpcError) as failure:
            served.stub.Segment(
                pb.SegmentRequest(image=pb.Image(data=bytes(size)), prompts=[pb.Prompt(text="a")])
            )
        error = from_rpc_error(failure.value)
        assert error.kind is Kind.PAYLOAD_TOO_LARGE
        assert str(size)[:2] in error.detail


def test_bad_requests_are_refused_over_grpc(served: House) -> None:
    def refused(request: pb.SegmentRequest) -> ServiceError:
        with pytest.raises(grpc.RpcError) as failure:
            served.stub.Segment(request)
        return from_rpc_error(failure.value)

    image, prompt = pb.Image(data=IMAGE), pb.Prompt(text="a")
    nan = pb.Prompt(points=[pb.Point(x=float("nan"), y=0)])
    assert refused(pb.SegmentRequest(image=image)).kind is Kind.INVALID_ARGUMENT
    assert refused(pb.SegmentRequest(prompts=[prompt])).kind is Kind.INVALID_ARGUMENT
    assert refused(pb.SegmentRequest(image=image, prompts=[nan])).kind is Kind.INVALID_ARGUMENT
    unknown = refused(pb.SegmentRequest(image=image, prompts=[prompt], variant="es-ev-xl"))
    assert unknown.kind is Kind.VARIANT_NOT_FOUND
    assert "'es-ev-xl'" in unknown.detail and "demo" in unknown.detail
    assert not _worker(served).asked


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (Kind.UNSUPPORTED_PROMPT, 400),
        (Kind.UNSUPPORTED_IMAGE, 415),
        (Kind.PAYLOAD_TOO_LARGE, 413),
        (Kind.OVERLOADED, 429),
        (Kind.INTERNAL, 500),
        (Kind.UNAVAILABLE, 503),
    ],
)
def test_a_workers_error_is_told_as_it_is(served: House, kind: Kind, status: int) -> None:
    _worker(served).failure = ServiceError(kind, "what the worker said", retry_after_s=2.5)
    answer = _segment(served, {})
    assert answer.status_code == status
    assert answer.json() == {
        "type": f"/problems/{kind}",
        "title": ServiceError(kind, "").row.title,
        "status": status,
        "detail": "what the worker said",
        "instance": answer.headers["x-request-id"],
    }
    assert answer.headers.get("retry-after") == ("3" if status in (429, 503) else None)


def test_an_unknown_variant_names_the_known(served: House) -> None:
    answer = _segment(served, {"variant": "es-ev-xl"})
    assert (answer.status_code, answer.json()["type"]) == (404, "/problems/variant_not_found")
    assert "'es-ev-xl'" in answer.json()["detail"] and "demo" in answer.json()["detail"]


def test_the_deadline_must_be_a_number_within_bounds(served: House) -> None:
    for deadline in ("0", "-5", "soon", "1.5", "600001", "9" * 30, "٣", ""):
        headers = {b"X-Deadline-Ms": deadline.encode()}
        body = {**TRUCK, "image": {"base64": BASE64}}
        answer = served.http.post("/v1/segment", json=body, headers=headers)
        assert (answer.status_code, answer.json()["type"]) == (400, "/problems/invalid_argument"), deadline
        assert "X-Deadline-Ms" in answer.json()["detail"] and "600000" in answer.json()["detail"]


def test_the_request_id_is_taken_or_made_and_goes_all_the_way(served: House) -> None:
    taken = _segment(served, {}, **{"X-Request-Id": "trace-1"})
    assert taken.headers["x-request-id"] == "trace-1"
    made = [
        _segment(served, {}, **{"X-Request-Id": bad}).headers["x-request-id"]
        for bad in ("", "a b", "x" * 200)
    ]
    assert len(set(made)) == 3 and all(len(each) == 32 for each in made)
    _, call = served.stub.Segment.with_call(
        pb.SegmentRequest(image=pb.Image(data=IMAGE), prompts=[pb.Prompt(text="a")]),
        metadata=(("x-request-id", "trace-2"),),
    )
    assert ("x-request-id", "trace-2") in call.trailing_metadata()
    assert _worker(served).request_ids == ["trace-1", *made, "trace-2"]


def test_a_client_that_leaves_cancels_the_workers_call(served: House) -> None:
    worker = _worker(served)
    served.tell(worker.gate.clear)
    over_grpc = served.stub.Segment.future(
        pb.SegmentRequest(image=pb.Image(data=IMAGE), prompts=[pb.Prompt(text="a")])
    )
    assert worker.arrived.wait(30)
    over_grpc.cancel()
    assert worker.cancelled.wait(30)

    worker.arrived.clear()
    worker.cancelled.clear()
    _post_and_leave(served, worker)
    assert worker.cancelled.wait(30)
    served.tell(worker.gate.set)
    assert _segment(served, {}).status_code == 200


def _post_and_leave(house: House, worker: FakeWorker) -> None:
    import socket

    body = json.dumps({**TRUCK, "image": {"base64": BASE64}}).encode()
    lines = ("POST /v1/segment HTTP/1.1", "Host: localhost", "Content-Type: application/json")
    head = "\r\n".join((*lines, f"Content-Length: {len(body)}", "", ""))
    with socket.create_connection(("127.0.0.1", house.gateway.http_port)) as connection:
        connection.sendall(head.encode() + body)
        assert worker.arrived.wait(30)
