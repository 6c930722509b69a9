"""Whole videos over HTTP: a line of JSON per frame, as it is done."""

import asyncio
import json
from collections.abc import AsyncIterator

from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from service.config import GatewaySettings
from service.errors import Kind, ServiceError
from service.gateway import openapi
from service.gateway.app_common import while_connected
from service.gateway.body import read_video
from service.gateway.call import Call
from service.gateway.problems import described
from service.gateway.session_schema import FrameOut
from service.gateway.session_translate import frame_answer
from service.gateway.video_router import Answers, VideoRouter
from service.pb.efficientsam3.v1 import tracking_pb2 as pb

MEDIA_TYPE = "application/x-ndjson"
# The header of the answer that names the session.
SESSION = "X-Session-Id"


def add_videos(app: FastAPI, settings: GatewaySettings, router: VideoRouter) -> None:
    """Add the address of videos to the application."""

    @app.post(
        "/v1/videos/track",
        summary="Follow objects through a video file: a line of JSON per frame, as it is done",
        response_class=StreamingResponse,
        responses={
            200: {
                "description": "Lines as `FrameOut`; one with a problem is the last",
                "content": {MEDIA_TYPE: {"schema": openapi.reference(FrameOut)}},
                "headers": {
                    SESSION: {"schema": {"type": "string"}, "description": "The session, which stays"}
                },
            },
            **openapi.problems(400, 404, 409, 410, 413, 415, 429, 500, 503, 504),
        },
        openapi_extra=openapi.VIDEO_BODY,
    )
    async def track_video(request: Request) -> Response:
        call: Call = request.state.call
        asked = await read_video(request, call.deadline, settings.max_body_bytes)
        if "x-deadline-ms" not in request.headers:
            # Its frames come one by one: without a deadline of its own it has the longest there is.
            call.deadline += (settings.max_deadline_ms - settings.default_deadline_ms) / 1000
        answers = router.track(asked, call)
        opened = await while_connected(request, _first(answers))
        return _Video(answers, opened.opened.session, asked.first, call)


class _Video(StreamingResponse):
    """The lines of a video's frames. However it ends, the worker's call and the place end with it."""

    def __init__(self, answers: Answers, session: str, frame: int, call: Call) -> None:
        super().__init__(_lines(answers, frame, call), media_type=MEDIA_TYPE, headers={SESSION: session})
        self._answers, self._call = answers, call
        self._whole = False

    async def stream_response(self, send: Send) -> None:
        await super().stream_response(send)
        self._whole = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            if not self._whole and self._call.kind == "ok":
                self._call.kind = "cancelled"
            await self._answers.aclose()


async def _first(answers: AsyncIterator[pb.TrackResponse]) -> pb.TrackResponse:
    return await anext(answers)


async def _lines(answers: AsyncIterator[pb.TrackResponse], frame: int, call: Call) -> AsyncIterator[str]:
    """A frame's answer each; where one cannot be had, why, and which."""
    try:
        async for answer in answers:
            if answer.HasField("error"):
                frame = answer.error.frame
                raise ServiceError(Kind(answer.error.kind), answer.error.detail)
            frame = answer.frame.frame + 1
            # An answer may hold megabytes of masks.
            yield await asyncio.to_thread(_line, answer.frame)
    except ServiceError as error:
        call.failed(error)
        yield json.dumps({"frame": frame, **described(error, call.request_id)}) + "\n"


def _line(answer: pb.FrameAnswer) -> str:
    return frame_answer(answer).model_dump_json(exclude_none=True) + "\n"
