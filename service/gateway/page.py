"""The page: static files that show in a browser what the service does, and ask its public API alone."""

from pathlib import Path

from fastapi import FastAPI
from starlette.datastructures import MutableHeaders
from starlette.middleware.gzip import GZipMiddleware
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import model_store
import service

FILES = Path(service.__file__).parent / "page"
SAMPLES = Path(model_store.__file__).parent / "samples"

_POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    # Pictures of one's own, and what is drawn for a download.
    "img-src": "'self' blob: data:",
    "media-src": "'self' blob:",
    # WebSockets of the same host are among these.
    "connect-src": "'self'",
    "form-action": "'none'",
    "base-uri": "'none'",
    "frame-ancestors": "'none'",
}
_HEADERS = {
    "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in _POLICY.items()),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    # Kept, and asked for again each time: the files of one page are of one release.
    "Cache-Control": "no-cache",
}


def add_page(app: FastAPI) -> None:
    """Add the page at `/`, its files below `/page/`, and the embedded student's samples beside these."""
    app.router.routes += [
        Route("/", _Guarded(GZipMiddleware(_Front(directory=FILES))), name="page"),
        Mount("/page/samples", _Guarded(StaticFiles(directory=SAMPLES)), name="samples"),
        Mount("/page", _Guarded(GZipMiddleware(StaticFiles(directory=FILES))), name="page files"),
    ]


class _Front(StaticFiles):
    """The one file that is the page."""

    def get_path(self, scope: Scope) -> str:
        return "index.html"


class _Guarded:
    """ASGI middleware: answers with the headers that bound what the page may do."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        await self._app(scope, receive, answer)
