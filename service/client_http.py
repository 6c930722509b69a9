"""One server over HTTP: requests out, JSON or a ServiceError back; and patience with what passes."""

import json
import time
import uuid
from collections.abc import Mapping
from typing import Any

import httpx

from service.errors import Kind, ServiceError

# Whatever is asked of a session may be asked again, and is answered the same way: these are tried again.
_PASSING = frozenset({Kind.UNAVAILABLE, Kind.STORE_UNAVAILABLE, Kind.OVERLOADED})
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 5.0


class Patience:
    """With what may pass: a worker that died, a store that restarts, a full queue."""

    def __init__(self, seconds: float) -> None:
        """Lasts so long from now on."""
        self._until, self._pause_s = time.monotonic() + seconds, _FIRST_PAUSE_S

    def wait(self, error: ServiceError) -> None:
        """Return when it is time to try again. Raises `error` where that helps nothing, or is too late."""
        wait_s = max(self._pause_s, error.retry_after_s or 0.0)
        if error.kind not in _PASSING or time.monotonic() + wait_s > self._until:
            raise error
        time.sleep(wait_s)
        self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)


class Http:
    """A connection to one server. `send` raises ServiceError; UNAVAILABLE where no server answers."""

    def __init__(self, base_url: str, timeout_s: float) -> None:
        """`timeout_s` bounds one request, and is told to the server."""
        self.base_url = base_url.rstrip("/")
        self.timeout_s = timeout_s
        # The server answers at its deadline at the latest; a little later we stop waiting for it.
        self._http = httpx.Client(timeout=timeout_s + 5.0)

    def close(self) -> None:
        """Hang up."""
        self._http.close()

    def headers(self) -> dict[str, str]:
        """Of a new request."""
        deadline_ms = max(1, round(self.timeout_s * 1000))
        return {"X-Request-Id": uuid.uuid4().hex, "X-Deadline-Ms": str(deadline_ms)}

    def send(self, method: str, path: str, **content: Any) -> dict[str, Any]:
        """The answer's JSON object."""
        try:
            response = self._http.request(method, self.base_url + path, headers=self.headers(), **content)
        except httpx.TimeoutException as error:
            detail = f"{self.base_url} did not answer within {self.timeout_s:g} s."
            raise ServiceError(Kind.DEADLINE_EXCEEDED, detail) from error
        except (httpx.TransportError, httpx.InvalidURL) as error:
            detail = f"No server answers at {self.base_url}: {error}"
            raise ServiceError(Kind.UNAVAILABLE, detail) from error
        try:
            body = {} if response.status_code == httpx.codes.NO_CONTENT else response.json()
        except ValueError:
            body = None
        if response.is_success and isinstance(body, dict):
            return body
        after = response.headers.get("retry-after", "")
        raise problem(body, float(after) if after.isdigit() else None) or _stranger(response)


def parts(image: bytes, request: Mapping[str, Any]) -> dict[str, tuple[str | None, bytes, str]]:
    """A multipart body: an encoded file's bytes, and the JSON beside it."""
    return {
        "image": ("image", image, "application/octet-stream"),
        "request": (None, json.dumps(request).encode(), "application/json"),
    }


def problem(body: Any, retry_after_s: float | None = None) -> ServiceError | None:
    """The error that a `problem+json` tells of; None where this is none of ours."""
    kind = str(body.get("type", "")).removeprefix("/problems/") if isinstance(body, dict) else ""
    if kind not in set(Kind):
        return None
    return ServiceError(Kind(kind), str(body.get("detail", "")), retry_after_s=retry_after_s)


def _stranger(response: httpx.Response) -> ServiceError:
    detail = f"{response.url} answered {response.status_code}, and not as this service does."
    return ServiceError(Kind.INTERNAL, detail)
