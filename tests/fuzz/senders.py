"""Send a case over HTTP, gRPC, a WebSocket or a bare connection, and return what came back."""

import http.client
import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.sync.client import connect

from service.rpc import DOMAIN
from tests.fuzz.case import Case

STREAMED = ("/Track", "/ServerReflectionInfo")
ANSWERED_BY_MANY = ("/TrackVideo", "/Watch", *STREAMED)
_MAX_MESSAGES = 4096
# Ends a WebSocket's case: its refusal names the key, and where an image is due it closes the connection.
_LAST_KEY = "last_of_the_case"
_LAST = f'{{"{_LAST_KEY}": 1}}'


class HangError(Exception):
    """No answer came in time."""


@dataclass(slots=True)
class Problem:
    """One error that was answered: its kind, HTTP status or gRPC code, and sentence."""

    kind: str
    status: int | str
    detail: str
    # False: it lacks what an error of ours has.
    whole: bool = True


@dataclass(slots=True)
class Outcome:
    """What came back for one case."""

    # An HTTP status, a gRPC code's name, or "closed".
    status: int | str
    body: bytes = b""
    media_type: str = ""
    problems: list[Problem] = field(default_factory=list)
    # Answers that were no errors.
    answers: int = 0
    request_id: str = ""

    @property
    def good(self) -> bool:
        """Whether the whole case was answered without an error."""
        return self.status in (200, 201, 204, 101, "OK") and self.answers > 0 and not self.problems


