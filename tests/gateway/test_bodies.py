"""Bodies that cost more to read than they should: many fields, many parts, compression, parts of parts."""

import gzip
import json
from typing import Any

import pytest

from tests.gateway.conftest import House
from tests.gateway.fake_worker import FakeWorker

IMAGE = b"\xff\xd8\r\n--b\r\nnot a boundary\r\n--"
TRUCK = json.dumps({"prompts": [{"text": "truck"}]}).encode()


def part(name: str, content: bytes, filename: str = "", headers: str = "") -> bytes:
    shown = f'; filename="{filename}"' if filename else ""
    return (
        f'--b0\r\nContent-Disposition: form-data; name="{name}"{shown}\r\n{headers}\r\n'.encode()
        + content
        + b"\r\n"
    )


def post(house: House, *parts: bytes, end: bytes = b"--b0--\r\n", **headers: str) -> tuple[int, str]:
    """The status of a multipart request, and its detail."""
    kind = {"Content-Type": "multipart/form-data; boundary=b0", **headers}
    answer = house.http.post("/v1/segment", content=b"".join(parts) + end, headers=kind)
    return answer.status_code, answer.json().get("detail", "")


def worker_of(house: House) -> FakeWorker:
    return house._workers[0]


def test_a_file_arrives_as_it_was_sent(served: House) -> None:
    for content in (IMAGE, bytes(range(256)) * 300, b"\r\n", b"-" * 50_000, b"\r\n--b" * 10_000):
        assert post(served, part("image", content, "a"), part("request", TRUCK)) == (200, "")
        assert worker_of(served).asked[-1].image.data == content


def test_parts_in_any_order_and_with_headers_of_their_own(served: House) -> None:
    typed = "Content-Type: application/json; charset=utf-16\r\nX-Any: 1\r\n"
    assert post(served, part("request", TRUCK, "r", typed), part("image", IMAGE, "a")) == (200, "")


IMAGE_PART, REQUEST_PART = part("image", IMAGE, "a"), part("request", TRUCK)
NESTED = "Content-Type: multipart/mixed; boundary=b1\r\n"
REFUSED: dict[str, tuple[list[bytes], str]] = {
    "two files": ([IMAGE_PART, IMAGE_PART, REQUEST_PART], "'image' was sent 2 times"),
    "two requests": ([IMAGE_PART, REQUEST_PART, REQUEST_PART], "'request' was sent 2 times"),
    "a file and a field of one name": ([IMAGE_PART, part("image", b"x"), REQUEST_PART], "'image' was sent 2"),
    "thousands of parts": ([part("x", b"") * 1300], "more parts than the limit of 4"),
    "thousands of headers": (
        [part("image", b"", "a", "X-A: 1\r\n" * 3000), REQUEST_PART],
        "The multipart body cannot be read",
    ),
    "two names of a part": (
        [part("image", b"", "a", 'Content-Disposition: form-data; name="request"\r\n'), REQUEST_PART],
        "two headers Content-Disposition",
    ),
    "no name": ([b"--b0\r\nContent-Disposition: form-data\r\n\r\n\r\n"], 'field "name" must be provided'),
    "no headers": ([b"--b0\r\n\r\n\r\n"], 'field "name" must be provided'),
    "a request of parts": (
        [IMAGE_PART, part("request", b"--b1\r\n\r\n" + TRUCK + b"\r\n--b1--", headers=NESTED)],
        "Invalid JSON",
    ),
    "no boundary in it": ([b"nothing"], "it is not multipart/form-data"),
    "fields of a form": ([part("prompts", b"[]"), IMAGE_PART, REQUEST_PART], "There is no part 'prompts'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_image_with_a_request_is_refused(served: House, case: str) -> None:
    parts, detail = REFUSED[case]
    status, told = post(served, *parts)
    assert status == 400 and detail in told, told
    assert not worker_of(served).asked


def test_a_body_that_is_cut_short_is_refused(served: House) -> None:
    status, _ = post(served, IMAGE_PART, part("request", TRUCK), end=b"")
    assert status in (200, 400)
    status, told = post(served, IMAGE_PART, part("request", TRUCK)[:-20], end=b"")
    assert status == 400 and told


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "identity, gzip", "x"])
def test_a_compressed_body_is_refused(served: House, encoding: str) -> None:
    body = gzip.compress(json.dumps({"image": {"base64": "YQ=="}, "prompts": [{"text": "a"}]}).encode())
    headers = {"Content-Type": "application/json", "Content-Encoding": encoding}
    answer = served.http.post("/v1/segment", content=body, headers=headers)
    assert (answer.status_code, answer.json()["type"]) == (400, "/problems/invalid_argument")
    assert answer.json()["detail"].endswith("send the body uncompressed.")
    status, told = post(served, IMAGE_PART, REQUEST_PART, **{"Content-Encoding": encoding})
    assert status == 400 and told.endswith("send the body uncompressed.")


def test_an_encoding_that_is_none_is_taken(served: House) -> None:
    assert post(served, IMAGE_PART, REQUEST_PART, **{"Content-Encoding": "Identity"}) == (200, "")


FIELDS = {
    "many unknown fields": (
        '"prompts": [], ' + ", ".join(f'"f{each}": 0' for each in range(99_000)),
        413,
        "The JSON has more fields than the limit of 16,384.",
    ),
    "an object of many fields": (
        '"prompts": [], ' + ", ".join(f'"f{each}": 0' for each in range(300)),
        400,
        "An object of the JSON has more fields than the limit of 64.",
    ),
    "an object of many fields deep inside": (
        '"prompts": [{"mask": {"x": [[{' + ", ".join(f'"f{each}": 0' for each in range(300)) + "}]]}}]",
        400,
        "An object of the JSON has more fields than the limit of 64.",
    ),
    "one unknown field": ('"prompts": [], "f": 0', 400, "f: there is no such field"),
}


@pytest.mark.parametrize("case", FIELDS)
def test_not_every_unknown_field_is_told(house: House, case: str) -> None:
    text, status, detail = FIELDS[case]
    house.open(house.worker(), max_body_bytes=8_000_000)
    body = '{"image": {"base64": "YQ=="}, ' + text + "}"
    answer = house.http.post("/v1/segment", content=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["detail"]) == (status, detail)


def test_the_largest_polygons_are_taken(served: House) -> None:
    rings: list[dict[str, Any]] = [{"xy": [1, 1, 2, 1, 2, 2], "hole": False}] * 2000
    mask = {"format": "polygon", "size": [4, 6], "rings": rings}
    text = json.dumps({"prompts": [{"mask": mask}]}, separators=(",", ":")).encode()
    assert post(served, IMAGE_PART, part("request", text)) == (200, "")


@pytest.mark.parametrize("name", ["x_deadline_ms", "options"])
def test_no_request_raises_a_limit_of_the_server(served: House, name: str) -> None:
    if name == "options":
        more = json.dumps({"prompts": [{"text": "a"}], "options": {"max_segments": 201}}).encode()
        status, told = post(served, IMAGE_PART, part("request", more))
        assert status in (400, 413) and "200" in told
    else:
        status, told = post(served, IMAGE_PART, REQUEST_PART, **{"X-Deadline-Ms": "600001"})
        assert status == 400 and "600000" in told
