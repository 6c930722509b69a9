"""Bodies that cost more than they should, at every route that takes a body and in WebSocket messages."""

import gzip
import json
from contextlib import suppress
from dataclasses import dataclass

import pytest

from tests.gateway.conftest import House
from tests.gateway.keyed import SESSION, stream
from tests.gateway.raw import answer_of, connected, head
from tests.peak_memory import peak

MIB = 1024 * 1024
JSON, MULTIPART = "application/json", "multipart/form-data; boundary=b0"


@dataclass(frozen=True)
class Route:
    """A route, how its body is sent, and the name of its file."""

    path: str
    kind: str
    file: str = "image"

    def __str__(self) -> str:
        return f"{self.path} {self.kind.partition(';')[0]}"

    def body(self, text: bytes) -> bytes:
        """Return a body with this JSON."""
        if self.kind == JSON:
            return text
        return part(self.file, b"a", "a") + part("request", text) + b"--b0--\r\n"


FRAMES = f"/v1/sessions/{SESSION}/frames"
ROUTES = [
    Route("/v1/segment", JSON),
    Route("/v1/segment", MULTIPART),
    Route("/v1/images", JSON),
    Route("/v1/images", MULTIPART),
    Route("/v1/sessions", JSON),
    Route(FRAMES, JSON),
    Route(FRAMES, MULTIPART),
    Route("/v1/videos/track", MULTIPART, "video"),
]
every_route = pytest.mark.parametrize("route", ROUTES, ids=str)
multipart_route = pytest.mark.parametrize(
    "route", [each for each in ROUTES if each.kind == MULTIPART], ids=str
)


def part(name: str, content: bytes, filename: str = "") -> bytes:
    shown = f'; filename="{filename}"' if filename else ""
    start = f'--b0\r\nContent-Disposition: form-data; name="{name}"{shown}\r\n\r\n'
    return start.encode() + content + b"\r\n"


def post(house: House, route: Route, content: bytes, **headers: str) -> tuple[int, str]:
    """Return the status and the detail of a response."""
    answer = house.http.post(route.path, content=content, headers={"Content-Type": route.kind, **headers})
    return answer.status_code, answer.json()["detail"]


@every_route
@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "gzip, identity"])
def test_a_compressed_body_is_refused_and_never_unpacked(house: House, route: Route, encoding: str) -> None:
    house.open(house.worker())
    bomb = gzip.compress(bytes(100 * MIB))
    before = peak(reset=True)
    status, detail = post(house, route, bomb, **{"Content-Encoding": encoding})
    assert status == 400 and detail.endswith("send the body uncompressed.")
    # What comes behind another coding is not unpacked either.
    headers = [("Content-Type", route.kind), ("Content-Encoding", "identity"), ("Content-Encoding", "gzip")]
    assert house.http.post(route.path, content=bomb, headers=headers).status_code == 400
    assert peak() - before < 30 * MIB


@every_route
def test_a_body_of_one_byte_chunks_is_refused(house: House, route: Route) -> None:
    house.open(house.worker())
    with connected(house, head(path=route.path, Content_Type=route.kind, Transfer_Encoding="chunked")) as one:
        with suppress(OSError):
            one.sendall(b"1\r\n-\r\n" * 300_000)
        assert answer_of(one).startswith(b"HTTP/1.1 400")
    assert house.http.get("/healthz").status_code == 200


@every_route
def test_many_unknown_fields_cost_little_memory(house: House, route: Route) -> None:
    house.open(house.worker(), max_body_bytes=8_000_000)
    text = json.dumps({f"k{index}": 1 for index in range(99_000)}).encode()
    body = route.body(text)
    before = peak(reset=True)
    status, detail = post(house, route, body)
    assert status == 413 and "fields than the limit of 16,384" in detail
    assert peak() - before < 30 * MIB


def test_many_unknown_fields_of_a_websocket_message_cost_little_memory(house: House) -> None:
    house.open(house.worker(), max_body_bytes=8_000_000)
    text = json.dumps({f"k{index}": 1 for index in range(99_000)})
    with stream(house) as socket:
        before = peak(reset=True)
        socket.send(text)
        told = json.loads(socket.recv(timeout=60))
    assert told["type"] == "/problems/payload_too_large" and "fields than the limit" in told["detail"]
    assert peak() - before < 30 * MIB


@every_route
@pytest.mark.parametrize("text", [b"[" * 100_000, b'{"a":' * 16_000, b'{"image":' * 10_000 + b"1"])
def test_deep_json_is_refused(house: House, route: Route, text: bytes) -> None:
    house.open(house.worker())
    status, detail = post(house, route, route.body(text))
    assert status in (400, 413) and len(detail) < 500


@multipart_route
def test_parts_that_come_twice_are_refused(house: House, route: Route) -> None:
    house.open(house.worker())
    file, request = part(route.file, b"a", "a"), part("request", b"{}")
    for parts, detail in (
        ([file, file, request], f"'{route.file}' was sent 2 times"),
        ([file, request, request], "'request' was sent 2 times"),
        ([file, part(route.file, b"b"), request], f"'{route.file}' was sent 2 times"),
        ([file, request, part("extra", b"", "x")], "There is no part 'extra'"),
        ([part(route.file, b"a"), request], "must be a file"),
        ([part("x", b"")] * 2000, "more parts than the limit of 4"),
    ):
        status, told = post(house, route, b"".join(parts) + b"--b0--\r\n")
        assert status == 400 and detail in told, told
