"""Refuses requests while there is no room for them, before their bodies are parsed or messages received.

Under overload most requests end here, so that a refusal must cost far less than an answer. That of a gRPC
call has no span, and no line of its own in the log.
"""

import logging
import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import grpc.aio

from service import rpc_server
from service.errors import ServiceError
from service.gateway.admission import Admission
from service.gateway.router import Router
from service.rpc import AUTHORIZATION_KEY, REQUEST_ID, REQUEST_ID_KEY, abort
from service.telemetry import Telemetry

_LOG = logging.getLogger("service.request")
# Seconds between two lines of the log that say how many calls were refused.
_REPORT_S = 1.0

TRACK_VIDEO = f"/{rpc_server.TRACKING}/TrackVideo"
# Methods whose calls wait for a worker.
QUEUED = {
    TRACK_VIDEO,
    *(f"/{rpc_server.TRACKING}/{name}" for name in ("OpenSession", "AddFrame")),
    *(f"/{rpc_server.SEGMENTATION}/{name}" for name in ("Segment", "EncodeImage")),
}


_VIDEOS_PATH = "/v1/videos/track"
_QUEUED_PATH = re.compile(r"/v1/(segment|images|sessions|sessions/[^/]+/frames|videos/track)")


def check_http_room(router: Router, method: str, path: str, owner: str) -> None:
    """Raise OVERLOADED if the HTTP request would wait for a worker, and no variant has room for it."""
    if method != "POST" or not _QUEUED_PATH.fullmatch(path):
        return
    video = path == _VIDEOS_PATH
    if router.crowded(video=video):
        router.check_any_room(owner, video=video)


class LoadShedding(grpc.aio.ServerInterceptor):
    """Answers calls that find no room, in the place of their methods."""

    def __init__(self, router: Router, admission: Admission, telemetry: Telemetry) -> None:
        self._router, self._admission, self._telemetry = router, admission, telemetry
        # Calls refused since the last line of the log, by key.
        self._refused: Counter[str] = Counter()
        self._reported = 0.0

    async def intercept_service(
        self,
        continuation: Callable[
            [grpc.HandlerCallDetails], Awaitable["grpc.RpcMethodHandler[Any, Any] | None"]
        ],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "grpc.RpcMethodHandler[Any, Any] | None":
        """Pass calls on for which there is room, or whose key is not known."""
        method: str = handler_call_details.method
        if method in QUEUED and self._router.crowded(video=method == TRACK_VIDEO):
            metadata = dict(handler_call_details.invocation_metadata or ())
            authorization = metadata.get(AUTHORIZATION_KEY)
            if error := self._refusal(method, None if authorization is None else str(authorization)):
                return _refusing(error, str(metadata.get(REQUEST_ID_KEY, "")))
        return await continuation(handler_call_details)

    def _refusal(self, method: str, authorization: str | None) -> ServiceError | None:
        """Why a call is refused, counted; None: it is not."""
        try:
            key = self._admission.key(authorization)
        except ServiceError:
            # The usual way records why it is refused.
            return None
        owner = key.name if key else ""
        try:
            self._router.check_any_room(owner, video=method == TRACK_VIDEO)
        except ServiceError as error:
            variant = self._router.only_variant
            self._telemetry.requests.labels(variant, "grpc", error.kind.value).inc()
            self._refused[owner] += 1
            self._report(error)
            return error
        return None

    def _report(self, error: ServiceError) -> None:
        now = time.monotonic()
        if now - self._reported < _REPORT_S:
            return
        self._reported = now
        for owner, count in self._refused.items():
            _LOG.info("key=%s kind=%s refused unread: %d calls", owner or "-", error.kind.value, count)
        self._refused.clear()


def _refusing(error: ServiceError, request_id: str) -> "grpc.RpcMethodHandler[Any, Any]":
    async def handle(_: Any, context: Any) -> None:
        REQUEST_ID.set(request_id)
        await abort(context, error)

    # Of a stream gRPC receives no message before it is asked to.
    return grpc.stream_stream_rpc_method_handler(handle)
