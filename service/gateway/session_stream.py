"""A tracking session over a WebSocket: a text message of JSON, then the frame's image, and so on."""

import asyncio
from dataclasses import dataclass

from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from pydantic import Field, ValidationError
from starlette.datastructures import Headers

from service.config import GatewaySettings
from service.errors import Kind, ServiceError
from service.gateway.admission import Admission, bearer
from service.gateway.body import check_values
from service.gateway.call import Call, recorded
from service.gateway.hosts import HostCheck
from service.gateway.outer import check_origin, deadline_ms
from service.gateway.problems import described, problem
from service.gateway.redaction import loggable
from service.gateway.session_router import SessionRouter
from service.gateway.session_schema import FrameIn
from service.gateway.session_translate import frame_answer, frame_of
from service.gateway.translate import image_of, refusal
from service.pb.efficientsam3.v1 import segmentation_pb2 as segmentation_pb
from service.pb.efficientsam3.v1 import tracking_pb2 as pb
from service.rpc import take_request_id
from service.telemetry import Telemetry
from service.tracing import Fact, current, ending, within

# Of RFC 6455: the peer broke a rule that is not the protocol's.
_POLICY = 1008
# Malformed messages in a row that a client may send.
_MAX_MALFORMED = 8
# Seconds that a message beyond the key's rate waits for its refusal, so that a flood is answered slowly.
_OVER_QUOTA_S = 0.25
# Longer messages are parsed beside the event loop.
_LONG_CHARS = 4096
_ADDRESS = "/v1/sessions/{id}/stream"


class StreamedFrame(FrameIn):
    """One frame's JSON. Its image follows as a binary message, unless it is in here or known."""

    known_image: bool = Field(default=False, description="No image comes: a correction of the last frame")
    key: str = Field(
        default="",
        repr=False,
        description="The key, from this frame on: for a client that cannot set the Authorization header",
    )


def add_stream(
    app: FastAPI,
    settings: GatewaySettings,
    router: SessionRouter,
    telemetry: Telemetry,
    admission: Admission,
) -> None:
    """Add the address of streams to the application."""

    hosts = HostCheck(settings, keyed=admission.keyed)

    @app.websocket(_ADDRESS)
    async def stream(socket: WebSocket, id: str) -> None:
        headers = Headers(scope=socket.scope)
        authorization = headers.get("authorization")
        try:
            hosts.check(headers.get("host"))
            check_origin(headers, settings.allowed_origins)
            if authorization is not None:
                admission.key(authorization)
        except ServiceError as error:
            # Before it was accepted the answer is HTTP's.
            refused = problem(error, take_request_id(headers.get("x-request-id")))
            await socket.send_denial_response(refused)
            return
        await socket.accept()
        try:
            frame_s = deadline_ms(headers, settings) / 1000
            opened = telemetry.tracing.stream(f"WS {_ADDRESS}", headers, {Fact.HTTP_ROUTE: _ADDRESS})
            with telemetry.streams.labels("http").track_inprogress(), within(opened):
                connection = _Connection(
                    socket,
                    id,
                    frame_s,
                    min(frame_s, settings.header_timeout_s),
                    authorization,
                    router,
                    telemetry,
                    admission,
                )
                while True:
                    await connection.answer()
        except WebSocketDisconnect:
            return
        except ServiceError as error:
            await socket.close(_POLICY, error.detail[:120])
        except KeyError:
            # The framework's way to say that a message was of the other kind.
            detail = "A text message and the frame's image, as a binary message, take turns."
            await socket.close(_POLICY, detail)


