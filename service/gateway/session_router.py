"""From a tracking request to the worker that has the session. HTTP and gRPC call this."""

from functools import partial

from service.config import GatewaySettings
from service.errors import Kind, ServiceError
from service.gateway.call import Call
from service.gateway.pool import Pool, choose
from service.gateway.router import Router
from service.pb.efficientsam3.v1 import tracking_pb2 as pb
from service.prompts import check_frame, check_open, check_session_id, digits_of_session, new_session_id
from service.telemetry import Telemetry

# Ids that are tried until a fork's favourite worker is that of its origin.
_IDS = 256


class SessionRouter:
    """Sessions by their ids, which name their variant; each has a favourite among its workers.

    All of it raises ServiceError: what the checks of `prompts` and `Pool.ask` raise, UNAVAILABLE while the
    gateway is stopping, OVERLOADED, and what the worker raises. A request whose worker goes away before it
    begins to compute is sent to another: a frame that was answered is answered the same way again.
    """

    def __init__(self, router: Router, settings: GatewaySettings, telemetry: Telemetry) -> None:
        self._router, self._settings, self._telemetry = router, settings, telemetry

    async def open(self, request: pb.OpenSessionRequest, call: Call) -> pb.Session:
        """A new session; one that is known is looked up."""
        check_open(request, self._settings)
        pool = self.pool_for(request, call)
        if request.session:
            return await self.get(pb.SessionRequest(session=request.session), call)
        with self._router.admitted(pool, call):
            await self.name_new(pool, call)
            opened = await pool.ask(
                lambda worker: worker.tracking.OpenSession, request, call, call.new_session
            )
        self._telemetry.sessions.labels(pool.variant).inc()
        return opened

    def pool_for(self, request: pb.OpenSessionRequest, call: Call) -> Pool:
        """The workers of the session, or of one to be made.

        Raises ServiceError: `variant_not_found`, `session_not_found`, `invalid_argument`, UNAVAILABLE.
        """
        if not request.session:
            self._router.check_open()
            pool = self._router.pool(request.variant)
            call.ask_for(pool.variant)
            request.variant = pool.variant
            return pool
        if request.variant:
            detail = "variant and session are both given: a session has its variant."
            raise ServiceError(Kind.INVALID_ARGUMENT, detail)
        return self._pool(request.session, call)

    async def name_new(self, pool: Pool, call: Call) -> None:
        """Choose `call.new_session`, the id of a session to be made, once a worker is ready: it tells the
        artefact. Raises ServiceError UNAVAILABLE when none is in time."""
        await pool.next(call, "")
        call.new_session = new_session_id(pool.variant, pool.info.digest if pool.info else "")

    async def add(self, request: pb.AddFrameRequest, call: Call) -> pb.FrameAnswer:
        """One frame."""
        pool = self._pool(request.session, call)
        check_frame(request.frame, self._settings)
        self._router.check_source(request.frame.image)
        with self._router.admitted(pool, call):
            await self._router.bring(request.frame.image, call)
            answer = await pool.ask(lambda worker: worker.tracking.AddFrame, request, call, request.session)
        self._telemetry.record_frame(pool.variant, answer.timings_ms, answer.memory_bytes)
        return answer

    async def get(self, request: pb.SessionRequest, call: Call) -> pb.Session:
        """Where a session stands."""
        pool = self._pool(request.session, call)
        return await pool.ask(lambda worker: worker.tracking.GetSession, request, call, request.session)

    async def fork(self, request: pb.SessionRequest, call: Call) -> pb.Session:
        """A copy of a session."""
        pool = self._pool(request.session, call)
        call.new_session = _neighbour(pool, request.session)
        forked = await pool.ask(lambda worker: worker.tracking.ForkSession, request, call, request.session)
        self._telemetry.sessions.labels(pool.variant).inc()
        return forked

    async def delete(self, request: pb.SessionRequest, call: Call) -> pb.DeleteSessionResponse:
        """Forget a session."""
        pool = self._pool(request.session, call)
        return await pool.ask(lambda worker: worker.tracking.DeleteSession, request, call, request.session)

    def _pool(self, session: str, call: Call) -> Pool:
        self._router.check_open()
        check_session_id(session)
        pool = self._router.pool_of(session)
        if pool is None:
            raise ServiceError(Kind.SESSION_NOT_FOUND, f"There is no session {session!r}.")
        call.ask_for(pool.variant)
        return pool


def _neighbour(pool: Pool, session: str) -> str:
    """A new id with the same favourite worker, which may be the only one that has the session."""
    ready = pool.ready_workers()
    new = partial(new_session_id, pool.variant, digits_of_session(session))
    if not ready:
        return new()
    favourite = choose(ready, session)
    return next((id for id in (new() for _ in range(_IDS)) if choose(ready, id) is favourite), new())
