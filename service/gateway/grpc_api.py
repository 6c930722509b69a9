"""The gRPC API: the same services that workers have, forwarded by the router."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import grpc.aio
from grpc_health.v1 import health

from service import rpc_server
from service.config import GatewaySettings
from service.errors import Kind, ServiceError
from service.gateway.admission import Admission
from service.gateway.call import Call, recorded
from service.gateway.router import Router
from service.gateway.session_router import SessionRouter
from service.gateway.video_router import VideoRouter
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

Context = grpc.aio.ServicerContext[Any, Any]


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
    return rpc_server.make_server(
        Segmentation(router, calls),
        Tracking(*tracking, calls),
        Variants(router, calls),
        state,
        settings.max_body_bytes,
        telemetry.tracing,
    )


class _Calls:
    """Makes, admits and records the Call of a gRPC request."""

    def __init__(self, settings: GatewaySettings, telemetry: Telemetry, admission: Admission) -> None:
        self.telemetry = telemetry
        self._settings = settings
        self._admission = admission

    @asynccontextmanager
    async def begin(self, method: str, context: Context, *, long: bool = False) -> AsyncIterator[Call]:
        """The call, under way until the block ends. Raises ServiceError as `Admission` does.

        `long`: without a deadline of its own it has the longest there is.
        """
        settings = self._settings
        left_s = context.time_remaining()
        if left_s is None:
            left_s = (settings.max_deadline_ms if long else settings.default_deadline_ms) / 1000
        left_s = min(left_s, settings.max_deadline_ms / 1000)
        head_start_s = min(_HEAD_START_S, left_s / 10)
        deadline = asyncio.get_running_loop().time() + left_s - head_start_s
        call = Call(REQUEST_ID.get(), "grpc", f"/efficientsam3.v1.{method}", deadline)
        with recorded(call, self.telemetry):
            call.key = self._admission.key(authorization_of(context))
            async with self._admission.counted(call):
                yield call


class Segmentation(segmentation_pb2_grpc.SegmentationServicer):
    """Segmentation, answered by workers."""

    def __init__(self, router: Router, calls: _Calls) -> None:
        self._router = router
        self._calls = calls

    async def Segment(  # noqa: N802
        self, request: segmentation_pb2.SegmentRequest, context: Context
    ) -> segmentation_pb2.SegmentResponse:
        async with self._calls.begin("Segmentation/Segment", context) as call:
            return await self._router.segment(request, call)

    async def EncodeImage(  # noqa: N802
        self, request: segmentation_pb2.EncodeImageRequest, context: Context
    ) -> segmentation_pb2.EncodeImageResponse:
        async with self._calls.begin("Segmentation/EncodeImage", context) as call:
            return await self._router.encode_image(request, call)

    async def DeleteImage(  # noqa: N802
        self, request: segmentation_pb2.DeleteImageRequest, context: Context
    ) -> segmentation_pb2.DeleteImageResponse:
        async with self._calls.begin("Segmentation/DeleteImage", context) as call:
            return await self._router.delete_image(request, call)


class Tracking(tracking_pb2_grpc.TrackingServicer):
    """Tracking, answered by workers. A stream's frames are asked for one by one, of who has the session."""

    def __init__(self, router: SessionRouter, videos: VideoRouter, calls: _Calls) -> None:
        self._router, self._videos = router, videos
        self._calls = calls

    async def Track(  # noqa: N802
        self, request_iterator: AsyncIterator[tracking_pb2.TrackRequest], context: Context
    ) -> AsyncIterator[tracking_pb2.TrackResponse]:
        id = ""
        with self._calls.telemetry.streams.labels("grpc").track_inprogress():
            async for request in request_iterator:
                answer = await self._told(id, request, context)
                id = id or answer.opened.session
                yield answer

    async def TrackVideo(  # noqa: N802
        self, request: tracking_pb2.TrackVideoRequest, context: Context
    ) -> AsyncIterator[tracking_pb2.TrackResponse]:
        async with (
            self._calls.begin("Tracking/TrackVideo", context, long=True) as call,
            aclosing(self._videos.track(request, call)) as answers,
        ):
            async for answer in answers:
                if answer.HasField("error"):
                    call.kind = answer.error.kind
                yield answer

    async def OpenSession(  # noqa: N802
        self, request: tracking_pb2.OpenSessionRequest, context: Context
    ) -> tracking_pb2.Session:
        async with self._calls.begin("Tracking/OpenSession", context) as call:
            return await self._router.open(request, call)

    async def AddFrame(  # noqa: N802
        self, request: tracking_pb2.AddFrameRequest, context: Context
    ) -> tracking_pb2.FrameAnswer:
        async with self._calls.begin("Tracking/AddFrame", context) as call:
            return await self._router.add(request, call)

    async def GetSession(  # noqa: N802
        self, request: tracking_pb2.SessionRequest, context: Context
    ) -> tracking_pb2.Session:
        async with self._calls.begin("Tracking/GetSession", context) as call:
            return await self._router.get(request, call)

    async def ForkSession(  # noqa: N802
        self, request: tracking_pb2.SessionRequest, context: Context
    ) -> tracking_pb2.Session:
        async with self._calls.begin("Tracking/ForkSession", context) as call:
            return await self._router.fork(request, call)

    async def DeleteSession(  # noqa: N802
        self, request: tracking_pb2.SessionRequest, context: Context
    ) -> tracking_pb2.DeleteSessionResponse:
        async with self._calls.begin("Tracking/DeleteSession", context) as call:
            return await self._router.delete(request, call)

    async def _told(
        self, id: str, request: tracking_pb2.TrackRequest, context: Context
    ) -> tracking_pb2.TrackResponse:
        """A frame's answer, or why there is none: the stream goes on, unless it is nobody's."""
        opens = request.HasField("open")
        span = current().part("open" if opens else "frame")
        try:
            with within(span), ending(span):
                async with self._calls.begin("Tracking/Track", context) as call:
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

    def __init__(self, router: Router, calls: _Calls) -> None:
        self._router = router
        self._calls = calls

    async def ListVariants(  # noqa: N802
        self, request: variants_pb2.ListVariantsRequest, context: Context
    ) -> variants_pb2.ListVariantsResponse:
        async with self._calls.begin("Variants/ListVariants", context):
            return variants_pb2.ListVariantsResponse(variants=self._router.variants())

    async def GetVariant(  # noqa: N802
        self, request: variants_pb2.GetVariantRequest, context: Context
    ) -> variants_pb2.Variant:
        async with self._calls.begin("Variants/GetVariant", context):
            return self._router.variant(request.name)