class Sender:
    """One client's connections to one running service. Not thread-safe."""

    def __init__(self, http_port: int, grpc_port: int, key: str, hang_s: float) -> None:
        self.key = key
        self._ports = http_port, grpc_port
        self.hang_s = hang_s
        self._socket: socket.socket | None = None
        options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        self._channel = grpc.insecure_channel(f"127.0.0.1:{grpc_port}", options=options)

    def close(self) -> None:
        """Close every connection."""
        self._drop()
        self._channel.close()

    def http(self, case: Case) -> Outcome:
        """The target is "METHOD path"; Authorization is added unless the case has its own."""
        method, _, path = case.target.partition(" ")
        given = {name.lower() for name, _ in case.headers}
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in case.headers)]
        defaults = {"Host": f"127.0.0.1:{self._ports[0]}", "Authorization": f"Bearer {self.key}"}
        if "transfer-encoding" not in given:
            defaults["Content-Length"] = str(len(case.body))
        lines += [f"{name}: {value}" for name, value in defaults.items() if name.lower() not in given]
        head = "\r\n".join([*lines, "", ""]).encode("latin-1", "replace")
        # Where the case says itself how long its body is, the server may wait for more: there is none.
        ends = bool(given & {"content-length", "transfer-encoding", "expect", "upgrade"})
        return self._exchange(head + case.body, method, ends)

    def raw(self, case: Case) -> Outcome:
        """Bytes on a new connection to the port that the target names, "http" or "grpc"."""
        with socket.create_connection(("127.0.0.1", self._ports[case.target == "grpc"])) as line:
            line.settimeout(self.hang_s)
            try:
                with suppress(ConnectionError):
                    for message in case.messages:
                        line.sendall(message if isinstance(message, bytes) else message.encode())
                    line.shutdown(socket.SHUT_WR)
                body = b"".join(_received(line))
            except TimeoutError:
                raise HangError from None
        status = int(body[9:12]) if body[:5] == b"HTTP/" and body[9:12].isdigit() else "closed"
        return Outcome(status, body)

    def _exchange(self, data: bytes, method: str, ends: bool) -> Outcome:
        for fresh in (False, True):
            line = self._line(fresh)
            try:
                with suppress(ConnectionError):
                    # The server may answer and close before it has read everything.
                    line.sendall(data)
                if ends:
                    line.shutdown(socket.SHUT_WR)
                answer = http.client.HTTPResponse(line, method=method)
                answer.begin()
                body = answer.read()
            except TimeoutError:
                self._drop()
                raise HangError from None
            except (OSError, http.client.HTTPException) as error:
                self._drop()
                if fresh:
                    return Outcome("closed", type(error).__name__.encode())
                continue
            if answer.will_close or ends or answer.status >= 400:
                self._drop()
            return _http_outcome(answer, body)
        raise AssertionError("a fresh connection answers or closes")

    def grpc(self, case: Case) -> Outcome:
        """The target is a method's full name; the headers are metadata."""
        given = {name.lower() for name, _ in case.headers}
        metadata = [(name, value) for name, value in case.headers if name != "deadline"]
        if "authorization" not in given:
            metadata.append(("authorization", f"Bearer {self.key}"))
        messages = [message.encode() if isinstance(message, str) else message for message in case.messages]
        same: Callable[[bytes], bytes] = bytes
        try:
            call = self._call(case.target, same)
            sent = iter(messages) if case.target.endswith(STREAMED) else (messages or [b""])[0]
            timeout = float(dict(case.headers).get("deadline", self.hang_s))
            if not case.target.endswith(ANSWERED_BY_MANY):
                _, done = call.with_call(sent, timeout=timeout, metadata=metadata)
                return Outcome(done.code().name, answers=1)
            return _streamed(call(sent, timeout=timeout, metadata=metadata), case.target)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED and "deadline" not in given:
                raise HangError from None
            return _grpc_outcome(error)
        except (ValueError, TypeError) as error:  # metadata that no client can send
            return Outcome("unsent", str(error).encode())

    def _call(self, method: str, same: Callable[[bytes], bytes]) -> Any:
        if method.endswith(STREAMED):
            return self._channel.stream_stream(method, same, same)
        if method.endswith(ANSWERED_BY_MANY):
            return self._channel.unary_stream(method, same, same)
        return self._channel.unary_unary(method, same, same)

    def websocket(self, case: Case) -> Outcome:
        """The target is the path. The refusal of a last message tells that those before it were answered."""
        given = {name.lower() for name, _ in case.headers}
        headers = [*case.headers]
        if "authorization" not in given:
            headers.append(("Authorization", f"Bearer {self.key}"))
        url = f"ws://127.0.0.1:{self._ports[0]}{case.target}"
        try:
            with connect(
                url,
                additional_headers=headers,
                compression=None,
                open_timeout=self.hang_s,
                close_timeout=self.hang_s,
                ping_interval=None,
                max_size=None,
                max_queue=_MAX_MESSAGES,
                proxy=None,
            ) as stream:
                return self._stream(stream, case)
        except InvalidStatus as refused:
            answer = refused.response
            outcome = Outcome(
                answer.status_code, bytes(answer.body or b""), answer.headers.get("Content-Type", "")
            )
            _read_problem(outcome)
            return outcome
        except TimeoutError:
            raise HangError from None
        except (WebSocketException, ConnectionError, ValueError) as error:
            return Outcome("closed", type(error).__name__.encode())

    def _stream(self, stream: Any, case: Case) -> Outcome:
        outcome = Outcome(101)
        try:
            for message in (*case.messages, _LAST):
                stream.send(message)
        except ConnectionClosed:
            outcome.status = "closed"
        try:
            until = time.monotonic() + self.hang_s
            while _LAST_KEY not in (line := stream.recv(timeout=max(0.0, until - time.monotonic()))):
                _read_line(outcome, line)
        except ConnectionClosed:
            outcome.status = "closed"
        if stream.close_code == 1011:
            outcome.problems.append(Problem("", 500, f"closed with 1011 {stream.close_reason}"))
        return outcome

    def _line(self, fresh: bool) -> socket.socket:
        if fresh:
            self._drop()
        if self._socket is None:
            self._socket = socket.create_connection(("127.0.0.1", self._ports[0]))
            self._socket.settimeout(self.hang_s)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self._socket

    def _drop(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _received(line: socket.socket) -> Iterator[bytes]:
    with suppress(ConnectionError):
        while data := line.recv(65536):
            yield data


def _http_outcome(answer: http.client.HTTPResponse, body: bytes) -> Outcome:
    media_type = answer.headers.get("Content-Type", "").partition(";")[0]
    outcome = Outcome(answer.status, body, media_type, request_id=answer.headers.get("X-Request-Id", ""))
    if answer.status >= 400 and body:
        _read_problem(outcome)
    elif media_type == "application/x-ndjson":
        for line in body.splitlines():
            _read_line(outcome, line)
    else:
        outcome.answers = 1
    return outcome


def _read_problem(outcome: Outcome) -> None:
    """Append the problem+json of the outcome's body."""
    try:
        value = json.loads(outcome.body)
        kind = value["type"].removeprefix("/problems/")
        outcome.problems.append(Problem(kind, value["status"], value["detail"]))
    except (ValueError, KeyError, TypeError, AttributeError):
        outcome.problems.append(Problem("", int(outcome.status), outcome.body[:500].decode("latin-1"), False))


def _read_line(outcome: Outcome, line: str | bytes) -> None:
    """One answer of a stream, or one problem."""
    text = line.encode() if isinstance(line, str) else line
    outcome.body += text + b"\n"
    try:
        value = json.loads(text)
        if "type" in value:
            kind = value["type"].removeprefix("/problems/")
            outcome.problems.append(Problem(kind, value["status"], value["detail"]))
        else:
            outcome.answers += 1
    except (ValueError, KeyError, TypeError, AttributeError):
        outcome.problems.append(Problem("", 500, text[:500].decode("latin-1"), False))


def _streamed(call: Any, method: str) -> Outcome:
    """All answers of a stream; of a health watch, the first."""
    from service.pb.efficientsam3.v1 import tracking_pb2

    outcome = Outcome("OK")
    for message in call:
        outcome.answers += 1
        if method.endswith("/Watch"):
            call.cancel()
            return outcome
        if method.endswith(("/Track", "/TrackVideo")):
            answer = tracking_pb2.TrackResponse.FromString(message)
            if answer.HasField("error"):
                outcome.answers -= 1
                outcome.problems.append(Problem(answer.error.kind, "", answer.error.detail))
    return outcome


def _grpc_outcome(error: Any) -> Outcome:
    code, detail = error.code().name, error.details() or ""
    kind, request_id = "", ""
    for name, value in error.trailing_metadata() or ():
        if name == "x-request-id":
            request_id = str(value)
        if name == "grpc-status-details-bin":
            kind = _kind_of(value)
    return Outcome(code, detail.encode(), problems=[Problem(kind, code, detail)], request_id=request_id)


def _kind_of(status: bytes) -> str:
    info = error_details_pb2.ErrorInfo()
    with suppress(DecodeError):
        for packed in status_pb2.Status.FromString(status).details:
            if packed.Unpack(info) and info.domain == DOMAIN:
                return str(info.reason)
    return ""
