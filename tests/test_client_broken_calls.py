"""The client goes on when gRPC itself ends a call, as it does if a gateway dies while a message is sent."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from service.client import Client
from service.errors import Kind, ServiceError
from service.pb.efficientsam3.v1 import tracking_pb2 as pb
from service.pb.efficientsam3.v1 import tracking_pb2_grpc


class Breaking(tracking_pb2_grpc.TrackingServicer):
    """Ends the first call with the status that gRPC's client gives to a call whose connection broke."""

    def __init__(self) -> None:
        self.calls, self.details = 0, "Internal error from Core"

    def GetSession(self, request: pb.SessionRequest, context: grpc.ServicerContext) -> pb.Session:  # noqa: N802
        self.calls += 1
        if self.calls == 1:
            context.abort(grpc.StatusCode.INTERNAL, self.details)
        return pb.Session(session=request.session, variant="demo", next_frame=3)


@pytest.fixture
def server() -> Iterator[tuple[Breaking, str]]:
    """The servicer and the address that it listens on."""
    breaking, server = Breaking(), grpc.server(ThreadPoolExecutor(2))
    tracking_pb2_grpc.add_TrackingServicer_to_server(breaking, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield breaking, f"grpc://127.0.0.1:{port}"
    server.stop(0)


def test_a_broken_call_is_retried(server: tuple[Breaking, str]) -> None:
    breaking, address = server
    with Client(address, timeout_s=30.0) as client:
        assert client.session("tiny.1").next_frame == 3
    assert breaking.calls == 2


def test_another_internal_error_is_not_retried(server: tuple[Breaking, str]) -> None:
    breaking, address = server
    breaking.details = "Something else"
    with Client(address, timeout_s=30.0) as client, pytest.raises(ServiceError) as failed:
        client.session("tiny.1")
    assert failed.value.kind is Kind.INTERNAL and breaking.calls == 1
