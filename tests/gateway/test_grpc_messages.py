"""Messages over gRPC: who may send them, how large and how slow they may be, and what malformed ones get."""

import asyncio
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import grpc
import grpc.aio
import psutil
import pytest
from google.protobuf import descriptor_pool

from service import rpc_server
from service.errors import Kind
from service.pb.efficientsam3.v1 import tracking_pb2
from service.rpc import ErrorsAsStatuses, from_rpc_error
from service.rpc_methods import METHODS, Access
from tests.gateway.conftest import House
from tests.gateway.keyed import REQUEST, metadata, opened
from tests.http2_client import RawGrpc
from tests.keys import KeysFile

MIB = 1024 * 1024
SEGMENT = "/efficientsam3.v1.Segmentation/Segment"
HEALTH = "/grpc.health.v1.Health/Check"
WATCH = "/grpc.health.v1.Health/Watch"
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED.value[0]
RESOURCE_EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
DEADLINE_EXCEEDED = grpc.StatusCode.DEADLINE_EXCEEDED.value[0]


def key(name: str) -> tuple[str, str]:
    return metadata(name)[0]


def resident() -> int:
    return int(psutil.Process().memory_info().rss)


def begun(stack: ExitStack, house: House, count: int, *brought: tuple[str, str]) -> list[tuple[RawGrpc, int]]:
    """So many calls, each over a connection of its own."""
    clients = [stack.enter_context(RawGrpc(house.gateway.grpc_address)) for _ in range(count)]
    return [(client, client.begin(SEGMENT, *brought)) for client in clients]


def test_no_message_is_received_before_its_sender_is_authenticated(house: House, keys: KeysFile) -> None:
    opened(house, keys)
    with ExitStack() as stack, ThreadPoolExecutor(5) as pool:
        before = resident()
        calls = begun(stack, house, 5, ("authorization", "Bearer nobody"))
        sent = list(pool.map(lambda call: call[0].send_unfinished(call[1], 60 * MIB, 30), calls))
        assert [client.wait(stream) for client, stream in calls] == [UNAUTHENTICATED] * 5
        # What a connection takes before anybody asks for it.
        assert max(sent) < 2 * MIB
        assert resident() - before < 60 * MIB


def test_unfinished_messages_of_a_key_are_bounded_and_leave_room_for_another(
    house: House, keys: KeysFile
) -> None:
    # Four unfinished messages at once; half of them may be slow.
    size = 2 * MIB + MIB
    opened(house, keys, max_body_bytes=MIB, max_receiving_message_bytes=4 * size, message_timeout_s=600.0)
    with ExitStack() as stack, ThreadPoolExecutor(8) as pool:
        calls = begun(stack, house, 8, key("alice"))
        list(pool.map(lambda call: call[0].send_unfinished(call[1], MIB, 2), calls))
        refused = [client.status.get(stream) for client, stream in calls]
        while refused.count(RESOURCE_EXHAUSTED) < 6:
            for client, _ in calls:
                client.receive(0.05)
            refused = [client.status.get(stream) for client, stream in calls]
        assert refused.count(None) == 2
        # Another key's request is answered, and its slow message takes the place of one of the first key's.
        assert house.stub.Segment(REQUEST, metadata=metadata("bob")).variant == "demo"
        ((slow, stream),) = begun(stack, house, 1, key("bob"))
        slow.send_unfinished(stream, MIB, 2)
        while refused.count(RESOURCE_EXHAUSTED) < 7:
            for client, _ in calls:
                client.receive(0.05)
            refused = [client.status.get(each) for client, each in calls]
        assert slow.status == {}


def test_a_message_that_does_not_arrive_in_time_is_refused(house: House, keys: KeysFile) -> None:
    opened(house, keys, message_timeout_s=0.5)
    with RawGrpc(house.gateway.grpc_address) as client:
        stream = client.begin(SEGMENT, key("alice"))
        client.send_unfinished(stream, MIB, 1)
        assert client.wait(stream) == DEADLINE_EXCEEDED
        assert "did not arrive within 0.5 s" in client.message[stream]


def test_a_video_with_millions_of_prompts_is_refused_before_it_is_parsed(served: House) -> None:
    shown = tracking_pb2.VideoPrompt(frame=1, prompt=tracking_pb2.TrackPrompt(text="a")).SerializeToString()
    message = b"\x12\x01x" + (b"\x1a" + bytes([len(shown)]) + shown) * 2_400_000
    served.stop()
    served.open(served._workers[0])
    served.wait_ready()
    assert served.channel
    track = served.channel.unary_stream("/efficientsam3.v1.Tracking/TrackVideo")
    with pytest.raises(grpc.RpcError) as refused:
        next(track(message))
    error = from_rpc_error(refused.value)
    assert error.kind is Kind.PAYLOAD_TOO_LARGE
    assert "prompts has more entries than the limit of 1,024" in error.detail


