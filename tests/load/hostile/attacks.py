"""Hostile clients, cheap for who runs them: bare sockets in one event loop, and gRPC for its floods.

They send to one service on loopback and nowhere else, for a bounded time.
"""

import asyncio
import itertools
import os
import socket
import struct
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.queues import Queue
from typing import Any

import grpc
import grpc.aio

from service.pb.efficientsam3.v1 import segmentation_pb2 as pb
from tests.fuzz import bombs, videos
from tests.fuzz.images import flat_png
from tests.pictures import encoded, street

# So that the operating system buffers next to nothing of what is not read.
_SMALL_BUFFER = 4096
_DRIP_S = 0.2
_PAUSE_S = 0.1
_SEGMENT = "/efficientsam3.v1.Segmentation/Segment"
_GRPC_DEADLINE_S = 30.0


@dataclass(slots=True)
class Siege:
    """Where the hostile clients send to, whose key they have, and what became of what they sent."""

    http_port: int
    grpc_port: int
    key: str
    until: float
    outcomes: Counter[str] = field(default_factory=Counter)

    @property
    def open(self) -> bool:
        return time.monotonic() < self.until

    def head(self, path: str, length: int | None, media_type: str = "application/json") -> bytes:
        """The head of a POST; `length` None: its body comes in chunks."""
        body = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
        lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", f"Authorization: Bearer {self.key}"]
        return "\r\n".join([*lines, f"Content-Type: {media_type}", body, "", ""]).encode()


Attack = Callable[[Siege, int], Awaitable[None]]


async def _connect(port: int, buffer: int = 0) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    line = socket.socket()
    line.setblocking(False)
    if buffer:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    await asyncio.get_running_loop().sock_connect(line, ("127.0.0.1", port))
    return await asyncio.open_connection(sock=line, limit=2**20)


async def _answer(reader: asyncio.StreamReader) -> str:
    """The status of one answer, whose body is read and dropped."""
    head = await reader.readuntil(b"\r\n\r\n")
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            await reader.readexactly(int(line.partition(b":")[2]))
    return head[9:12].decode()


async def _unread_video(siege: Siege, index: int) -> None:
    """Send a video whose answer has megabytes, and read nothing of it."""
    _, writer = await _connect(siege.http_port, _SMALL_BUFFER)
    body = _video()
    writer.write(siege.head("/v1/videos/track", len(body), bombs.MULTIPART[1]) + body)
    # asyncio itself would read ahead.
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    await writer.drain()
    while siege.open and not writer.transport.is_closing():  # noqa: ASYNC110
        await asyncio.sleep(_DRIP_S)
    siege.outcomes["unread"] += 1
    writer.transport.abort()


async def _dripping(siege: Siege, data: bytes, then: bytes) -> None:
    reader, writer = await _connect(siege.http_port)
    writer.write(data)
    for at in itertools.count():
        if not siege.open or writer.transport.is_closing() or reader.at_eof():
            break
        if then:
            writer.write(then[at % len(then) : at % len(then) + 1])
            await writer.drain()
        await asyncio.sleep(_DRIP_S)
    siege.outcomes["closed by the service" if siege.open else "open to the end"] += 1
    writer.transport.abort()


async def _slow_body(siege: Siege, index: int) -> None:
    """A body that comes byte by byte."""
    await _dripping(siege, siege.head("/v1/segment", 1_000_000), b" ")


async def _slow_head(siege: Siege, index: int) -> None:
    """A header that never ends; every other client sends nothing at all."""
    await _dripping(
        siege, b"GET / HTTP/1.1\r\nHost: x\r\nX: " if index % 2 else b"", b"a" if index % 2 else b""
    )


async def _tiny_chunks(siege: Siege, index: int) -> None:
    """A body of 300,000 chunks of one byte, as fast as it is taken."""
    reader, writer = await _connect(siege.http_port)
    writer.write(siege.head("/v1/segment", None) + b"1\r\n \r\n" * 300_000 + b"0\r\n\r\n")
    await writer.drain()
    siege.outcomes[await _answer(reader)] += 1
    writer.close()


async def _flood(siege: Siege, path: str, body: bytes, media_type: str) -> None:
    reader, writer = await _connect(siege.http_port)
    while siege.open:
        writer.write(siege.head(path, len(body), media_type) + body)
        siege.outcomes[await _answer(reader)] += 1
    writer.close()


async def _valid_flood(siege: Siege, index: int) -> None:
    """Clicks, each as soon as the last was answered."""
    await _flood(siege, "/v1/segment", bombs.with_image(encoded(street(96, 72), "PNG")), bombs.MULTIPART[1])


async def _malformed_flood(siege: Siege, index: int) -> None:
    """Malformed requests, each as soon as the last was answered."""
    await _flood(siege, "/v1/segment", b'{"prompts": [{"text": 1}]}', "application/json")


async def _stream_flood(siege: Siege, index: int) -> None:
    """A WebSocket that sends messages of 7 bytes as fast as they are taken; the answers are dropped."""
    reader, writer = await _connect(siege.http_port)
    path = f"/v1/sessions/demo.{index:032x}/stream"
    lines = [f"GET {path} HTTP/1.1", "Host: x", "Upgrade: websocket", "Connection: Upgrade"]
    lines += ["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version: 13"]
    writer.write("\r\n".join([*lines, f"Authorization: Bearer {siege.key}", "", ""]).encode())
    await reader.readuntil(b"\r\n\r\n")
    # Text, masked with zeros.
    messages = (b"\x81\x87\0\0\0\0" + b'{"a":1}') * 500
    drop = asyncio.create_task(_drop(reader))
    with suppress(ConnectionError):
        while siege.open and not drop.done():
            writer.write(messages)
            await writer.drain()
            siege.outcomes["500 messages"] += 1
    drop.cancel()
    writer.transport.abort()


