"""The HTTP API: a translation of the router's answers."""

import asyncio
from typing import Literal

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from fastapi_offline import FastAPIOffline
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.middleware.cors import CORSMiddleware

from service.config import GatewaySettings
from service.errors import ServiceError
from service.gateway import openapi, problems
from service.gateway.admission import Admission
from service.gateway.app_common import as_json, while_connected
from service.gateway.body import read_encode_request, read_segment_request
from service.gateway.call import Call
from service.gateway.outer import Outer
from service.gateway.page import add_page
from service.gateway.router import Router
from service.gateway.schema import EncodeAnswer, PoolOut, ReadyOut, SegmentAnswer, VariantOut, VariantsOut
from service.gateway.session_api import add_sessions
from service.gateway.session_router import SessionRouter
from service.gateway.session_stream import add_stream
from service.gateway.translate import encode_answer, segment_answer, variant_answer
from service.gateway.turns import Turns
from service.gateway.video_api import SESSION, add_videos
from service.gateway.video_router import VideoRouter
from service.pb.efficientsam3.v1 import segmentation_pb2
from service.sessions.redis_store import RedisStore
from service.telemetry import Telemetry, service_version


def make_app(
    settings: GatewaySettings,
    router: Router,
    tracking: tuple[SessionRouter, VideoRouter],
    telemetry: Telemetry,
    admission: Admission,
    store: RedisStore | None,
    turns: Turns,
) -> FastAPI:
    """The ASGI application. `/docs` brings its own script and style: nothing is asked of another host."""
    app = FastAPIOffline(
        title="EfficientSAM3",
        version=service_version(),
        summary="A noun phrase in, every instance's mask out.",
        redoc_url=None,
        redirect_slashes=False,
    )
    sessions, videos = tracking
    _add_api(app, router)
    _add_images(app, router)
    add_sessions(app, sessions)
    add_stream(app, settings, sessions, telemetry, admission)
    add_videos(app, settings, videos)
    _add_operations(app, router, telemetry, store)
    if settings.page:
        add_page(app)
    problems.install(app)
    openapi.install(app, keyed=admission.keyed)
    app.add_middleware(
        Outer, settings=settings, telemetry=telemetry, admission=admission, router=router, turns=turns
    )
    if settings.allowed_origins:
        # Outermost, so that a page of an allowed origin may read every refusal.
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.allowed_origins,
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=["X-Request-Id", "Retry-After", "WWW-Authenticate", SESSION],
        )
    return app


def _add_api(app: FastAPI, router: Router) -> None:
    @app.post(
        "/v1/segment",
        summary="Find what the prompts ask for in one image",
        response_model=SegmentAnswer,
        responses=openapi.problems(400, 404, 413, 415, 429, 500, 503, 504),
        openapi_extra=openapi.SEGMENT_BODY,
    )
    async def segment(request: Request) -> Response:
        call: Call = request.state.call
        asked = await read_segment_request(request, call.deadline)
        answer = await while_connected(request, router.segment(asked, call))
        # An answer may hold megabytes of masks.
        return await asyncio.to_thread(_answered, answer)

    @app.get("/v1/variants", summary="What each configured variant can do", response_model=VariantsOut)
    async def variants() -> Response:
        return as_json(VariantsOut(variants=[variant_answer(variant) for variant in router.variants()]))

    @app.get(
        "/v1/variants/{name}",
        summary="What one variant can do",
        response_model=VariantOut,
        responses=openapi.problems(404),
    )
    async def variant(name: str) -> Response:
        return as_json(variant_answer(router.variant(name)))


def _add_images(app: FastAPI, router: Router) -> None:
    @app.post(
        "/v1/images",
        summary="Encode an image and keep it, for requests to name by its id",
        response_model=EncodeAnswer,
        responses=openapi.problems(400, 404, 413, 415, 429, 500, 503, 504),
        openapi_extra=openapi.ENCODE_BODY,
    )
    async def encode_image(request: Request) -> Response:
        call: Call = request.state.call
        asked = await read_encode_request(request, call.deadline)
        return as_json(encode_answer(await while_connected(request, router.encode_image(asked, call))))

    @app.delete(
        "/v1/images/{id}",
        summary="Forget a kept image, wherever it is kept",
        status_code=204,
        response_class=Response,
        responses=openapi.problems(400, 404, 500, 503, 504),
    )
    async def delete_image(request: Request, id: str) -> Response:
        await router.delete_image(segmentation_pb2.DeleteImageRequest(id=id), request.state.call)
        return Response(status_code=204)


def _add_operations(app: FastAPI, router: Router, telemetry: Telemetry, store: RedisStore | None) -> None:
    @app.head("/healthz", include_in_schema=False)
    @app.get("/healthz", summary="The process lives")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.head("/readyz", include_in_schema=False)
    @app.get(
        "/readyz",
        summary="Requests are admitted; with `variant`: one of its workers is ready",
        response_model=ReadyOut,
        responses={503: {"model": ReadyOut}, **openapi.problems(404)},
    )
    async def readyz(variant: str = "") -> Response:
        asked = [router.pool(variant)] if variant else list(router.pools.values())
        waiting = bool(variant) and not asked[0].ready
        answer = ReadyOut(
            status="stopping" if router.draining else "waiting" if waiting else "ready",
            default_variant=router.default,
            session_store=await _state_of(store),
            variants={
                pool.variant: PoolOut(
                    workers=len(pool.workers),
                    workers_ready=pool.ready,
                    missing=pool.missing() if pool.ready < max(1, len(pool.workers)) else "",
                )
                for pool in asked
            },
        )
        return JSONResponse(answer.model_dump(), 200 if answer.status == "ready" else 503)

    @app.head("/metrics", include_in_schema=False)
    @app.get(
        "/metrics",
        summary="Prometheus metrics",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    async def metrics() -> Response:
        return Response(telemetry.exposition(), media_type=CONTENT_TYPE_LATEST)


async def _state_of(store: RedisStore | None) -> Literal["none", "ready", "unavailable"]:
    if store is None:
        return "none"
    try:
        await store.ping()
    except ServiceError:
        return "unavailable"
    return "ready"


def _answered(answer: segmentation_pb2.SegmentResponse) -> Response:
    return as_json(segment_answer(answer))
