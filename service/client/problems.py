"""What an answer over HTTP says that is no answer."""

import json
from collections.abc import Mapping
from typing import Any

from service.client.transport import NoAnswerError
from service.errors import Kind, ServiceError

_SERVER_ERROR = 500


def problem(body: Any, retry_after_s: float | None = None) -> ServiceError | None:
    """The error that a `problem+json` tells of; None where this is none of ours."""
    kind = str(body.get("type", "")).removeprefix("/problems/") if isinstance(body, dict) else ""
    if kind not in set(Kind):
        return None
    detail, begun = str(body.get("detail", "")), body.get("begun") is True
    return ServiceError(Kind(kind), detail, retry_after_s=retry_after_s, begun=begun)


def refusal(url: str, status: int, headers: Mapping[str, str], content: bytes) -> ServiceError:
    """The error that a whole response tells of: ours, or what something on the way to us has to say."""
    after = headers.get("Retry-After", "")
    retry_after_s = float(after) if after.isascii() and after.isdigit() else None
    if (told := problem(parsed(content), retry_after_s)) is not None:
        return told
    detail = f"{url} answered {status}, and not as this service does."
    if status >= _SERVER_ERROR:
        # A balancer, say, that has no gateway behind it at the moment.
        return NoAnswerError(Kind.UNAVAILABLE, detail, retry_after_s=retry_after_s)
    return ServiceError(Kind.INTERNAL, detail)


def parsed(content: bytes | str) -> Any:
    """The value of this JSON; None where it is none."""
    try:
        return json.loads(content)
    except ValueError:
        return None
