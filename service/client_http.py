"""One server over HTTP: requests out, JSON or a ServiceError back."""

import json
import uuid
from collections.abc import Mapping
from typing import Any

import httpx

from service.errors import Kind, ServiceError


class Http:
    """A connection to one server. `send` raises ServiceError; UNAVAILABLE where no server answers."""

    def __init__(self, base_url: str, timeout_s: float) -> None:
        """`timeout_s` bounds one request, and is told to the server."""
        self._base_url = base_url.rstrip("/")
        self._timeout_s = timeout_s
        # The server answers at its deadline at the latest; a little later we stop waiting for it.
        self._http = httpx.Client(timeout=timeout_s + 5.0)

    def close(self) -> None:
        """Hang up."""
        self._http.close()

    def send(self, method: str, path: str, **content: Any) -> dict[str, Any]:
        """The answer's JSON object."""
        headers = {
            "X-Request-Id": uuid.uuid4().hex,
            "X-Deadline-Ms": str(max(1, round(self._timeout_s * 1000))),
        }
        try:
            response = self._http.request(method, self._base_url + path, headers=headers, **content)
        except httpx.TimeoutException as error:
            detail = f"{self._base_url} did not answer within {self._timeout_s:g} s."
            raise ServiceError(Kind.DEADLINE_EXCEEDED, detail) from error
        except (httpx.TransportError, httpx.InvalidURL) as error:
            detail = f"No server answers at {self._base_url}: {error}"
            raise ServiceError(Kind.UNAVAILABLE, detail) from error
        try:
            body = {} if response.status_code == httpx.codes.NO_CONTENT else response.json()
        except ValueError:
            body = None
        if response.is_success and isinstance(body, dict):
            return body
        raise _error(response, body)


def parts(image: bytes, request: Mapping[str, Any]) -> dict[str, tuple[str | None, bytes, str]]:
    """A multipart body: an encoded file's bytes, and the JSON beside it."""
    return {
        "image": ("image", image, "application/octet-stream"),
        "request": (None, json.dumps(request).encode(), "application/json"),
    }


def _error(response: httpx.Response, body: Any) -> ServiceError:
    kind = str(body.get("type", "")).removeprefix("/problems/") if isinstance(body, dict) else ""
    if kind not in set(Kind):
        detail = f"{response.url} answered {response.status_code}, and not as this service does."
        return ServiceError(Kind.INTERNAL, detail)
    after = response.headers.get("retry-after", "")
    retry_after_s = float(after) if after.isdigit() else None
    return ServiceError(Kind(kind), str(body.get("detail", "")), retry_after_s=retry_after_s)
