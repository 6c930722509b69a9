"""A client that speaks HTTP and WebSocket byte by byte, as no library would."""

import base64
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.gateway.conftest import House
from tests.gateway.keyed import SESSION

# Seconds after which a test has failed.
HANG_S = 60.0


@contextmanager
def connected(house: House, sent: bytes = b"", **options: int) -> Iterator[socket.socket]:
    """A connection to the gateway that has sent `sent`. `receive_buffer`: bytes that the kernel keeps."""
    with socket.socket() as connection:
        if "receive_buffer" in options:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, options["receive_buffer"])
        connection.settimeout(HANG_S)
        connection.connect(("127.0.0.1", house.gateway.http_port))
        connection.sendall(sent)
        yield connection


def head(method: str = "POST", path: str = "/v1/segment", **headers: Any) -> bytes:
    """The head of a request. `Content_Length=3` stands for `Content-Length: 3`."""
    named = {"Host": "localhost", **{name.replace("_", "-"): value for name, value in headers.items()}}
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in named.items()), "", ""]
    return "\r\n".join(lines).encode()


def answer_of(connection: socket.socket) -> bytes:
    """Everything until the gateway closes the connection."""
    got = bytearray()
    try:
        while piece := connection.recv(65536):
            got += piece
    except ConnectionResetError:
        pass
    return bytes(got)


def first_answer(connection: socket.socket) -> bytes:
    """One answer that has a Content-Length."""
    got = b""
    while b"\r\n\r\n" not in got:
        piece = connection.recv(65536)
        assert piece, got
        got += piece
    start, _, body = got.partition(b"\r\n\r\n")
    length = int(start.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
    while len(body) < length:
        body += connection.recv(65536)
    return start + b"\r\n\r\n" + body


@contextmanager
def websocket(house: House, **headers: str) -> Iterator[socket.socket]:
    """A stream of a session that there is not, opened."""
    opening = head(
        "GET",
        f"/v1/sessions/{SESSION}/stream",
        Connection="Upgrade",
        Upgrade="websocket",
        Sec_WebSocket_Version="13",
        Sec_WebSocket_Key=base64.b64encode(os.urandom(16)).decode(),
        **headers,
    )
    with connected(house, opening) as connection:
        got = b""
        while b"\r\n\r\n" not in got:
            got += connection.recv(1)
        assert b" 101 " in got, got
        connection.sendall(b"")
        yield connection


def frame(payload: bytes, opcode: int = 1, final: bool = True) -> bytes:
    """A frame of fewer than 126 bytes, masked with zeros."""
    return bytes([opcode | (0x80 if final else 0), 0x80 | len(payload)]) + bytes(4) + payload


def frames_of(data: bytes) -> list[tuple[int, bytes]]:
    """The opcodes and payloads of the frames that a server sent."""
    found = []
    while len(data) >= 2:
        opcode, length, start = data[0] & 0x0F, data[1], 2
        if length == 126:
            length, start = int.from_bytes(data[2:4], "big"), 4
        elif length == 127:
            length, start = int.from_bytes(data[2:10], "big"), 10
        if len(data) < start + length:
            break
        found.append((opcode, data[start : start + length]))
        data = data[start + length :]
    return found


def closed_with(connection: socket.socket) -> tuple[list[bytes], int, str]:
    """The messages until the gateway closed the WebSocket, and the code and reason of its close."""
    frames = frames_of(answer_of(connection))
    assert frames and frames[-1][0] == 8, frames[-3:]
    last = frames[-1][1]
    texts = [payload for opcode, payload in frames if opcode == 1]
    return texts, int.from_bytes(last[:2], "big"), last[2:].decode()
