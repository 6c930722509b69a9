"""Taking an artefact from a hostile web server: one clear line, within bounds, and an unchanged store."""

import gzip
import hashlib
import json
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from model_store import artifact
from model_store.artifact import MANIFEST, PACKAGED, StoreError
from model_store.ready import Bounds, take
from tests.model_store.hostile_server import HostileServer, Trick, answer

FILES = {file.name: file.read_bytes() for file in (PACKAGED / "demo").iterdir()}
DIGEST = hashlib.sha256(FILES[MANIFEST]).hexdigest()
GRAPH = "concept_masks.onnx"
BOMB = gzip.compress(bytes(20 << 20))
# The whole transfer is over in a moment; what stands still is found out soon.
BOUNDS = Bounds(total_s=60.0, idle_s=2.0, least_rate=1000.0)


def _nothing(stage: str, fraction: float) -> None:
    pass


def _takes(server: HostileServer, store: Path, digest: str = DIGEST, bounds: Bounds = BOUNDS) -> str:
    """The message that nothing was taken, in one line; the store has nothing of it."""
    with pytest.raises(StoreError) as failure:
        take("demo", server.address, digest, store, _nothing, bounds)
    assert list(store.iterdir()) == []
    message = str(failure.value)
    assert len(message.splitlines()) == 1 and message.isprintable() and len(message) < 500, message
    return message


# Tricks of the transfer.


def endless(server: HostileServer, connection: socket.socket, file: str) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        connection.sendall(bytes(65536))


def endless_chunks(server: HostileServer, connection: socket.socket, file: str) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    while True:
        connection.sendall(b"10000\r\n" + bytes(65536) + b"\r\n")


def endless_headers(server: HostileServer, connection: socket.socket, file: str) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    while True:
        connection.sendall(b"x-filler: " + 1000 * b"x" + b"\r\n")


def endless_interim(server: HostileServer, connection: socket.socket, file: str) -> None:
    while server.pause(0.01):
        connection.sendall(b"HTTP/1.1 103 Early Hints\r\n\r\n")


def silent(server: HostileServer, connection: socket.socket, file: str) -> None:
    server.pause(60)


