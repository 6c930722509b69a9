"""Errors over HTTP: problem+json from the one error table, for the framework's own refusals too."""

import math

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.routing import Mount, WebSocketRoute
from starlette.websockets import WebSocket

from service.errors import Kind, ServiceError
from service.gateway.call import Call
from service.rpc import take_request_id

MEDIA_TYPE = "application/problem+json"
_DEFAULT_RETRY_S = 1.0
_KIND_BY_STATUS = {404: Kind.NOT_FOUND, 405: Kind.METHOD_NOT_ALLOWED}


def described(error: ServiceError, request_id: str) -> dict[str, str | int | bool]:
    """The error as JSON (RFC 9457)."""
    row = error.row
    return {
        "type": f"/problems/{error.kind}",
        "title": row.title,
        "status": row.http_status,
        "detail": error.detail,
        "instance": request_id,
        **({"begun": True} if error.begun else {}),
    }


def problem(error: ServiceError, request_id: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """The answer that tells of `error`."""
    row = error.row
    headers = dict(headers or {})
    if row.retryable:
        wait_s = _DEFAULT_RETRY_S if error.retry_after_s is None else error.retry_after_s
        headers["Retry-After"] = str(max(1, math.ceil(wait_s)))
    if error.kind is Kind.UNAUTHENTICATED:
        headers["WWW-Authenticate"] = "Bearer"
    content = described(error, request_id)
    return JSONResponse(content, row.http_status, headers=headers, media_type=MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Answer ServiceErrors and the framework's refusals as problems."""
    app.add_exception_handler(ServiceError, _service_error)
    app.add_exception_handler(HTTPException, _refusal)
    # Without it the framework answers 403 without a body. It precedes mounts, which match WebSockets too.
    app.router.routes.append(WebSocketRoute("/{path:path}", _no_stream))
    app.router.routes.sort(key=lambda route: isinstance(route, Mount))


async def _no_stream(socket: WebSocket) -> None:
    """Refuse a WebSocket at an address that has none."""
    detail = f"No WebSocket is served at {socket.url.path[:200]}; docs/api.md lists the addresses."
    refused = problem(
        ServiceError(Kind.NOT_FOUND, detail), take_request_id(socket.headers.get("x-request-id"))
    )
    await socket.send_denial_response(refused)


async def _service_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ServiceError)
    call: Call = request.state.call
    call.failed(error)
    return problem(error, call.request_id)


async def _refusal(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    kind = _KIND_BY_STATUS.get(error.status_code, Kind.INVALID_ARGUMENT)
    detail = {
        Kind.NOT_FOUND: f"There is nothing at {request.url.path[:200]}; /docs lists the addresses.",
        Kind.METHOD_NOT_ALLOWED: f"{request.url.path[:200]} does not take {request.method[:20]}.",
    }.get(kind, str(error.detail))
    told = ServiceError(kind, detail)
    call: Call = request.state.call
    call.failed(told)
    return problem(told, call.request_id, dict(error.headers or {}))
