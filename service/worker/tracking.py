"""Tracking over gRPC on a worker: translate, call, translate."""

import functools
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, contextmanager
from typing import Any

from service.config import WorkerSettings
from service.errors import Kind, ServiceError
from service.fair_share import FairShare
from service.pb.efficientsam3.v1 import segmentation_pb2 as segmentation_pb
from service.pb.efficientsam3.v1 import tracking_pb2 as pb
from service.pb.efficientsam3.v1 import tracking_pb2_grpc
from service.prompts import check_frame, check_open, check_session_id, check_stream, check_video
from service.rpc import announcing, announcing_frame, frame_error, owner_of, session_of, sessions_of
from service.sessions.image_store import ImageStore
from service.tracing import current, ending, within
from service.worker.decoder_process import DecoderProcesses
from service.worker.hot_sessions import Session
from service.worker.lane import Lane, Ticket, Urgency
from service.worker.pixel_budget import PixelBudget
from service.worker.scenes import Seen
from service.worker.servicer import check_source, check_variant, kept_image, pixels_of
from service.worker.sessions import VIDEO_ANSWERS, Sessions
from service.worker.tracker.state import State
from service.worker.tracker.tracker import Tracker
from service.worker.videos import Video, open_video

# Nobody knows when one of the videos ends.
_VIDEO_RETRY_S = 5.0


