"""What every way to a server offers: the API in its JSON, whether it goes over HTTP or gRPC."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from service.errors import Kind, ServiceError

# An object of the API's JSON, as docs/api.md has it.
Json = dict[str, Any]

# The server answers at its deadline at the latest; this much later we stop waiting for it.
GRACE_S = 5.0


@dataclass(frozen=True, slots=True)
class Server:
    """Where a server is, and how it is talked to."""

    # http://, https://, grpc:// or grpcs://, host and port.
    address: str
    # Bounds one try of one request, and is told to the server.
    timeout_s: float
    # Shown to the server alone.
    key: str = field(repr=False)
    # A PEM file of the authorities that are believed; None: the usual ones.
    ca: Path | None

    @property
    def bearer(self) -> str:
        """What `authorization` says; empty without a key."""
        return f"Bearer {self.key}" if self.key else ""


class NoAnswerError(ServiceError):
    """No answer came: whether the request was carried out is not known."""


def nobody(address: str, reason: object, *, begun: bool = False) -> NoAnswerError:
    """The error where no server answers. `begun`: the connection broke after the request was sent."""
    return NoAnswerError(Kind.UNAVAILABLE, f"No server answers at {address}: {reason}", begun=begun)


def too_late(address: str, timeout_s: float) -> NoAnswerError:
    """The error where a server has not answered in time."""
    return NoAnswerError(Kind.DEADLINE_EXCEEDED, f"{address} did not answer within {timeout_s:g} s.")


class Connection(Protocol):
    """A stream of one session's frames. All of it raises ServiceError, and is of no use after that."""

    async def send(self, request: Json, image: bytes) -> None:
        """Send a frame: the JSON of `POST /v1/sessions/{id}/frames`, and an encoded file."""

    async def receive(self) -> Json:
        """The next answer. Answers keep the frames' order."""

    async def close(self) -> None:
        """Hang up; what was sent and not answered yet may be computed or not."""


class Transport(Protocol):
    """One server. All of it raises ServiceError with the server's kind; `NoAnswerError` where no answer came.

    Requests and answers are the JSON of docs/api.md; images and videos are encoded files' bytes beside it.
    """

    async def segment(self, image: bytes | str, request: Json) -> Json:
        """`image`: a file's bytes, or a kept image's id."""

    async def encode_image(self, image: bytes, variant: str) -> Json: ...

    async def delete_image(self, id: str) -> None: ...

    async def variants(self) -> list[Json]: ...

    async def open_session(self, request: Json) -> Json: ...

    async def get_session(self, id: str) -> Json: ...

    async def fork_session(self, id: str) -> Json: ...

    async def delete_session(self, id: str) -> None: ...

    async def add_frame(self, session: str, request: Json, image: bytes | None) -> Json: ...

    async def connect(self, session: str) -> Connection: ...

    def track_video(self, video: bytes, request: Json) -> AsyncGenerator[Json, None]:
        """`{"session": ...}`, then every frame's answer as it is done. Close it where it is left early."""

    async def close(self) -> None: ...
