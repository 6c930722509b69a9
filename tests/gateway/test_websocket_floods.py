"""WebSockets that send too many, too small or malformed messages."""

import json
import logging
import re
import time
from contextlib import suppress
from typing import Any

import pytest
from websockets.sync.client import connect

from tests.gateway.conftest import House
from tests.gateway.keyed import SESSION, frame, opened, stream
from tests.gateway.raw import HANG_S, answer_of, closed_with, connected, head, websocket
from tests.gateway.raw import frame as encoded
from tests.keys import KeysFile, authorization

MALFORMED = encoded(b"{")
WELL_FORMED = encoded(b'{"frame":0,"known_image":true}')


def kinds(texts: list[bytes]) -> list[str]:
    return [json.loads(text)["type"].removeprefix("/problems/") for text in texts]


def requests_counted(house: House) -> int:
    """Requests of every kind that the gateway has answered."""
    found = re.findall(r"^efficientsam3_requests_total{.*} (\S+)$", house.http.get("/metrics").text, re.M)
    return int(sum(map(float, found)))


def test_malformed_messages_in_a_row_end_the_stream(house: House, caplog: pytest.LogCaptureFixture) -> None:
    house.open(house.worker())
    with caplog.at_level(logging.INFO, "service.request"), websocket(house) as socket:
        socket.sendall(MALFORMED * 10_000)
        texts, code, reason = closed_with(socket)
    assert kinds(texts) == ["invalid_argument"] * 8
    assert (code, reason) == (1008, "8 malformed messages came in a row.")
    assert len(caplog.records) == 8 and requests_counted(house) == 8


def test_messages_that_are_well_formed_in_between_do_not_end_it(house: House) -> None:
    house.open(house.worker())
    with websocket(house) as socket:
        socket.sendall((MALFORMED * 7 + WELL_FORMED) * 3 + MALFORMED * 8)
        texts, code, _ = closed_with(socket)
    assert kinds(texts) == (["invalid_argument"] * 7 + ["session_not_found"]) * 3 + ["invalid_argument"] * 8
    assert code == 1008


def test_a_malformed_message_counts_as_a_request(house: House, keys: KeysFile) -> None:
    keys.write(alice={"requests_per_s": 0.01, "burst": 3})
    opened(house, keys)
    with stream(house, **authorization("alice")) as socket:
        told = []
        for _ in range(5):
            socket.send("{")
            told.append(json.loads(socket.recv(timeout=HANG_S))["type"])
        told.append(frame(socket)["type"])
    assert told == ["/problems/invalid_argument"] * 3 + ["/problems/quota_exceeded"] * 3


def test_a_flood_of_messages_lets_others_in_between(house: House) -> None:
    house.open(house.worker())
    with websocket(house) as socket:
        # One read of the socket brings thousands of these.
        socket.sendall(WELL_FORMED * 7000)
        assert house.http.get("/healthz").status_code == 200
        assert requests_counted(house) < 7000


def test_a_stranger_is_dropped_after_its_first_malformed_message(house: House, keys: KeysFile) -> None:
    opened(house, keys)
    with websocket(house) as socket:
        socket.sendall(MALFORMED * 1000)
        texts, code, reason = closed_with(socket)
    assert kinds(texts) == ["invalid_argument"]
    assert (code, reason) == (1008, "The first message is malformed, and no key came.")
    with websocket(house) as socket:
        socket.sendall(WELL_FORMED * 1000)
        texts, code, _ = closed_with(socket)
    assert (kinds(texts), code) == (["unauthenticated"], 1008)


def test_no_deadline_lets_a_stranger_stay(house: House, keys: KeysFile) -> None:
    opened(house, keys, header_timeout_s=0.2)
    with websocket(house, X_Deadline_Ms="600000") as socket:
        texts, code, reason = closed_with(socket)
    assert (texts, code, reason) == ([], 1008, "No key came in time.")
    with stream(house, **authorization("alice")) as known:
        # Whoever has a key may be silent for longer.
        assert house.http.get("/healthz").status_code == 200
        with websocket(house) as socket:
            closed_with(socket)
        assert frame(known)["type"] == "/problems/session_not_found"


@pytest.mark.parametrize(
    ("flood", "reason"),
    [
        (encoded(b"", opcode=9) * 40_000, "At most 100 pings and pongs per second are allowed."),
        (encoded(b"", opcode=10) * 40_000, "At most 100 pings and pongs per second are allowed."),
        (
            encoded(b"a", final=False) + encoded(b"a", opcode=0, final=False) * 40_000,
            "A message may have at most 4,096 fragments.",
        ),
        (
            encoded(b"", final=False) + encoded(b"", opcode=0, final=False) * 40_000,
            "A message may have at most 4,096 fragments.",
        ),
    ],
    ids=["pings", "pongs", "fragments", "empty fragments"],
)
def test_a_flood_of_small_frames_ends_the_stream(house: House, flood: bytes, reason: str) -> None:
    house.open(house.worker())
    with websocket(house) as socket:
        with suppress(OSError):
            socket.sendall(flood)
        texts, code, told = closed_with(socket)
    assert (texts, code, told) == ([], 1008, reason)
    with stream(house) as another:
        assert frame(another)["type"] == "/problems/session_not_found"


def test_messages_are_not_compressed(house: House) -> None:
    house.open(house.worker())
    address = f"{house.gateway.url.replace('http', 'ws')}/v1/sessions/{SESSION}/stream"
    with connect(address, compression="deflate") as socket:
        assert not socket.protocol.extensions
        assert frame(socket)["type"] == "/problems/session_not_found"


def test_answers_that_are_not_read_end_the_stream(house: House) -> None:
    house.open(house.worker(), write_timeout_s=0.5)
    with websocket(house) as socket:
        socket.settimeout(0.5)
        try:
            # Its answers fill the kernel's buffers; then nothing more is read of it.
            while True:
                socket.sendall(WELL_FORMED * 1000)
        except OSError:
            pass
        until = time.monotonic() + HANG_S
        while 'efficientsam3_open_streams{transport="http"} 0.0' not in house.http.get("/metrics").text:
            assert time.monotonic() < until, "a stream that nobody reads is still open"
            time.sleep(0.05)


def test_messages_in_one_piece_and_byte_by_byte_are_the_same(house: House) -> None:
    house.open(house.worker())
    large: dict[str, Any] = {"frame": 0, "image": {"base64": "YWJj" * 30_000}}
    with stream(house) as socket:
        socket.send(json.dumps(large))
        assert json.loads(socket.recv(timeout=HANG_S))["type"] == "/problems/session_not_found"
        socket.send([json.dumps({"frame": 0}), " ", " "])
        socket.send([b"a"] * 1000)
        assert json.loads(socket.recv(timeout=HANG_S))["type"] == "/problems/session_not_found"
    with websocket(house) as raw:
        for byte in WELL_FORMED * 3 + MALFORMED * 8:
            raw.sendall(bytes([byte]))
        texts, code, _ = closed_with(raw)
    assert kinds(texts) == ["session_not_found"] * 3 + ["invalid_argument"] * 8 and code == 1008


def test_a_handshake_that_is_none_is_refused(house: House) -> None:
    house.open(house.worker())
    request = head("GET", "/v1/sessions/a/stream", Connection="Upgrade", Upgrade="websocket")
    with connected(house, request) as socket:
        assert answer_of(socket).startswith(b"HTTP/1.1 4")