class TrackingServicer(tracking_pb2_grpc.TrackingServicer):
    """Tracking, computed in the lane. Errors are ServiceErrors; rpc.ErrorsAsStatuses tells them."""

    def __init__(
        self,
        variant: str,
        tracker: Tracker,
        lane: Lane,
        stores: tuple[Sessions, ImageStore],
        pixels: PixelBudget,
        decoders: DecoderProcesses,
        settings: WorkerSettings,
    ) -> None:
        self._variant, self._tracker, self._lane = variant, tracker, lane
        self._sessions, self._images = stores
        self._pixels, self._decoders, self._settings = pixels, decoders, settings
        # Videos under way, by owner.
        self._videos = FairShare()

    async def Track(  # noqa: N802
        self, request_iterator: AsyncIterator[pb.TrackRequest], context: Any
    ) -> AsyncIterator[pb.TrackResponse]:
        """One session's frames, one after another; the first message opens it."""
        owner, id = owner_of(context), ""
        async for request in request_iterator:
            opens = request.HasField("open")
            check_stream(opens=opens, opened=bool(id))
            if opens:
                with _part("open"):
                    session = await self._open(request.open, context)
                id = session.id
                yield pb.TrackResponse(opened=described(session, self._variant))
            else:
                yield await self._told(owner, id, request.frame)

    async def TrackVideo(  # noqa: N802
        self, request: pb.TrackVideoRequest, context: Any
    ) -> AsyncIterator[pb.TrackResponse]:
        """A video's frames, one after another; a refused one is the last."""
        owner = owner_of(context)
        check_video(request, self._settings)
        self._tracker.check(pb.Frame(prompts=[asked.prompt for asked in request.prompts]))
        with self._video_place(owner), self._lane.request():
            async with (
                open_video(self._decoders, request, self._settings, owner) as video,
                aclosing(self._follow_video(request, video, owner, context)) as responses,
            ):
                async for response in responses:
                    yield response

    async def _follow_video(
        self, request: pb.TrackVideoRequest, video: Video, owner: str, context: Any
    ) -> AsyncGenerator[pb.TrackResponse, None]:
        if not request.open.session and not request.open.HasField("frames_total") and video.frames:
            request.open.frames_total = video.frames
        session = await self._open(request.open, context)
        yield pb.TrackResponse(opened=described(session, self._variant))
        async with aclosing(video.frames_of(request)) as frames:
            async for frame in frames:
                try:
                    with _part("frame"):
                        announce = announcing_frame(context, frame.frame)
                        ticket = Ticket(context.time_remaining(), owner, Urgency.BULK, announce)
                        answer = await self._follow(owner, session.id, frame, ticket, VIDEO_ANSWERS)
                except ServiceError as error:
                    yield pb.TrackResponse(error=frame_error(frame.frame, error))
                    return
                yield pb.TrackResponse(frame=answer)

    @contextmanager
    def _video_place(self, owner: str) -> Iterator[None]:
        """Count one more video during the block. Raises `overloaded`."""
        limit = self._settings.max_videos
        if not self._videos.has_room(owner, limit):
            self._lane.count_refused_video()
            detail = f"This worker tracks {self._videos.total} videos; the limit is {limit}."
            raise ServiceError(Kind.OVERLOADED, detail, retry_after_s=_VIDEO_RETRY_S)
        with self._videos.hold(owner):
            yield

    async def OpenSession(self, request: pb.OpenSessionRequest, context: Any) -> pb.Session:  # noqa: N802
        """A new session."""
        if request.session:
            raise ServiceError(
                Kind.INVALID_ARGUMENT, "session: a known session needs no opening; send frames."
            )
        session = await self._open(request, context)
        return described(session, self._variant)

    async def AddFrame(self, request: pb.AddFrameRequest, context: Any) -> pb.FrameAnswer:  # noqa: N802
        """The next frame, or the last one again."""
        check_session_id(request.session)
        ticket = Ticket(context.time_remaining(), owner_of(context), Urgency.INTERACTIVE, announcing(context))
        return await self._add(request.session, request.frame, ticket)

    async def GetSession(self, request: pb.SessionRequest, context: Any) -> pb.Session:  # noqa: N802
        """Where the session stands."""
        check_session_id(request.session)
        return described(await self._sessions.look(owner_of(context), request.session), self._variant)

    async def ForkSession(self, request: pb.SessionRequest, context: Any) -> pb.Session:  # noqa: N802
        """Another session with the same past."""
        check_session_id(request.session)
        most = sessions_of(context, self._settings.max_sessions)
        fork = await self._sessions.fork(owner_of(context), request.session, session_of(context), most)
        return described(fork, self._variant)

    async def DeleteSession(  # noqa: N802
        self, request: pb.SessionRequest, context: Any
    ) -> pb.DeleteSessionResponse:
        """Forget the session."""
        check_session_id(request.session)
        if not await self._sessions.delete(owner_of(context), request.session):
            raise ServiceError(Kind.SESSION_NOT_FOUND, f"There is no session {request.session!r}.")
        return pb.DeleteSessionResponse()

    async def _open(self, request: pb.OpenSessionRequest, context: Any) -> Session:
        owner, most = owner_of(context), sessions_of(context, self._settings.max_sessions)
        check_open(request, self._settings)
        if request.session:
            check_session_id(request.session)
            return await self._sessions.get(owner, request.session)
        check_variant(request.variant, self._variant)
        self._tracker.check()
        ttl_s = request.ttl_s or self._settings.session_ttl_s
        total = request.frames_total if request.HasField("frames_total") else None
        return await self._sessions.open(owner, session_of(context), ttl_s, total, request.options, most)

    async def _told(self, owner: str, id: str, frame: pb.Frame) -> pb.TrackResponse:
        """A frame's answer, or why there is none."""
        try:
            with _part("frame"):
                ticket = Ticket(None, owner, Urgency.INTERACTIVE)
                return pb.TrackResponse(frame=await self._add(id, frame, ticket))
        except ServiceError as error:
            return pb.TrackResponse(error=frame_error(frame.frame, error))

    async def _add(self, id: str, frame: pb.Frame, ticket: Ticket) -> pb.FrameAnswer:
        check_frame(frame, self._settings)
        self._tracker.check(frame)
        if frame.HasField("image"):
            check_source(frame.image, self._settings)
        return await self._follow(ticket.owner, id, frame, ticket)

    async def _follow(
        self, owner: str, id: str, frame: pb.Frame, ticket: Ticket, keep: int = 0
    ) -> pb.FrameAnswer:
        async def compute(session: Session, state: State) -> tuple[State, pb.FrameAnswer, Seen]:
            seen = None if frame.HasField("image") else session.seen
            sent = await self._with_image(owner, frame)
            work = functools.partial(self._compute, sent, state, seen, ticket)
            pixels = pixels_of(sent.image.data, sent.prompts)
            if seen is not None:
                # The masks are as large as the frame that is corrected.
                pixels += seen.scene.width * seen.scene.height
            return await self._pixels.run(self._lane.run, work, ticket, pixels)

        with self._lane.request():
            return await self._sessions.add(owner, id, frame, compute, keep)

    async def _with_image(self, owner: str, frame: pb.Frame) -> pb.Frame:
        """The frame with its image's bytes, where it names one that was sent before."""
        if not frame.image.HasField("id"):
            return frame
        data = await kept_image(self._images, owner, frame.image.id)
        sent = pb.Frame()
        sent.CopyFrom(frame)
        sent.image.CopyFrom(segmentation_pb.Image(data=data))
        return sent

    def _compute(
        self, frame: pb.Frame, state: State, seen: Seen | None, ticket: Ticket
    ) -> tuple[State, pb.FrameAnswer, Seen]:
        queue_ms = ticket.begin()
        after, answer, seen = self._tracker.answer(frame, state, seen, ticket.go_on, ticket.owner)
        answer.timings_ms["queue"] = queue_ms
        answer.timings_ms["total"] = ticket.waited_ms()
        return after, answer, seen


@contextmanager
def _part(name: str) -> Iterator[None]:
    """The block is a part of the current stream or video."""
    span = current().part(name)
    with within(span), ending(span):
        yield


def described(session: Session, variant: str) -> pb.Session:
    """The session as a message."""
    return pb.Session(
        session=session.id,
        variant=variant,
        next_frame=session.next_frame,
        oldest_answer=session.oldest_answer,
        expires_at=session.expires.strftime("%Y-%m-%dT%H:%M:%SZ"),
        objects=[track.id for track in session.state.tracks if track.trial is None],
        memory_bytes=session.state.nbytes,
        revision=session.cursor.revision,
    )
