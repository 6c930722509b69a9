"""From a whole video to a worker, and on to another where that one goes away. HTTP and gRPC call this."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from service.config import GatewaySettings
from service.errors import Kind, ServiceError
from service.gateway.admission import Admission
from service.gateway.call import Call
from service.gateway.pool import Pool
from service.gateway.router import Router
from service.gateway.session_router import SessionRouter
from service.gateway.worker import WorkerLostError
from service.pb.efficientsam3.v1 import tracking_pb2 as pb
from service.prompts import check_video
from service.telemetry import Telemetry

Answers = AsyncGenerator[pb.TrackResponse, None]


class VideoRouter:
    """Videos, each tracked in a session of its own or in one that it began in."""

    def __init__(
        self,
        router: Router,
        sessions: SessionRouter,
        admission: Admission,
        settings: GatewaySettings,
        telemetry: Telemetry,
    ) -> None:
        self._router, self._sessions, self._admission = router, sessions, admission
        self._settings, self._telemetry = settings, telemetry

    async def track(self, request: pb.TrackVideoRequest, call: Call) -> Answers:
        """The session, then every frame's answer as it is done. `request` is changed on the way.

        Frames come no faster than the key's rate allows. A worker that goes away is replaced as often as
        frames go on being answered, but no frame that was being computed when its worker went away is sent to
        another: the frame may be the cause. Raises ServiceError as the sessions' router and `Admission.pace`
        do; what has come by then stays true.
        """
        check_video(request, self._settings)
        pool = self._sessions.pool_for(request.open, call)
        opened = failed = computing = False
        with self._router.admitted_video(pool, call):
            if not request.open.session:
                await self._sessions.name_new(pool, call)
            while True:
                try:
                    async with aclosing(self._rest(pool, request, call)) as answers:
                        async for answer in answers:
                            computing = answer.HasField("begun")
                            if computing:
                                continue
                            if answer.HasField("frame"):
                                await self._admission.pace(call)
                            if not (opened and answer.HasField("opened")):
                                yield answer
                            opened, failed = True, failed and not answer.HasField("frame")
                    return
                except ServiceError as error:
                    if isinstance(error, WorkerLostError) and computing:
                        raise WorkerLostError(begun=True) from error
                    if error.kind is not Kind.UNAVAILABLE or failed:
                        raise
                    failed, computing = True, False

    async def _rest(self, pool: Pool, request: pb.TrackVideoRequest, call: Call) -> Answers:
        """The answers of one worker. After each, the request asks for those that come behind it."""
        worker = await pool.next(call, request.open.session or call.new_session)
        asked = worker.ask_for_many(lambda worker: worker.tracking.TrackVideo, request, call)
        async with aclosing(asked) as answers:
            async for answer in answers:
                if answer.HasField("opened"):
                    if not request.open.session:
                        self._telemetry.sessions.labels(pool.variant).inc()
                    request.open.CopyFrom(pb.OpenSessionRequest(session=answer.opened.session))
                elif answer.HasField("frame"):
                    frame = answer.frame
                    self._telemetry.record_frame(pool.variant, frame.timings_ms, frame.memory_bytes)
                    request.first = answer.frame.frame + 1
                yield answer
