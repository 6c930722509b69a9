"""A tracking session over a WebSocket: a text message of JSON, then the frame's image, and so on."""

import asyncio

from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from pydantic import Field, ValidationError
from starlette.datastructures import Headers

from service.config import GatewaySettings
from service.errors import ServiceError
from service.gateway.body import check_values
from service.gateway.call import Call, recorded
from service.gateway.outer import check_origin, deadline_ms
from service.gateway.problems import described
from service.gateway.session_router import SessionRouter
from service.gateway.session_schema import FrameIn
from service.gateway.session_translate import frame_answer, frame_of
from service.gateway.translate import image_of, refusal
from service.pb.efficientsam3.v1 import segmentation_pb2 as segmentation_pb
from service.pb.efficientsam3.v1 import tracking_pb2 as pb
from service.rpc import take_request_id
from service.telemetry import Telemetry

# Of RFC 6455: the peer broke a rule that is not the protocol's.
_POLICY = 1008


class StreamedFrame(FrameIn):
    """One frame's JSON. Its image follows as a binary message, unless it is in here or known."""

    known_image: bool = Field(default=False, description="No image comes: a correction of the last frame")


def add_stream(app: FastAPI, settings: GatewaySettings, router: SessionRouter, telemetry: Telemetry) -> None:
    """Add the address of streams to the application."""

    @app.websocket("/v1/sessions/{id}/stream")
    async def stream(socket: WebSocket, id: str) -> None:
        try:
            check_origin(Headers(scope=socket.scope), settings.allowed_origins)
        except ServiceError as error:
            # Before it was accepted this is HTTP's 403.
            await socket.close(_POLICY, error.detail[:120])
            return
        await socket.accept()
        try:
            frame_s = deadline_ms(Headers(scope=socket.scope), settings) / 1000
            with telemetry.streams.labels("http").track_inprogress():
                while True:
                    await _answer(socket, id, frame_s)
        except WebSocketDisconnect:
            return
        except ServiceError as error:
            await socket.close(_POLICY, error.detail[:120])
        except KeyError:
            # The framework's way to say that a message was of the other kind.
            detail = "A text message and the frame's image, as a binary message, take turns."
            await socket.close(_POLICY, detail)

    async def _answer(socket: WebSocket, id: str, frame_s: float) -> None:
        text = await socket.receive_text()
        deadline = asyncio.get_running_loop().time() + frame_s
        call = Call(take_request_id(None), "http", f"WS /v1/sessions/{id}/stream"[:200], deadline)
        frame: int | None = None
        with recorded(call, telemetry):
            try:
                asked = _read(text)
                frame = asked.frame
                follows = asked.image is None and not asked.known_image
                data = await socket.receive_bytes() if follows else None
                answer = await router.add(pb.AddFrameRequest(session=id, frame=_framed(asked, data)), call)
                told = await asyncio.to_thread(
                    lambda: frame_answer(answer).model_dump_json(exclude_none=True)
                )
                await socket.send_text(told)
            except ServiceError as error:
                call.failed(error)
                await socket.send_json({"frame": frame, **described(error, call.request_id)})


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
