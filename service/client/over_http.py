"""One server over HTTP and WebSockets."""

import json
import ssl
import uuid
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

import httpx

from service.client.over_websocket import connected
from service.client.problems import parsed, problem, refusal
from service.client.transport import GRACE_S, Connection, Json, Server, nobody, too_late
from service.errors import ServiceError


class OverHttp:
    """A `Transport`."""

    def __init__(self, server: Server) -> None:
        """Raises OSError where the authorities' file cannot be read."""
        self._server, self._address = server, server.address.rstrip("/")
        self._tls = _tls(server) if server.address.startswith("https") else None
        self._http = httpx.AsyncClient(timeout=server.timeout_s + GRACE_S, verify=self._tls or True)

    async def segment(self, image: bytes | str, request: Json) -> Json:
        content = (
            {"json": {**request, "image": {"id": image}}}
            if isinstance(image, str)
            else {"files": _parts("image", image, request)}
        )
        return await self._send("POST", "/v1/segment", **content)

    async def encode_image(self, image: bytes, variant: str) -> Json:
        return await self._send("POST", "/v1/images", files=_parts("image", image, {"variant": variant}))

    async def delete_image(self, id: str) -> None:
        await self._send("DELETE", f"/v1/images/{quote(id, safe='')}")

    async def variants(self) -> list[Json]:
        return list((await self._send("GET", "/v1/variants"))["variants"])

    async def open_session(self, request: Json) -> Json:
        return await self._send("POST", "/v1/sessions", json=request)

    async def get_session(self, id: str) -> Json:
        return await self._send("GET", _path(id))

    async def fork_session(self, id: str) -> Json:
        return await self._send("POST", f"{_path(id)}/fork")

    async def delete_session(self, id: str) -> None:
        await self._send("DELETE", _path(id))

    async def add_frame(self, session: str, request: Json, image: bytes | None) -> Json:
        content: Json = {"json": request} if image is None else {"files": _parts("image", image, request)}
        return await self._send("POST", f"{_path(session)}/frames", **content)

    async def connect(self, session: str) -> Connection:
        url = f"ws{self._address.removeprefix('http')}{_path(session)}/stream"
        return await connected(url, self._headers(), self._server.timeout_s, self._tls)

    async def track_video(self, video: bytes, request: Json) -> AsyncGenerator[Json, None]:
        # It has the longest deadline that the server gives; ours bounds each of its frames.
        headers = {name: value for name, value in self._headers().items() if name != "X-Deadline-Ms"}
        url, content = f"{self._address}/v1/videos/track", _parts("video", video, request)
        with self._telling():
            async with self._http.stream("POST", url, headers=headers, files=content) as response:
                if not response.is_success:
                    await response.aread()
                    raise _refusal(response)
                yield {"session": response.headers["x-session-id"]}
                async for line in response.aiter_lines():
                    body: Json = json.loads(line)
                    if (error := problem(body)) is not None:
                        raise error
                    yield body

    async def close(self) -> None:
        await self._http.aclose()

    async def _send(self, method: str, path: str, **content: Any) -> Json:
        with self._telling():
            response = await self._http.request(
                method, self._address + path, headers=self._headers(), **content
            )
        if response.status_code == httpx.codes.NO_CONTENT:
            return {}
        body = parsed(response.content)
        if response.is_success and isinstance(body, dict):
            return body
        raise _refusal(response)

    def _headers(self) -> dict[str, str]:
        """Of a new request."""
        deadline_ms = max(1, round(self._server.timeout_s * 1000))
        headers = {"X-Request-Id": uuid.uuid4().hex, "X-Deadline-Ms": str(deadline_ms)}
        return headers | ({"Authorization": self._server.bearer} if self._server.key else {})

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """Raises what httpx raises as ServiceErrors."""
        try:
            yield
        except httpx.TimeoutException as error:
            raise too_late(self._address, self._server.timeout_s) from error
        except (httpx.TransportError, httpx.InvalidURL) as error:
            unsent = isinstance(error, (httpx.ConnectError, httpx.UnsupportedProtocol, httpx.InvalidURL))
            raise nobody(self._address, error, begun=not unsent) from error


def _tls(server: Server) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=server.ca) if server.ca else httpx.create_ssl_context()


def _path(session: str) -> str:
    return f"/v1/sessions/{quote(session, safe='')}"


def _parts(name: str, file: bytes, request: Mapping[str, Any]) -> dict[str, tuple[str | None, bytes, str]]:
    """A multipart body: an encoded file's bytes, and the JSON beside it."""
    return {
        name: (name, file, "application/octet-stream"),
        "request": (None, json.dumps(request).encode(), "application/json"),
    }


def _refusal(response: httpx.Response) -> ServiceError:
    return refusal(str(response.url), response.status_code, response.headers, response.content)
