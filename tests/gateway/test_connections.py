"""Connections that send nothing, too slowly or too much, and those that read nothing."""

import json
import socket
import time
from contextlib import ExitStack, suppress

import pytest

from tests.gateway.conftest import House
from tests.gateway.raw import HANG_S, answer_of, connected, first_answer, head
from tests.keys import KeysFile

HEALTHZ = head("GET", "/healthz")
OPENAPI = head("GET", "/openapi.json")


@pytest.mark.parametrize("sent", [b"", b"GET /healthz HT", head("GET", "/healthz")[:-2] + b"X-A: 1\r\n"])
def test_a_connection_without_a_whole_head_is_closed(house: House, sent: bytes) -> None:
    house.open(header_timeout_s=0.2)
    with connected(house, sent) as connection:
        assert answer_of(connection) == b""


def test_a_head_that_trickles_is_closed_although_bytes_keep_coming(house: House) -> None:
    house.open(header_timeout_s=0.5)
    with connected(house, HEALTHZ[:-2]) as connection, pytest.raises(OSError):
        until = time.monotonic() + HANG_S
        while time.monotonic() < until:
            connection.sendall(b"X-A: 1\r\n")
            time.sleep(0.05)


def test_the_head_of_a_later_request_has_a_timeout_too(house: House) -> None:
    house.open(header_timeout_s=0.5, idle_timeout_s=HANG_S)
    with connected(house, HEALTHZ) as connection:
        assert b" 200 " in first_answer(connection)
        connection.sendall(b"GET /he")
        assert answer_of(connection) == b""


def test_a_connection_is_kept_between_requests_for_as_long_as_is_set(house: House) -> None:
    house.open(idle_timeout_s=0.3)
    with connected(house) as connection:
        for _ in range(3):
            connection.sendall(HEALTHZ)
            assert b" 200 " in first_answer(connection)
        assert answer_of(connection) == b""


def test_a_connection_too_many_replaces_the_one_that_has_waited_longest(house: House) -> None:
    house.open(max_connections=20, header_timeout_s=HANG_S, idle_timeout_s=HANG_S)
    with ExitStack() as stack:
        waiting = [stack.enter_context(connected(house)) for _ in range(20)]
        asking = stack.enter_context(connected(house, HEALTHZ))
        assert b" 200 " in first_answer(asking)
        # The first has made room, and no other.
        assert answer_of(waiting[0]) == b""
        for connection in waiting[1:]:
            connection.sendall(HEALTHZ)
            assert b" 200 " in first_answer(connection)


def test_one_address_has_no_more_connections_than_it_may(house: House) -> None:
    house.open(max_connections_per_address=3, header_timeout_s=HANG_S)
    with ExitStack() as stack:
        first, *_ = [stack.enter_context(connected(house, HEALTHZ)) for _ in range(3)]
        assert b" 200 " in first_answer(first)
        with connected(house) as refused:
            assert answer_of(refused) == b""
        first.close()
        for _ in range(600):
            with connected(house, HEALTHZ) as again:
                if answer_starts(again):
                    return
            time.sleep(0.05)
    raise AssertionError("the place of a closed connection was not given back")


def answer_starts(connection: socket.socket) -> bool:
    try:
        return connection.recv(15).startswith(b"HTTP/1.1 200")
    except ConnectionResetError:
        return False


def problem_of(answer: bytes) -> dict[str, object]:
    """The problem of a refusal that closes its connection."""
    start, _, body = answer.partition(b"\r\n\r\n")
    assert b"\r\nconnection: close" in start.lower(), start
    told: dict[str, object] = json.loads(body)
    return told


def test_a_body_that_stops_is_refused(served_with_bounds: House) -> None:
    sent = head(Content_Type="application/json", Content_Length=1000) + b'{"image":'
    with connected(served_with_bounds, sent) as connection:
        told = problem_of(answer_of(connection))
    assert told["type"] == "/problems/deadline_exceeded"
    assert told["detail"] == "No further byte of the body arrived within the limit of 0.5 s."


def test_a_body_that_trickles_is_refused(served_with_bounds: House) -> None:
    sent = head(Content_Type="application/json", Content_Length=100_000)
    with connected(served_with_bounds, sent) as connection:
        connection.setblocking(False)
        until = time.monotonic() + HANG_S
        while time.monotonic() < until:
            time.sleep(0.1)
            try:
                connection.send(b" ")
                got = connection.recv(4096, socket.MSG_PEEK)
            except BlockingIOError:
                continue
            break
        connection.settimeout(HANG_S)
        assert got
        told = problem_of(answer_of(connection))
    assert told["detail"] == "The body arrives slower than the limit of 1,000 bytes per second."


