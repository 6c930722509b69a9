"""Malformed and compressed messages that reach a worker directly."""

import grpc
import grpc.aio
import pytest

from service.errors import Kind
from service.rpc import from_rpc_error
from service.rpc_methods import METHODS
from tests.worker.conftest import Start, asking, run

SEGMENT = "/efficientsam3.v1.Segmentation/Segment"
HEALTH = "/grpc.health.v1.Health/Check"
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
MALFORMED = (
    b"\xff\xff\xff",
    b"\x0a\x02\xff\xfe",
    b"\x0a\xff\x01",
    b"\x0a\x80\x80\x80\x80\x80\x80\x80\x80\x80\x02",
)


async def refusal(channel: grpc.aio.Channel, method: str, message: bytes) -> grpc.aio.AioRpcError:
    """Return the error of a call with one message."""
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        async for _ in channel.stream_stream(method)(iter([message]), timeout=30):
            pass
    return refused.value


def test_malformed_messages_are_invalid_arguments(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with start() as client:
            for method in (*METHODS, HEALTH, REFLECTION):
                for message in MALFORMED:
                    error = from_rpc_error(await refusal(client.channel, method, message))
                    assert error.kind is Kind.INVALID_ARGUMENT, (method, message, error)
                    assert "0x" not in error.detail and "Error" not in error.detail
            assert (await client.segment(asking())).results

    run(scenario())
    assert "Traceback" not in caplog.text and not any(record.exc_info for record in caplog.records)


@pytest.mark.parametrize("method", [SEGMENT, HEALTH, REFLECTION])
def test_compressed_messages_are_refused(start: Start, method: str) -> None:
    async def scenario() -> None:
        async with start() as client:
            for compression in (grpc.Compression.Gzip, grpc.Compression.Deflate):
                call = client.channel.stream_stream(method)(iter([bytes(100_000)]), compression=compression)
                assert await call.code() is grpc.StatusCode.UNIMPLEMENTED
            assert (await client.segment(asking())).results

    run(scenario())