@dataclass(slots=True)
class _Connection:
    """A client's frames, one after another."""

    socket: WebSocket
    # The session's.
    id: str
    # How long each may take, seconds.
    frame_s: float
    # How long a client without a key may take to send one, seconds.
    stranger_s: float
    # What the handshake or a frame brought last; None: nothing so far.
    authorization: str | None
    router: SessionRouter
    telemetry: Telemetry
    admission: Admission
    # Malformed messages since the last that was not.
    malformed: int = 0

    @property
    def _stranger(self) -> bool:
        return self.admission.keyed and self.authorization is None

    async def answer(self) -> None:
        """The next frame's answer, or why there is none.

        Raises ServiceError where nothing more is answered: UNAUTHENTICATED, or INVALID_ARGUMENT after too
        many malformed messages.
        """
        text = await self._text()
        deadline = asyncio.get_running_loop().time() + self.frame_s
        target = f"WS {loggable(f'/v1/sessions/{self.id}/stream')}"
        call = Call(take_request_id(None), "http", target[:200], deadline)
        frame: int | None = None
        span = current().part("frame")
        with within(span), ending(span), recorded(call, self.telemetry, WebSocketDisconnect):
            try:
                asked, refused = await self._admitted(text, call)
                frame = asked.frame
                await self.socket.send_text(await self._answered(asked, refused, call))
            except ServiceError as error:
                call.failed(error)
                await self.socket.send_json({"frame": frame, **described(error, call.request_id)})
                if error.kind is Kind.UNAUTHENTICATED:
                    raise
        if self.malformed and self._stranger:
            raise ServiceError(Kind.UNAUTHENTICATED, "The first message is malformed, and no key came.")
        if self.malformed >= _MAX_MALFORMED:
            raise ServiceError(Kind.INVALID_ARGUMENT, f"{_MAX_MALFORMED} malformed messages came in a row.")

    async def _text(self) -> str:
        # Of a stranger no more is waited for than a request's head.
        try:
            async with asyncio.timeout(self.stranger_s if self._stranger else None):
                return await self.socket.receive_text()
        except TimeoutError:
            raise ServiceError(Kind.UNAUTHENTICATED, "No key came in time.") from None

    async def _admitted(self, text: str, call: Call) -> tuple[StreamedFrame, ServiceError | None]:
        """The frame of a message, and why it is refused if its key sends too many.

        A malformed message counts as well. Raises ServiceError for that, and UNAUTHENTICATED.
        """
        refused: ServiceError | None = None
        if not self._stranger:
            call.key = self.admission.key(self.authorization)
            refused = await self._over_rate(call)
        try:
            asked = await asyncio.to_thread(_read, text) if len(text) > _LONG_CHARS else _read(text)
        except ServiceError as error:
            self.malformed += 1
            raise refused or error from None
        self.malformed = 0
        if self._stranger or (asked.key and bearer(asked.key) != self.authorization):
            self.authorization = bearer(asked.key) if asked.key else None
            call.key = self.admission.key(self.authorization)
            refused = await self._over_rate(call)
        return asked, refused

    async def _over_rate(self, call: Call) -> ServiceError | None:
        """Count a message; why it is refused, if it is one too many."""
        try:
            await self.admission.spend(call.key)
        except ServiceError as error:
            await asyncio.sleep(_OVER_QUOTA_S)
            return error
        return None

    async def _answered(self, asked: StreamedFrame, refused: ServiceError | None, call: Call) -> str:
        follows = asked.image is None and not asked.known_image
        data = await self.socket.receive_bytes() if follows else None
        if refused:
            raise refused
        async with self.admission.placed(call.key):
            request = pb.AddFrameRequest(session=self.id, frame=_framed(asked, data))
            answer = await self.router.add(request, call)
        return await asyncio.to_thread(lambda: frame_answer(answer).model_dump_json(exclude_none=True))


def _read(text: str) -> StreamedFrame:
    data = text.encode()
    check_values(data)
    try:
        return StreamedFrame.model_validate_json(data)
    except ValidationError as error:
        raise refusal(error) from None


def _framed(asked: StreamedFrame, data: bytes | None) -> pb.Frame:
    if data is not None:
        return frame_of(asked, segmentation_pb.Image(data=data))
    return frame_of(asked, image_of(asked.image) if asked.image else None)
