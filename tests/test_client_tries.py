"""The client tries a request that may be what stops workers only a bounded number of times."""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import grpc
import pytest
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from service.client import Client
from service.errors import TABLE, Kind, ServiceError

SESSION = {
    "session": "tiny.1",
    "variant": "tiny",
    "next_frame": 0,
    "revision": 0,
    "oldest_answer": 0,
    "expires_at": "2026-11-24T10:20:30Z",
    "objects": [],
    "memory_bytes": 0,
}
IMAGE = b"an image"
PATIENCE_S = 600.0


class Refusals:
    """Counts the requests of each method that a server refuses with one kind."""

    def __init__(self, kind: Kind, begun: bool) -> None:
        self.kind, self.begun = kind, begun
        self.tries: list[str] = []

    def problem(self) -> dict[str, Any]:
        return {"type": f"/problems/{self.kind}", "detail": "lost", **({"begun": True} if self.begun else {})}

    def status(self) -> Any:
        info = error_details_pb2.ErrorInfo(reason=self.kind.value, domain="efficientsam3")
        if self.begun:
            info.metadata["begun"] = "true"
        packed = any_pb2.Any()
        packed.Pack(info)
        code = TABLE[self.kind].grpc_code.value[0]
        return rpc_status.to_status(status_pb2.Status(code=code, message="lost", details=[packed]))


class Handler(BaseHTTPRequestHandler):
    """Knows one session, and refuses everything else."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(200, SESSION)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        refusals: Refusals = self.server.refusals  # type: ignore[attr-defined]
        refusals.tries.append(self.path)
        self._answer(TABLE[refusals.kind].http_status, refusals.problem())

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json" if status == 200 else "application/problem+json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *values: object) -> None:
        """Log nothing."""


@contextmanager
def over_http(refusals: Refusals) -> Iterator[str]:
    """Serve the refusals over HTTP, and yield the address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.refusals = refusals  # type: ignore[attr-defined]
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


@contextmanager
def over_grpc(refusals: Refusals) -> Iterator[str]:
    """Serve the refusals over gRPC, and yield the address."""

    def refuse(message: bytes, context: grpc.ServicerContext) -> bytes:
        refusals.tries.append("Segment")
        context.abort_with_status(refusals.status())
        raise AssertionError("aborting raises")

    server = grpc.server(ThreadPoolExecutor(2))
    handlers: dict[str, Any] = {"Segment": grpc.unary_unary_rpc_method_handler(refuse)}
    service = grpc.method_handlers_generic_handler("efficientsam3.v1.Segmentation", handlers)
    server.add_generic_rpc_handlers((service,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"grpc://127.0.0.1:{port}"
    server.stop(0)


@pytest.mark.parametrize("serve", [over_http, over_grpc])
def test_an_image_that_workers_do_not_outlive_is_tried_three_times(serve: Any) -> None:
    refusals = Refusals(Kind.UNAVAILABLE, begun=True)
    with (
        serve(refusals) as address,
        Client(address, patience_s=PATIENCE_S) as client,
        pytest.raises(ServiceError) as lost,
    ):
        client.segment(IMAGE, [{"text": "a"}])
    assert lost.value.kind is Kind.UNAVAILABLE and lost.value.begun
    assert len(refusals.tries) == 3


@pytest.mark.parametrize("serve", [over_http, over_grpc])
def test_an_image_whose_deadline_passed_is_tried_once(serve: Any) -> None:
    refusals = Refusals(Kind.DEADLINE_EXCEEDED, begun=False)
    with (
        serve(refusals) as address,
        Client(address, patience_s=PATIENCE_S) as client,
        pytest.raises(ServiceError) as late,
    ):
        client.segment(IMAGE, [{"text": "a"}])
    assert late.value.kind is Kind.DEADLINE_EXCEEDED
    assert len(refusals.tries) == 1


def test_a_frame_that_workers_do_not_outlive_is_tried_ten_times() -> None:
    refusals = Refusals(Kind.UNAVAILABLE, begun=True)
    with over_http(refusals) as address, Client(address, patience_s=PATIENCE_S) as client:
        session = client.session("tiny.1")
        with pytest.raises(ServiceError) as lost:
            session.add(IMAGE)
    assert lost.value.kind is Kind.UNAVAILABLE and lost.value.begun
    assert refusals.tries == ["/v1/sessions/tiny.1/frames"] * 10


def test_a_frame_whose_deadline_passes_each_time_is_given_up_with_the_patience() -> None:
    refusals = Refusals(Kind.DEADLINE_EXCEEDED, begun=False)
    with over_http(refusals) as address, Client(address, patience_s=2.0) as client:
        session = client.session("tiny.1")
        begin = time.monotonic()
        with pytest.raises(ServiceError) as late:
            session.add(IMAGE)
    assert late.value.kind is Kind.DEADLINE_EXCEEDED
    assert 2 <= len(refusals.tries) <= 10 and time.monotonic() - begin < 30
