"""A gRPC client that may break the rules: raw HTTP/2 on one connection, with unfinished requests."""

import select
import socket
import struct
import time
from types import TracebackType

import h2.config
import h2.connection
import h2.events

_PIECE = 16_384


class RawGrpc:
    """One connection. `status` has the gRPC status of each stream that the server ended; -1: reset."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), timeout=60)
        self.connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        self.connection.initiate_connection()
        self.status: dict[int, int] = {}
        self.message: dict[int, str] = {}
        self.closed = False
        self.flush()

    def __enter__(self) -> "RawGrpc":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()

    def begin(self, method: str, *metadata: tuple[str, str]) -> int:
        """Send the head of a call; return its stream."""
        stream = self.connection.get_next_available_stream_id()
        head = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", method),
            (":authority", "test"),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
        ]
        self.connection.send_headers(stream, [*head, *metadata])
        self.flush()
        return stream

    def send_unfinished(self, stream: int, size: int, seconds: float) -> int:
        """Send a message but its last byte as fast as the server lets it; return the number of bytes sent."""
        pending = b"\0" + struct.pack(">I", size)
        left, until = size - 1, time.monotonic() + seconds
        while left and stream not in self.status and not self.closed and time.monotonic() < until:
            window = min(self.connection.local_flow_control_window(stream), _PIECE)
            if window > len(pending):
                piece = pending or bytes(min(window, left))
                left -= 0 if pending else len(piece)
                pending = b""
                self.connection.send_data(stream, piece)
                self.flush()
            self.receive(0.0 if window else 0.05)
        return size - 1 - left

    def send(self, stream: int, message: bytes) -> None:
        """Send one small message and end the request."""
        self.connection.send_data(stream, b"\0" + struct.pack(">I", len(message)) + message, end_stream=True)
        self.flush()

    def send_raw(self, stream: int, data: bytes, seconds: float = 30) -> None:
        """Send these bytes as the body of a call and end it, unless the server ends the call first."""
        until = time.monotonic() + seconds
        while data and stream not in self.status and not self.closed:
            assert time.monotonic() < until, "the server takes no more of the body"
            window = min(self.connection.local_flow_control_window(stream), _PIECE)
            piece, data = data[:window], data[window:]
            if piece:
                self.connection.send_data(stream, piece, end_stream=not data)
                self.flush()
            self.receive(0.0 if window else 0.05)

    def reset(self, stream: int) -> None:
        self.connection.reset_stream(stream, error_code=8)

    def flush(self) -> None:
        try:
            self.socket.sendall(self.connection.data_to_send())
        except OSError:
            self.closed = True

    def receive(self, seconds: float) -> None:
        """Take in what the server sends within so long."""
        if self.closed or not select.select([self.socket], [], [], seconds)[0]:
            return
        try:
            data = self.socket.recv(65_536)
        except OSError:
            data = b""
        if not data:
            self.closed = True
            return
        for event in self.connection.receive_data(data):
            if isinstance(event, h2.events.TrailersReceived | h2.events.ResponseReceived):
                headers = dict(event.headers)
                if b"grpc-status" in headers:
                    self.status[event.stream_id] = int(headers[b"grpc-status"])
                    self.message[event.stream_id] = headers.get(b"grpc-message", b"").decode()
            elif isinstance(event, h2.events.StreamReset):
                self.status.setdefault(event.stream_id, -1)
            elif isinstance(event, h2.events.ConnectionTerminated):
                self.closed = True
        self.flush()

    def wait(self, stream: int, seconds: float = 60) -> int:
        """Return the status that the server ends the stream with."""
        until = time.monotonic() + seconds
        while stream not in self.status:
            assert not self.closed and time.monotonic() < until, "the server did not end the call"
            self.receive(0.05)
        return self.status[stream]
