"""Errors and request ids, over a real channel."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import grpc.aio
import pytest

from service.errors import INTERNAL_DETAIL, TABLE, Kind, ServiceError
from service.pb.efficientsam3.v1 import segmentation_pb2 as pb
from service.pb.efficientsam3.v1 import segmentation_pb2_grpc as rpc_pb
from service.rpc import REQUEST_ID, REQUEST_ID_KEY, ErrorsAsStatuses, from_rpc_error, take_request_id

Answer = Callable[[pb.SegmentRequest], Awaitable[pb.SegmentResponse]]


class Servicer(rpc_pb.SegmentationServicer):
    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    async def Segment(self, request: pb.SegmentRequest, context: Any) -> pb.SegmentResponse:  # noqa: N802
        return await self._answer(request)


async def _call(
    answer: Answer,
    *,
    deadline_s: float | None = None,
    metadata: Any = (),
    size: int = 0,
    raw: bytes | None = None,
) -> Any:
    """One call over TCP, of `raw` if given; the response and the trailing metadata as a dictionary."""
    server = grpc.aio.server(
        interceptors=[ErrorsAsStatuses()], options=[("grpc.max_receive_message_length", 1000)]
    )
    rpc_pb.add_SegmentationServicer_to_server(Servicer(answer), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            request = pb.SegmentRequest(image=pb.Image(data=bytes(size)))
            message = request.SerializeToString() if raw is None else raw
            method = channel.unary_unary("/efficientsam3.v1.Segmentation/Segment")
            call = method(message, timeout=deadline_s, metadata=metadata)
            return await call, dict(await call.trailing_metadata())
    finally:
        await server.stop(0)


def _failure(answer: Answer, **options: Any) -> tuple[ServiceError, grpc.aio.AioRpcError]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        asyncio.run(_call(answer, **options))
    return from_rpc_error(caught.value), caught.value


def _raising(error: BaseException) -> Answer:
    async def answer(request: pb.SegmentRequest) -> pb.SegmentResponse:
        raise error

    return answer


@pytest.mark.parametrize("kind", list(Kind))
def test_every_kind_travels_with_its_code_detail_and_retry(kind: Kind) -> None:
    error, status = _failure(_raising(ServiceError(kind, "prompts[0] – naïve", retry_after_s=2.5)))
    assert (error.kind, error.detail, error.retry_after_s) == (kind, "prompts[0] – naïve", 2.5)
    assert status.code() == TABLE[kind].grpc_code


def test_without_a_retry_none_is_told() -> None:
    assert _failure(_raising(ServiceError(Kind.OVERLOADED, "busy")))[0].retry_after_s is None


def test_a_very_long_detail_arrives_cut() -> None:
    error, _ = _failure(_raising(ServiceError(Kind.INVALID_ARGUMENT, "é" * 100_000)))
    assert error.kind == Kind.INVALID_ARGUMENT
    assert set(error.detail) == {"é"}


def test_the_unexpected_is_logged_with_its_traceback_and_id_and_shown_as_a_fixed_sentence(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.ERROR, logger="service.rpc"):
        error, status = _failure(_raising(ZeroDivisionError("secret")), metadata=(("x-request-id", "abc-1"),))
    assert (error.kind, error.detail) == (Kind.INTERNAL, INTERNAL_DETAIL)
    assert "secret" not in str(status)
    assert dict(status.trailing_metadata())["x-request-id"] == "abc-1"
    (record,) = caplog.records
    assert "abc-1" in record.getMessage()
    assert record.exc_info is not None and "secret" in str(record.exc_info[1])


def test_the_request_id_is_taken_and_returned() -> None:
    seen = []

    async def answer(request: pb.SegmentRequest) -> pb.SegmentResponse:
        seen.append(REQUEST_ID.get())
        return pb.SegmentResponse()

    _, trailing = asyncio.run(_call(answer, metadata=(("x-request-id", "r-42"),)))
    assert (seen, trailing["x-request-id"]) == (["r-42"], "r-42")
    _, trailing = asyncio.run(_call(answer))
    assert trailing["x-request-id"] == seen[1] != ""


@pytest.mark.parametrize("offered", [None, "", "a b", "a\nb", "x" * 129, "é"])
def test_an_id_that_is_no_id_is_replaced(offered: str | None) -> None:
    assert take_request_id(offered) not in (offered, "")


@pytest.mark.parametrize("message", [b"\xff\xff\xff", b"\x0a\x02\xff\xfe"], ids=["garbage", "not UTF-8"])
def test_a_message_that_cannot_be_read_is_an_invalid_argument(message: bytes) -> None:
    async def never(request: pb.SegmentRequest) -> pb.SegmentResponse:
        raise AssertionError("it was read")

    error, status = _failure(never, raw=message)
    assert error.kind is Kind.INVALID_ARGUMENT
    assert "Segmentation/Segment" in error.detail
    assert REQUEST_ID_KEY in dict(status.trailing_metadata() or ())


def test_a_message_over_the_hard_limit_is_payload_too_large() -> None:
    error, _ = _failure(_raising(AssertionError("not reached")), size=5000)
    assert error.kind == Kind.PAYLOAD_TOO_LARGE
    assert "the limit is 1000 bytes" in error.detail


def test_a_deadline_that_passes_is_deadline_exceeded() -> None:
    async def never(request: pb.SegmentRequest) -> pb.SegmentResponse:
        await asyncio.Event().wait()
        raise AssertionError

    assert _failure(never, deadline_s=0.2)[0].kind == Kind.DEADLINE_EXCEEDED


def test_a_server_that_is_not_there_is_unavailable() -> None:
    async def call() -> None:
        async with grpc.aio.insecure_channel("unix:/nonexistent/socket") as channel:
            await rpc_pb.SegmentationStub(channel).Segment(pb.SegmentRequest())

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        asyncio.run(call())
    assert from_rpc_error(caught.value).kind == Kind.UNAVAILABLE


def test_a_call_whose_work_is_cancelled_is_unavailable() -> None:
    error, _ = _failure(_raising(asyncio.CancelledError()))
    assert error.kind == Kind.UNAVAILABLE


def test_a_caller_that_went_away_leaves_no_traceback(caplog: pytest.LogCaptureFixture) -> None:
    """What gRPC raises when it cannot send to a caller whose connection broke."""
    error, _ = _failure(_raising(grpc.aio.InternalError('Failed "execute_batch"')))
    assert error.kind == Kind.UNAVAILABLE and "Traceback" not in caplog.text


def test_a_call_whose_connection_breaks_while_it_sends_is_unavailable() -> None:
    none = grpc.aio.Metadata()
    broken, other = (
        grpc.aio.AioRpcError(grpc.StatusCode.INTERNAL, none, none, details)
        for details in ("Internal error from Core", "Something else")
    )
    assert from_rpc_error(broken).kind == Kind.UNAVAILABLE
    assert from_rpc_error(other).kind == Kind.INTERNAL


def test_a_bare_rpc_error_is_internal() -> None:
    error = from_rpc_error(grpc.RpcError("odd"))
    assert (error.kind, error.detail) == (Kind.INTERNAL, INTERNAL_DETAIL)
