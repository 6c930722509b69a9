"""The gRPC API: the same services that workers have, forwarded by the router."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from contextvars import ContextVar
from typing import Any

import grpc.aio
from grpc_health.v1 import health

from service import rpc_server
from service.config import GatewaySettings
from service.errors import Kind, ServiceError
from service.gateway.admission import Admission
from service.gateway.call import Call, recorded
from service.gateway.keys import Key
from service.gateway.load_shedding import TRACK_VIDEO, LoadShedding
from service.gateway.router import Router
from service.gateway.session_router import SessionRouter
from service.gateway.video_router import VideoRouter
from service.message_reader import MessageReader, UnfinishedMessages, max_message_bytes
from service.pb.efficientsam3.v1 import (
    segmentation_pb2,
    segmentation_pb2_grpc,
    tracking_pb2,
    tracking_pb2_grpc,
    variants_pb2,
    variants_pb2_grpc,
)
from service.prompts import check_stream
from service.rpc import REQUEST_ID, authorization_of, frame_error
from service.telemetry import Telemetry
from service.tracing import current, ending, within

# A client that stops waiting at its deadline hears nothing later: what we have to say comes before it.
_HEAD_START_S = 0.1
_STREAM_RETRY_S = 5.0

_TRACK = f"/{rpc_server.TRACKING}/Track"

Context = grpc.aio.ServicerContext[Any, Any]


# The call that the current task answers, once it is admitted.
_CALL: ContextVar[Call] = ContextVar("call")


def make_server(
    settings: GatewaySettings,
    router: Router,
    tracking: tuple[SessionRouter, VideoRouter],
    telemetry: Telemetry,
    admission: Admission,
    state: health.aio.HealthServicer,
) -> grpc.aio.Server:
    """The server, without a port yet."""
    calls = _Calls(settings, telemetry, admission)
    size = max_message_bytes(settings)
    unfinished = UnfinishedMessages(settings.max_receiving_message_bytes, size, settings.message_timeout_s)
    return rpc_server.make_server(
        Segmentation(router),
        Tracking(*tracking, calls),
        Variants(router),
        state,
        settings,
        telemetry.tracing,
        calls.admit,
        MessageReader(settings, unfinished, settings.stream_idle_s),
        settings.write_timeout_s,
        [LoadShedding(router, admission, telemetry)],
    )


class _Calls:
    """Makes, admits and records the Call of a gRPC request."""

    def __init__(self, settings: GatewaySettings, telemetry: Telemetry, admission: Admission) -> None:
        self.telemetry = telemetry
        self._settings = settings
        self._admission = admission
        # Open streams by their owner.
        self._streams: Counter[str] = Counter()

    @asynccontextmanager
    async def admit(self, method: str, context: Context) -> AsyncIterator[str]:
        """Admit a call before its message is received, and yield the owner of its messages.

        A stream's messages are admitted one by one. Raises ServiceError as `Admission` does, and OVERLOADED.
        """
        # Without keys clients are told apart by their hosts.
        host = context.peer().rpartition(":")[0]
        if method != _TRACK:
            async with self.begin(method, context, long=method == TRACK_VIDEO) as call:
                _CALL.set(call)
                yield call.owner or host
            return
        key = self._authenticated(method, context)
        owner = key.name if key else ""
        with self._stream(owner):
            yield owner or host

    @asynccontextmanager
    async def begin(self, method: str, context: Context, *, long: bool = False) -> AsyncIterator[Call]:
        """The call, under way until the block ends. Raises ServiceError as `Admission` does.

        `long`: without a deadline of its own it has the longest there is.
        """
        call = self._call(method, context, long=long)
        with recorded(call, self.telemetry):
            call.key = self._admission.key(authorization_of(context))
            async with self._admission.counted(call):
                yield call

    def _call(self, method: str, context: Context, *, long: bool = False) -> Call:
        settings = self._settings
        left_s = context.time_remaining()
        if left_s is None:
            left_s = (settings.max_deadline_ms if long else settings.default_deadline_ms) / 1000
        left_s = min(left_s, settings.max_deadline_ms / 1000)
        head_start_s = min(_HEAD_START_S, left_s / 10)
        deadline = asyncio.get_running_loop().time() + left_s - head_start_s
        return Call(REQUEST_ID.get(), "grpc", method, deadline)

    def _authenticated(self, method: str, context: Context) -> Key | None:
        """The key of a stream, whose refusal is recorded as a call."""
        try:
            return self._admission.key(authorization_of(context))
        except ServiceError:
            with recorded(self._call(method, context), self.telemetry):
                raise

    @contextmanager
    def _stream(self, owner: str) -> Iterator[None]:
        """Count one more stream. One key has at most half of all. Raises ServiceError OVERLOADED."""
        limit = self._settings.max_streams
        if self._streams.total() >= limit or (owner and self._streams[owner] >= max(1, limit // 2)):
            total, own = self._streams.total(), self._streams[owner]
            detail = f"{total:,} streams are open, {own:,} of them by you: close one, or retry later."
            raise ServiceError(Kind.OVERLOADED, detail, retry_after_s=_STREAM_RETRY_S)
        self._streams[owner] += 1
        try:
            with self.telemetry.streams.labels("grpc").track_inprogress():
                yield
        finally:
            self._streams[owner] -= 1
            if not self._streams[owner]:
                del self._streams[owner]


class Segmentation(segmentation_pb2_grpc.SegmentationServicer):
    """Segmentation, answered by workers."""

    def __init__(self, router: Router) -> None:
        self._router = router

    async def Segment(  # noqa: N802
        self, request: segmentation_pb2.SegmentRequest, context: Context
    ) -> segmentation_pb2.SegmentResponse:
        return await self._router.segment(request, _CALL.get())

    async def EncodeImage(  # noqa: N802
        self, request: segmentation_pb2.EncodeImageRequest, context: Context
    ) -> segmentation_pb2.EncodeImageResponse:
        return await self._router.encode_image(request, _CALL.get())

    async def DeleteImage(  # noqa: N802
        self, request: segmentation_pb2.DeleteImageRequest, context: Context
    ) -> segmentation_pb2.DeleteImageResponse:
        return await self._router.delete_image(request, _CALL.get())


class Tracking(tracking_pb2_grpc.TrackingServicer):
    """Tracking, answered by workers. A stream's frames are asked for one by one, of who has the session."""

    def __init__(self, router: SessionRouter, videos: VideoRouter, calls: _Calls) -> None:
        self._router, self._videos = router, videos
        self._calls = calls

    async def Track(  # noqa: N802
        self, request_iterator: AsyncIterator[tracking_pb2.TrackRequest], context: Context
    ) -> AsyncIterator[tracking_pb2.TrackResponse]:
        id = ""
        async for request in request_iterator:
            answer = await self._told(id, request, context)
            id = id or answer.opened.session
            yield answer

    async def TrackVideo(  # noqa: N802
        self, request: tracking_pb2.TrackVideoRequest, context: Context
    ) -> AsyncIterator[tracking_pb2.TrackResponse]:
        call = _CALL.get()
        async with aclosing(self._videos.track(request, call)) as answers:
            async for answer in answers:
                if answer.HasField("error"):
                    call.kind = answer.error.kind
                yield answer

    async def OpenSession(  # noqa: N802
        self, request: tracking_pb2.OpenSessionRequest, context: Context
    ) -> tracking_pb2.Session:
        return await self._router.open(request, _CALL.get())

    async def AddFrame(  # noqa: N802
        self, request: tracking_pb2.AddFrameRequest, context: Context
    ) -> tracking_pb2.FrameAnswer:
        return await self._router.add(request, _CALL.get())

    async def GetSession(  # noqa: N802
        self, request: tracking_pb2.SessionRequest, context: Context
    ) -> tracking_pb2.Session:
        return await self._router.get(request, _CALL.get())

    async def ForkSession(  # noqa: N802
        self, request: tracking_pb2.SessionRequest, context: Context
    ) -> tracking_pb2.Session:
        return await self._router.fork(request, _CALL.get())

    async def DeleteSession(  # noqa: N802
        self, request: tracking_pb2.SessionRequest, context: Context
    ) -> tracking_pb2.DeleteSessionResponse:
        return await self._router.delete(request, _CALL.get())

    async def _told(
        self, id: str, request: tracking_pb2.TrackRequest, context: Context
    ) -> tracking_pb2.TrackResponse:
        """A frame's answer, or why there is none: the stream goes on, unless it is nobody's."""
        opens = request.HasField("open")
        span = current().part("open" if opens else "frame")
        try:
            with within(span), ending(span):
                async with self._calls.begin(_TRACK, context) as call:
                    check_stream(opens=opens, opened=bool(id))
                    if opens:
                        return tracking_pb2.TrackResponse(opened=await self._router.open(request.open, call))
                    asked = tracking_pb2.AddFrameRequest(session=id, frame=request.frame)
                    return tracking_pb2.TrackResponse(frame=await self._router.add(asked, call))
        except ServiceError as error:
            if opens or not id or error.kind is Kind.UNAUTHENTICATED:
                raise
            return tracking_pb2.TrackResponse(error=frame_error(request.frame.frame, error))


class Variants(variants_pb2_grpc.VariantsServicer):
    """The configured variants."""

    def __init__(self, router: Router) -> None:
        self._router = router

    async def ListVariants(  # noqa: N802
        self, request: variants_pb2.ListVariantsRequest, context: Context
    ) -> variants_pb2.ListVariantsResponse:
        return variants_pb2.ListVariantsResponse(variants=self._router.variants())

    async def GetVariant(  # noqa: N802
        self, request: variants_pb2.GetVariantRequest, context: Context
    ) -> variants_pb2.Variant:
        return self._router.variant(request.name)