async def _drop(reader: asyncio.StreamReader) -> None:
    while await reader.read(65536):
        pass


async def _call(siege: Siege, message: bytes) -> None:
    same: Callable[[bytes], bytes] = bytes
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", -1)]
    metadata = (("authorization", f"Bearer {siege.key}"),)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{siege.grpc_port}", options) as channel:
        method = channel.unary_unary(_SEGMENT, same, same)
        while siege.open:
            try:
                await method(message, metadata=metadata, timeout=_GRPC_DEADLINE_S)
                siege.outcomes["OK"] += 1
            except grpc.aio.AioRpcError as error:
                siege.outcomes[error.code().name] += 1


async def _grpc_flood(siege: Siege, index: int) -> None:
    """Calls over gRPC, every other client's malformed."""
    image = pb.Image(data=encoded(street(96, 72), "PNG"))
    click = pb.SegmentRequest(image=image, prompts=[pb.Prompt(points=[pb.Point(x=9, y=9)])])
    await _call(siege, click.SerializeToString() if index % 2 else b"\x0a\xff")


async def _bomb(siege: Siege, index: int) -> None:
    """Images of few bytes that cost much, and one message of many prompts."""
    body = _bombs()[index % len(_bombs())]
    if isinstance(body, bytes):
        await _flood(siege, "/v1/segment", body, bombs.MULTIPART[1])
    else:
        await _call(siege, body.SerializeToString())


async def _reset(siege: Siege, index: int) -> None:
    """By turns: HTTP/2 streams that are reset at once, requests nobody waits for, and connections."""
    kind = index % 3
    _, writer = await _connect(siege.grpc_port if kind == 0 else siege.http_port)
    # To linger for no time is to end with a reset.
    line: Any = writer.get_extra_info("socket")
    line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    if kind == 0:
        streams = iter(range(1, 2**31, 2))
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(4, 0, 0, b""))
        while siege.open and not writer.transport.is_closing():
            writer.write(b"".join(_opened_and_reset(next(streams), siege.key) for _ in range(100)))
            await writer.drain()
            siege.outcomes["100 streams"] += 1
            await asyncio.sleep(0.05)
    else:
        body = bombs.with_image(encoded(street(640, 480), "PNG")) if kind == 1 else b""
        writer.write(siege.head("/v1/segment", len(body), bombs.MULTIPART[1]) + body)
        await writer.drain()
        await asyncio.sleep(0.02)
        siege.outcomes["connections"] += 1
    writer.transport.abort()


def _opened_and_reset(stream: int, key: str) -> bytes:
    fields = {":path": _SEGMENT, ":authority": "x", "content-type": "application/grpc", "te": "trailers"}
    fields["authorization"] = f"Bearer {key}"
    # POST and http by their index, all else as literals that are not indexed.
    literals = (b"\0" + _sized(name) + _sized(value) for name, value in fields.items())
    block = b"\x83\x86" + b"".join(literals)
    return _frame(1, 4, stream, block) + _frame(3, 0, stream, (8).to_bytes(4, "big"))


def _sized(text: str) -> bytes:
    return bytes([len(text)]) + text.encode()


def _frame(kind: int, flags: int, stream: int, body: bytes) -> bytes:
    return len(body).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + body


_MADE: dict[str, Any] = {}


def _video() -> bytes:
    """A request whose answer has some 13 MB: 60 frames with logits."""
    if "video" not in _MADE:
        video = videos.clip("mp4", "libx264", 60)
        asked = b'{"options": {"return_logits": true}, "prompts": [{"box": [8, 8, 30, 30]}]}'
        parts = (("video", "clip", "", video), ("request", "", "application/json", asked))
        _MADE["video"] = bombs.multipart(*parts)
    return bytes(_MADE["video"])


def _bombs() -> list[Any]:
    if "bombs" not in _MADE:
        prompts = pb.SegmentRequest(image=pb.Image(data=b"x"), prompts=[pb.Prompt(text="a")] * 1_000_000)
        files = (flat_png(9990, 9990), bombs.many_strips(1_000_000), bombs.many_segments(9_900, 1_000))
        _MADE["bombs"] = [*map(bombs.with_image, files), prompts]
    return list(_MADE["bombs"])


ATTACKS: dict[str, Attack] = {
    "unread videos": _unread_video,
    "slow bodies": _slow_body,
    "slow headers": _slow_head,
    "one-byte chunks": _tiny_chunks,
    "valid flood": _valid_flood,
    "malformed flood": _malformed_flood,
    "WebSocket flood": _stream_flood,
    "gRPC flood": _grpc_flood,
    "bombs": _bomb,
    "resets": _reset,
}


async def _client(siege: Siege, attack: Attack, index: int) -> None:
    while siege.open:
        try:
            await asyncio.wait_for(attack(siege, index), max(0.1, siege.until - time.monotonic()))
        except TimeoutError:
            siege.outcomes["open at the end"] += 1
        except (OSError, EOFError, asyncio.LimitOverrunError):
            siege.outcomes["cut off"] += 1
            await asyncio.sleep(_PAUSE_S)


async def _all(siege: Siege, attack: Attack, clients: int) -> None:
    await asyncio.gather(*(_client(siege, attack, index) for index in range(clients)))


def run(kind: str, siege: Siege, clients: int, core: int, outcomes: "Queue[Counter[str]]") -> None:
    """Be so many hostile clients of one kind, on one core and after everything else there."""
    os.sched_setaffinity(0, {core})
    os.nice(19)
    asyncio.run(_all(siege, ATTACKS[kind], clients))
    outcomes.put(siege.outcomes)
