"""Tracking sessions over HTTP: a translation of the session router's answers."""

import asyncio

from fastapi import FastAPI, Request, Response

from service.gateway import openapi
from service.gateway.app_common import as_json, while_connected
from service.gateway.body import read_frame, read_open_request
from service.gateway.call import Call
from service.gateway.session_router import SessionRouter
from service.gateway.session_schema import FrameOut, SessionOut
from service.gateway.session_translate import frame_answer, session_answer
from service.pb.efficientsam3.v1 import tracking_pb2 as pb


def add_sessions(app: FastAPI, router: SessionRouter) -> None:
    """Add the addresses of sessions to the application."""
    _add_opening(app, router)
    _add_state(app, router)

    @app.post(
        "/v1/sessions/{id}/frames",
        summary="Follow the session's objects into one more frame, or correct the last",
        response_model=FrameOut,
        responses=openapi.problems(400, 404, 409, 410, 413, 415, 429, 500, 503, 504),
        openapi_extra=openapi.FRAME_BODY,
    )
    async def add_frame(request: Request, id: str) -> Response:
        call: Call = request.state.call
        frame = await read_frame(request, call.deadline)
        asked = pb.AddFrameRequest(session=id, frame=frame)
        answer = await while_connected(request, router.add(asked, call))
        # An answer may hold megabytes of masks.
        return await asyncio.to_thread(lambda: as_json(frame_answer(answer)))


def _add_opening(app: FastAPI, router: SessionRouter) -> None:
    @app.post(
        "/v1/sessions",
        summary="Open a tracking session",
        status_code=201,
        response_model=SessionOut,
        responses=openapi.problems(400, 404, 413, 429, 500, 503, 504),
        openapi_extra=openapi.OPEN_BODY,
    )
    async def open_session(request: Request) -> Response:
        call: Call = request.state.call
        asked = await read_open_request(request, call.deadline)
        opened = await while_connected(request, router.open(asked, call))
        return as_json(session_answer(opened), 201)

    @app.post(
        "/v1/sessions/{id}/fork",
        summary="Open another session that goes on from where this one stands",
        status_code=201,
        response_model=SessionOut,
        responses=openapi.problems(404, 410, 500, 503, 504),
    )
    async def fork_session(request: Request, id: str) -> Response:
        forked = await router.fork(pb.SessionRequest(session=id), request.state.call)
        return as_json(session_answer(forked), 201)


def _add_state(app: FastAPI, router: SessionRouter) -> None:
    @app.get(
        "/v1/sessions/{id}",
        summary="Where a session stands",
        response_model=SessionOut,
        responses=openapi.problems(404, 409, 410, 500, 503, 504),
    )
    async def get_session(request: Request, id: str) -> Response:
        found = await router.get(pb.SessionRequest(session=id), request.state.call)
        return as_json(session_answer(found))

    @app.delete(
        "/v1/sessions/{id}",
        summary="Forget a session",
        status_code=204,
        response_class=Response,
        responses=openapi.problems(404, 500, 503, 504),
    )
    async def delete_session(request: Request, id: str) -> Response:
        await router.delete(pb.SessionRequest(session=id), request.state.call)
        return Response(status_code=204)