@pytest.mark.parametrize("method", [HEALTH, WATCH, REFLECTION, "/grpc.health.v1.Health/List"])
@pytest.mark.parametrize("message", [b"\xff\xff\xff", b"\x0a\x02\xff\xfe", b"\x0a\xff\x01"])
def test_malformed_public_messages_are_invalid_arguments(
    served: House, caplog: pytest.LogCaptureFixture, method: str, message: bytes
) -> None:
    assert served.channel
    with pytest.raises(grpc.RpcError) as refused:
        list(served.channel.stream_stream(method)(iter([message]), timeout=60))
    known = not method.endswith("List")
    code = refused.value.code()  # type: ignore[attr-defined]
    assert code is (grpc.StatusCode.INVALID_ARGUMENT if known else grpc.StatusCode.UNIMPLEMENTED)
    assert "Traceback" not in caplog.text and not any(record.exc_info for record in caplog.records)


def test_health_and_reflection_calls_of_a_connection_are_bounded(served: House) -> None:
    with RawGrpc(served.gateway.grpc_address) as client:
        streams = [client.begin(WATCH) for _ in range(40)]
        for stream in streams:
            client.send(stream, b"")
        until = time.monotonic() + 60
        while len(client.status) < 32 and time.monotonic() < until:
            client.receive(0.05)
        assert list(client.status.values()) == [RESOURCE_EXHAUSTED] * 32
    with RawGrpc(served.gateway.grpc_address) as client:
        # A stream that asks nothing is not kept.
        stream = client.begin(REFLECTION)
        assert client.wait(stream) == DEADLINE_EXCEEDED


def test_a_storm_of_resets_does_not_keep_others_from_being_answered(served: House) -> None:
    with RawGrpc(served.gateway.grpc_address) as client:
        for _ in range(50):
            for _ in range(100):
                stream = client.connection.get_next_available_stream_id()
                head = [(":method", "POST"), (":scheme", "http"), (":path", SEGMENT), (":authority", "a")]
                client.connection.send_headers(stream, [*head, ("content-type", "application/grpc")])
                client.reset(stream)
            client.flush()
            client.receive(0)
            if client.closed:
                break
        assert served.stub.Segment(REQUEST, timeout=60).variant == "demo"
    assert served.http.get("/healthz").status_code == 200
    with pytest.raises(grpc.RpcError) as refused:
        served.stub.Segment(REQUEST, metadata=(("x-flood", "a" * 40_000),), timeout=60)
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED  # type: ignore[attr-defined]


def test_every_rpc_is_declared_and_needs_a_key_unless_it_is_public(house: House, keys: KeysFile) -> None:
    services = [descriptor_pool.Default().FindServiceByName(name) for name in rpc_server.SERVICES]
    ours = {f"/{service.full_name}/{method.name}" for service in services for method in service.methods}
    assert ours == {method for method, access in METHODS.items() if access is Access.KEY}
    assert {method for method in METHODS if method not in ours} == {HEALTH, WATCH, REFLECTION}
    opened(house, keys)
    assert house.channel
    for method in sorted(ours):
        with pytest.raises(grpc.RpcError) as refused:
            list(house.channel.stream_stream(method)(iter([b""]), timeout=60))
        assert from_rpc_error(refused.value).kind is Kind.UNAUTHENTICATED, method


def test_an_rpc_that_is_not_declared_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    async def never(message: bytes, context: Any) -> bytes:
        raise AssertionError("it was called")

    async def scenario() -> grpc.StatusCode:
        server = grpc.aio.server(interceptors=[ErrorsAsStatuses()])
        handlers = {"Secret": grpc.unary_unary_rpc_method_handler(never)}
        server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler("efficientsam3.v1.New", handlers)]
        )
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                return await channel.unary_unary("/efficientsam3.v1.New/Secret")(b"").code()
        finally:
            await server.stop(0)

    with caplog.at_level(logging.ERROR, logger="service.rpc"):
        assert asyncio.run(scenario()) is grpc.StatusCode.UNIMPLEMENTED
    assert "is not declared" in caplog.text


def test_streams_are_bounded(house: House, keys: KeysFile) -> None:
    opened(house, keys, max_streams=4, stream_idle_s=600.0)
    track = "/efficientsam3.v1.Tracking/Track"
    with RawGrpc(house.gateway.grpc_address) as client:
        streams = [client.begin(track, key("alice")) for _ in range(3)]
        assert client.wait(streams[2]) == RESOURCE_EXHAUSTED
        # Half of them are for others.
        others = [client.begin(track, key("bob")) for _ in range(2)]
        client.receive(0.5)
        assert not set(client.status) & {*streams[:2], *others}