@pytest.fixture
def served_with_bounds(house: House) -> House:
    house.open(house.worker(), body_timeout_s=0.5, min_transfer_bytes_per_s=1000)
    return house


def test_unfinished_bodies_have_a_bound_together(house: House) -> None:
    house.open(house.worker(), max_receiving_bytes=300_000)
    asked = head(Content_Type="application/json", Content_Length=200_000)
    with connected(house, asked + bytes(150_000)) as unfinished:
        # The second finds no room once the first has arrived.
        until = time.monotonic() + HANG_S
        while True:
            answer = house.http.post(
                "/v1/segment", content=bytes(190_000), headers={"Content-Type": "application/json"}
            )
            if answer.status_code == 429:
                break
            assert time.monotonic() < until
        assert answer.json()["type"] == "/problems/overloaded" and "retry-after" in answer.headers
        assert "max_receiving_bytes" in answer.json()["detail"]
        unfinished.sendall(bytes(50_000))
        assert b" 400 " in first_answer(unfinished)
    answer = house.http.post(
        "/v1/segment", content=bytes(190_000), headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 400


@pytest.mark.parametrize("kind", ["application/json", "multipart/form-data; boundary=b"])
def test_a_body_in_tiny_pieces_is_refused(house: House, kind: str) -> None:
    house.open(house.worker())
    with connected(house, head(Content_Type=kind, Transfer_Encoding="chunked")) as connection:
        with suppress(OSError):
            connection.sendall(b"1\r\n-\r\n" * 300_000)
        assert b" 400 " in answer_of(connection)[:20]
    # As many bytes in large pieces are fine, and so are a few small ones.
    pieces = (bytes(100_000) if index % 2 else b"a" for index in range(20))
    answer = house.http.post("/v1/segment", content=pieces, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["type"]) == (400, "/problems/invalid_argument")


def test_a_stranger_with_a_large_body_is_answered_and_not_read(house: House, keys: KeysFile) -> None:
    house.open(house.worker(), keys_file=keys.path)
    asked = head(Content_Type="application/json", Content_Length=30_000_000)
    with connected(house, asked) as connection:
        told = problem_of(answer_of(connection))
    assert told["type"] == "/problems/unauthenticated"


def test_a_stranger_is_not_asked_to_go_on(house: House, keys: KeysFile) -> None:
    house.open(house.worker(), keys_file=keys.path)
    asked = head(Content_Type="application/json", Content_Length=1000, Expect="100-continue")
    with connected(house, asked) as connection:
        answer = answer_of(connection)
    assert answer.startswith(b"HTTP/1.1 401") and b"100 Continue" not in answer


def test_a_flood_of_headers_is_refused(house: House) -> None:
    house.open()
    flood = b"".join(b"X-%d: 1\r\n" % index for index in range(5000))
    with connected(house) as connection:
        connection.sendall(head("GET", "/healthz")[:-2] + flood)
        assert b" 400 " in answer_of(connection)[:20]
    assert house.http.get("/healthz").status_code == 200


def test_a_client_that_reads_nothing_loses_its_connection(house: House) -> None:
    house.open(write_timeout_s=0.5)
    size = len(house.http.get("/openapi.json").content)
    with connected(house, receive_buffer=4096) as connection:
        _ask_without_reading(connection, size)
        _wait_until_closed(house, connection)


def test_unread_answers_have_a_bound_together(house: House) -> None:
    house.open(max_unsent_bytes=300_000, write_timeout_s=HANG_S, min_transfer_bytes_per_s=0)
    size = len(house.http.get("/openapi.json").content)
    with ExitStack() as stack:
        unread = [stack.enter_context(connected(house, receive_buffer=4096)) for _ in range(8)]
        for connection in unread:
            _ask_without_reading(connection, size)
        # Each may leave more than 64 KiB unsent, the bound of one: the first are gone, the last is not.
        _wait_until_closed(house, unread[0])
        assert len(house.gateway._http.server_state.connections) < 8 + 1


def _ask_without_reading(connection: socket.socket, size: int) -> None:
    """Ask for more than the kernel's buffers hold."""
    connection.settimeout(0.5)
    try:
        for _ in range(40_000_000 // size):
            connection.sendall(OPENAPI)
    except OSError:
        pass
    connection.settimeout(HANG_S)


def _wait_until_closed(house: House, connection: socket.socket) -> None:
    name = connection.getsockname()
    until = time.monotonic() + HANG_S
    while any(each.client == name for each in house.gateway._http.server_state.connections):  # type: ignore[union-attr]
        assert time.monotonic() < until, "a connection that nobody reads is still open"
        time.sleep(0.05)
