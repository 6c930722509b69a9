"""Bounds of the gRPC listener: streams, what they wait for, and messages that are not complete."""

import threading
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from service.config import MIB
from service.errors import Kind
from service.pb.efficientsam3.v1 import tracking_pb2 as pb
from service.pb.efficientsam3.v1.tracking_pb2_grpc import TrackingStub
from service.rpc import from_rpc_error
from tests.gateway.conftest import House

_SEGMENT = "/efficientsam3.v1.Segmentation/Segment"
_HANG_S = 60.0


def opened(house: House, **settings: Any) -> grpc.Channel:
    """A gateway with these settings and a ready worker; the channel to it."""
    worker = house.worker()
    house.run(worker.start())
    house.open(worker, **settings)
    house.wait_ready()
    assert house.channel
    return house.channel


def refused(ask: Any) -> Kind:
    """The kind of the error that `ask` raises."""
    with pytest.raises(grpc.RpcError) as failure:
        ask()
    return from_rpc_error(failure.value).kind


class Held:
    """Messages of a call whose client sends none until the end of the test."""

    def __init__(self, *first: pb.TrackRequest) -> None:
        self._first, self._over = first, threading.Event()

    def __iter__(self) -> Iterator[Any]:
        yield from self._first
        self._over.wait(_HANG_S)

    def end(self) -> None:
        """Send nothing more."""
        self._over.set()


def test_there_are_no_more_streams_than_allowed(house: House) -> None:
    stub = TrackingStub(opened(house, max_streams=1))
    held, other = Held(pb.TrackRequest(open=pb.OpenSessionRequest())), Held()
    first = stub.Track(iter(held), timeout=_HANG_S)
    assert next(first).HasField("opened")
    assert refused(lambda: next(stub.Track(iter(other), timeout=_HANG_S))) is Kind.OVERLOADED
    held.end()
    assert list(first) == []
    other.end()
    again = Held(pb.TrackRequest(open=pb.OpenSessionRequest()))
    assert next(stub.Track(iter(again), timeout=_HANG_S)).HasField("opened")
    again.end()


def test_a_stream_that_rests_too_long_is_closed(house: House) -> None:
    stub = TrackingStub(opened(house, stream_idle_s=0.3))
    held = Held(pb.TrackRequest(open=pb.OpenSessionRequest()))
    stream = stub.Track(iter(held), timeout=_HANG_S)
    assert next(stream).HasField("opened")
    assert refused(lambda: next(stream)) is Kind.UNAVAILABLE
    held.end()


def test_a_message_that_does_not_arrive_ends_its_call(house: House) -> None:
    channel, held = opened(house, message_timeout_s=0.5), Held()
    ask = channel.stream_unary(_SEGMENT)
    assert refused(lambda: ask(iter(held), timeout=_HANG_S)) is Kind.DEADLINE_EXCEEDED
    held.end()


def test_unfinished_messages_have_a_bound_together(house: House) -> None:
    # Room for two of the largest messages, one of which may be slow.
    channel = opened(house, max_body_bytes=MIB, max_receiving_message_bytes=6 * MIB)
    ask, held = channel.stream_unary(_SEGMENT), [Held() for _ in range(3)]
    calls = [ask.future(iter(each), timeout=_HANG_S) for each in held]
    # The same owner has them all: no call makes room for another, and those without a place end.
    done = threading.Event()
    for call in calls:
        call.add_done_callback(lambda _: done.set())
    assert done.wait(_HANG_S)
    ended = [call for call in calls if call.done()]
    assert {refused(call.result) for call in ended} == {Kind.OVERLOADED} and len(ended) < len(calls)
    for each in held:
        each.end()
