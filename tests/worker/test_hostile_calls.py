"""Malformed messages that reach a worker directly."""

import grpc
import grpc.aio
import pytest

from service.errors import Kind
from service.rpc import from_rpc_error
from tests.worker.conftest import Start, asking, run

METHODS = (
    "/efficientsam3.v1.Segmentation/Segment",
    "/efficientsam3.v1.Tracking/Track",
    "/efficientsam3.v1.Tracking/TrackVideo",
    "/grpc.health.v1.Health/Check",
    "/grpc.health.v1.Health/Watch",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
)
# An unfinished field number, text that is no UTF-8, a length beyond the end, and one beyond 64 bits.
MALFORMED = (
    b"\xff\xff\xff",
    b"\x0a\x02\xff\xfe",
    b"\x0a\xff\x01",
    b"\x0a\x80\x80\x80\x80\x80\x80\x80\x80\x80\x02",
)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("message", MALFORMED)
def test_a_malformed_message_is_an_invalid_argument(
    start: Start, caplog: pytest.LogCaptureFixture, method: str, message: bytes
) -> None:
    async def scenario() -> None:
        async with start() as client:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                async for _ in client.channel.stream_stream(method)(iter([message]), timeout=30):
                    pass
            error = from_rpc_error(refused.value)
            assert error.kind is Kind.INVALID_ARGUMENT, error
            assert "0x" not in error.detail and "Error" not in error.detail
            assert (await client.segment(asking())).results

    run(scenario())
    assert "Traceback" not in caplog.text and not any(record.exc_info for record in caplog.records)