def stuck(server: HostileServer, connection: socket.socket, file: str) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 23940\r\n\r\n{")
    server.pause(60)


def slow_body(server: HostileServer, connection: socket.socket, file: str) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 23940\r\n\r\n")
    while server.pause(0.1):
        connection.sendall(b" ")


def slow_headers(server: HostileServer, connection: socket.socket, file: str) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    while server.pause(0.1):
        connection.sendall(b"x")


def cut_short(server: HostileServer, connection: socket.socket, file: str) -> None:
    answer(connection, FILES[file][:-100], content_length=str(len(FILES[file])))


def cut_chunks(server: HostileServer, connection: socket.socket, file: str) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n100\r\nabc")


def wrong_chunks(server: HostileServer, connection: socket.socket, file: str) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n")


def no_http(server: HostileServer, connection: socket.socket, file: str) -> None:
    connection.sendall(b"SSH-2.0-OpenSSH_9.6\r\n" + bytes(range(256)))


def hangs_up(server: HostileServer, connection: socket.socket, file: str) -> None:
    pass


def huge_length(server: HostileServer, connection: socket.socket, file: str) -> None:
    answer(connection, FILES[file], content_length=str(2**62))


def negative_length(server: HostileServer, connection: socket.socket, file: str) -> None:
    answer(connection, FILES[file], content_length="-1")


def two_lengths(server: HostileServer, connection: socket.socket, file: str) -> None:
    length = len(FILES[file])
    connection.sendall(
        f"HTTP/1.1 200 OK\r\ncontent-length: {length}\r\ncontent-length: 5\r\n\r\n".encode() + FILES[file]
    )


def longer(server: HostileServer, connection: socket.socket, file: str) -> None:
    answer(connection, FILES[file] + bytes(1 << 20), content_length="")


def zipped(server: HostileServer, connection: socket.socket, file: str) -> None:
    answer(connection, BOMB, content_encoding="gzip")


def zipped_rightly(server: HostileServer, connection: socket.socket, file: str) -> None:
    answer(connection, gzip.compress(FILES[file]), content_encoding="gzip")


def encoded_twice(server: HostileServer, connection: socket.socket, file: str) -> None:
    answer(connection, FILES[file], content_encoding="identity, deflate")


def unknown_encoding(server: HostileServer, connection: socket.socket, file: str) -> None:
    answer(connection, FILES[file], content_encoding="x" * 5000)


def other_bytes(server: HostileServer, connection: socket.socket, file: str) -> None:
    answer(connection, bytes(reversed(FILES[file])))


def part(server: HostileServer, connection: socket.socket, file: str) -> None:
    answer(connection, FILES[file], "206 Partial Content", content_range="bytes 0-9/10")


def nothing(server: HostileServer, connection: socket.socket, file: str) -> None:
    answer(connection, b"", "204 No Content")


def redirects(target: str, status: str = "302 Found") -> Trick:
    def trick(server: HostileServer, connection: socket.socket, file: str) -> None:
        answer(connection, b"", status, location=target.format(port=server.port, file=file))

    return trick


def redirect_nowhere(server: HostileServer, connection: socket.socket, file: str) -> None:
    answer(connection, b"", "301 Moved Permanently")


TRANSFERS: list[tuple[Trick, str]] = [
    (endless, "the most that it may have"),
    (endless_chunks, "the most that it may have"),
    (endless_headers, "cannot be had"),
    (endless_interim, "cannot be had|takes longer"),
    (silent, "fewer than 1000 bytes per second"),
    (stuck, "fewer than 1000 bytes per second"),
    (slow_body, "fewer than 1000 bytes per second"),
    (slow_headers, "fewer than 1000 bytes per second|takes longer"),
    (cut_short, "cannot be had"),
    (cut_chunks, "cannot be had"),
    (wrong_chunks, "cannot be had"),
    (no_http, "cannot be had"),
    (hangs_up, "cannot be had"),
    (huge_length, "the most that it may have"),
    (negative_length, "cannot be had"),
    (two_lengths, "cannot be had"),
    (longer, "the most that it may have|not the file that was announced"),
    (zipped, "came encoded as 'gzip'"),
    (zipped_rightly, "came encoded as 'gzip'"),
    (encoded_twice, "came encoded as 'identity, deflate'"),
    (unknown_encoding, "came encoded as 'x"),
    (other_bytes, "not the file that was announced"),
    (part, "HTTP status 206"),
    (nothing, "HTTP status 204"),
    (redirects("ftp://127.0.0.1/{file}"), "redirected to an address that is not followed"),
    (redirects("file:///etc/passwd"), "redirected to an address that is not followed"),
    (redirects("http://127.0.0.1:1/{file}"), "redirected to an address that is not followed"),
    (redirects("http://localhost:{port}/demo/{file}"), "redirected to an address that is not followed"),
    (redirects("//127.0.0.2:{port}/{file}"), "redirected to an address that is not followed"),
    (redirects("http://user:word@127.0.0.1:{port}/{file}"), "redirected to an address that is not followed"),
    (redirects("http://[::1/"), "cannot be had"),
    (redirects("http:///{file}"), "cannot be had"),
    (redirects("http://127.0.0.1:{port}/demo/{file}"), "redirected more than 5 times"),
    (redirects("{file}", "308 Permanent Redirect"), "redirected more than 5 times"),
    (redirects("\u0000http://x"), "cannot be had"),
    (redirect_nowhere, "redirected more than 5 times|cannot be had"),
]
# They take their time.
WAITING = {endless_interim, silent, stuck, slow_body, slow_headers}


@pytest.mark.parametrize(
    ("trick", "says", "on"),
    [
        pytest.param(trick, says, on, id=f"{index}-{trick.__name__}-{on}")
        for index, (trick, says) in enumerate(TRANSFERS)
        for on in ((GRAPH,) if trick in WAITING else (MANIFEST, GRAPH))
    ],
)
def test_a_hostile_transfer_is_given_up_in_one_line(tmp_path: Path, trick: Trick, says: str, on: str) -> None:
    bounds = BOUNDS
    if trick in (endless_interim, slow_headers):
        bounds = replace(BOUNDS, total_s=5.0)
    with HostileServer(FILES, trick, on) as server:
        message = _takes(server, tmp_path / "store", bounds=bounds)
    matches = [each for each in says.split("|") if each in message]
    assert matches, message
    assert "user:word" not in message


def test_a_redirect_on_the_same_host_is_followed(tmp_path: Path) -> None:
    def trick(server: HostileServer, connection: socket.socket, file: str) -> None:
        if server.asked[-1].startswith("/moved/"):
            answer(connection, FILES[file])
        else:
            answer(connection, b"", "307 Temporary Redirect", location=f"/moved/{file}")

    with HostileServer(FILES, trick) as server:
        place = take("demo", server.address, DIGEST, tmp_path, _nothing, BOUNDS)
        assert artifact.load(place).digest == DIGEST
        assert all(b"accept-encoding: identity\r\n" in request.lower() for request in server.requests)


def test_the_whole_transfer_has_an_end(tmp_path: Path) -> None:
    def trick(server: HostileServer, connection: socket.socket, file: str) -> None:
        body = FILES[file]
        connection.sendall(f"HTTP/1.1 200 OK\r\ncontent-length: {len(body)}\r\n\r\n".encode())
        for start in range(0, len(body), 2000):
            connection.sendall(body[start : start + 2000])
            server.pause(0.2)

    with HostileServer(FILES, trick) as server:
        assert "takes longer than 2 s" in _takes(
            server, tmp_path / "store", bounds=replace(BOUNDS, total_s=2.0)
        )


# Manifests whose digest the operator was given, and that are hostile all the same.


def _with(change: Callable[[dict[str, Any]], object]) -> bytes:
    manifest = json.loads(FILES[MANIFEST])
    change(manifest)
    return json.dumps(manifest).encode()


def _graph(**fields: Any) -> bytes:
    return _with(lambda manifest: manifest["graphs"]["concept_masks"].update(fields))


def _named(name: str) -> bytes:
    return _with(lambda manifest: manifest["files"].update({name: 64 * "0"}))


MANIFESTS: list[tuple[str, bytes, str]] = [
    ("nested lists", b'{"schema": 3, "x": ' + 100_000 * b"[", "deep"),
    ("nested objects", 100_000 * b'{"a":' + b"1" + 100_000 * b"}", "deep"),
    ("nested a little", b'{"schema": 3, "x": ' + 40 * b"[" + 40 * b"]" + b"}", "deep"),
    ("nan", _with(lambda m: m.update(score_threshold=float("nan"))), "NaN is not a number"),
    ("infinity", _with(lambda m: m.update(score_threshold=float("-inf"))), "-Infinity is not a number"),
    (
        "a large float",
        FILES[MANIFEST].replace(b'"score_threshold": 0', b'"score_threshold": 1e999, "x": 0'),
        "64 bits",
    ),
    ("a large integer", _with(lambda m: m.update(image_size=10**400)), "larger than 9007199254740992"),
    ("many digits", b'{"schema": ' + 10_000 * b"9" + b"}", "cannot be read"),
    ("a twice named field", b'{"schema": 3, ' + FILES[MANIFEST].lstrip()[1:], "more than once"),
    ("no text", b'{"schema": "\xff"}', "cannot be read"),
    ("half a character", _with(lambda m: m.update(licence="\ud800")), "cannot be shown"),
    ("a terminal's code", _with(lambda m: m.update(licence="\x1b]0;owned\x07")), "cannot be shown"),
    ("an empty file", b"", "cannot be read"),
    ("a list", b"[]", "is of schema None"),
    ("a long schema", b'{"schema": "' + 100_000 * b"x" + b'"}', "is of schema"),
    ("a wrong type", _with(lambda m: m.update(graphs=[])), "graphs"),
    ("graphs of null", _with(lambda m: m.update(graphs={"x": None})), "graphs.x is not an object"),
    (
        "a huge image",
        _with(lambda m: m.update(image_size=10**9)),
        "image_size is 1000000000; it is 1 to 8192",
    ),
    ("a negative mask", _with(lambda m: m.update(mask_size=-1)), "mask_size is -1"),
    ("a huge token", _with(lambda m: m["tokens"].update(start=2**40)), "tokens.start"),
    ("a negative size", _graph(bytes=-5), "bytes is -5"),
    ("a huge size", _graph(bytes=2**52), "are the most that is taken"),
    ("a small size", _graph(bytes=10), "the most that it may have"),
    ("no digest", _graph(sha256=""), "64 hexadecimal digits"),
    ("another digest", _graph(sha256=64 * "0"), "not the file that was announced"),
    ("no onnx", _graph(file="concept_masks.xml"), "concept_masks.xml as a graph's"),
    (
        "many files",
        _with(lambda m: m["files"].update({f"f{i}": 64 * "0" for i in range(100)})),
        "has 64 at most",
    ),
    *(
        (f"the name {name!a}", _named(name), "no plain file name")
        for name in (
            *(
                "",
                ".",
                "..",
                "...",
                "a/b",
                "/etc/passwd",
                "../x",
                "a\\b",
                "..\\x",
                "C:\\x",
                "C:x",
                "x:stream",
            ),
            *("CON", "nul.txt", "com1", "LPT9.onnx", "x.", "x ", " x", ".hidden", "-rf", "~x", "x\n", "x\ty"),
            *("manifest.json", "Manifest.json", "ä.onnx", "%2e%2e%2fx", "a?b", "a#b", "a*", "x" * 200),
        )
    ),
    ("a name twice", _named("Tokenizer.json"), "names Tokenizer.json twice|names tokenizer.json twice"),
]


@pytest.mark.parametrize(("manifest", "says"), [pytest.param(*each[1:], id=each[0]) for each in MANIFESTS])
def test_a_hostile_manifest_is_refused_in_one_line(tmp_path: Path, manifest: bytes, says: str) -> None:
    outside = set(tmp_path.parent.rglob("*"))
    with HostileServer({**FILES, MANIFEST: manifest}) as server:
        message = _takes(server, tmp_path / "store", hashlib.sha256(manifest).hexdigest())
    assert any(each in message for each in says.split("|")), message
    assert set(tmp_path.parent.rglob("*")) - outside == {tmp_path / "store"}
