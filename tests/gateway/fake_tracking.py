# ruff: noqa: N802 - gRPC's method names
"""The videos of a worker without a model."""

from collections.abc import AsyncIterator
from typing import Any

from service.pb.efficientsam3.v1 import segmentation_pb2 as segmentation_pb
from service.pb.efficientsam3.v1 import tracking_pb2 as pb
from service.pb.efficientsam3.v1 import tracking_pb2_grpc
from service.rpc import session_of

# A video of these bytes has frames without end, whose answers are large; another has as many as it says.
ENDLESS = b"endless"
_LARGE = 200_000


class FakeTracking(tracking_pb2_grpc.TrackingServicer):
    """Answers every frame of a video with nothing found."""

    def __init__(self) -> None:
        # Videos that are tracked now, and answers that were ever given.
        self.under_way = 0
        self.answered = 0

    async def OpenSession(self, request: pb.OpenSessionRequest, context: Any) -> pb.Session:
        """A session that has no frames."""
        return pb.Session(session=session_of(context), variant="demo")

    async def TrackVideo(
        self, request: pb.TrackVideoRequest, context: Any
    ) -> AsyncIterator[pb.TrackResponse]:
        endless = request.video == ENDLESS
        self.under_way += 1
        try:
            session = pb.Session(session=request.open.session or session_of(context), variant="demo")
            yield pb.TrackResponse(opened=session)
            frame = request.first
            while endless or frame < int(request.video):
                self.answered += 1
                image = segmentation_pb.ImageInfo(id="x" * _LARGE if endless else "", width=6, height=4)
                yield pb.TrackResponse(frame=pb.FrameAnswer(frame=frame, image=image))
                frame += 1
        finally:
            self.under_way -= 1
