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
from service.gateway.outer import check_origin, deadline_ms
from service.gateway.problems import described, problem
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

    @app.websocket(_ADDRESS)
    async def stream(socket: WebSocket, id: str) -> None:
        headers = Headers(scope=socket.scope)
        authorization = headers.get("authorization")
        try:
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
                connection = _Connection(socket, id, frame_s, authorization, router, telemetry, admission)
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
    # What the handshake or a frame brought last; None: nothing so far.
    authorization: str | None
    router: SessionRouter
    telemetry: Telemetry
    admission: Admission

    async def answer(self) -> None:
        """The next frame's answer, or why there is none. Raises UNAUTHENTICATED: nothing more is answered."""
        text = await self._text()
        deadline = asyncio.get_running_loop().time() + self.frame_s
        call = Call(take_request_id(None), "http", f"WS /v1/sessions/{self.id}/stream"[:200], deadline)
        frame: int | None = None
        span = current().part("frame")
        with within(span), ending(span), recorded(call, self.telemetry, WebSocketDisconnect):
            try:
                asked = _read(text)
                frame = asked.frame
                if asked.key:
                    self.authorization = bearer(asked.key)
                call.key = self.admission.key(self.authorization)
                await self.socket.send_text(await self._answered(asked, call))
            except ServiceError as error:
                call.failed(error)
                await self.socket.send_json({"frame": frame, **described(error, call.request_id)})
                if error.kind is Kind.UNAUTHENTICATED:
                    raise

    async def _text(self) -> str:
        # Of a stranger no more is waited for than one frame may take.
        stranger = self.admission.keyed and self.authorization is None
        try:
            async with asyncio.timeout(self.frame_s if stranger else None):
                return await self.socket.receive_text()
        except TimeoutError:
            raise ServiceError(Kind.UNAUTHENTICATED, "No key came in time.") from None

    async def _answered(self, asked: StreamedFrame, call: Call) -> str:
        follows = asked.image is None and not asked.known_image
        data = await self.socket.receive_bytes() if follows else None
        async with self.admission.counted(call):
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
