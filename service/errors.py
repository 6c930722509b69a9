"""The failures a client may see, and the one table that gives each its HTTP status and gRPC code."""

from dataclasses import dataclass
from enum import StrEnum

import grpc


class Kind(StrEnum):
    """What went wrong, in one word. Part of the public API: `type` in HTTP, `reason` in gRPC."""

    INVALID_ARGUMENT = "invalid_argument"
    UNSUPPORTED_PROMPT = "unsupported_prompt"
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    VARIANT_NOT_FOUND = "variant_not_found"
    SESSION_NOT_FOUND = "session_not_found"
    IMAGE_NOT_FOUND = "image_not_found"
    FRAME_CONFLICT = "frame_conflict"
    FRAME_GAP = "frame_gap"
    IMAGE_REQUIRED = "image_required"
    ARTEFACT_MISMATCH = "artefact_mismatch"
    SESSION_ROLLED_BACK = "session_rolled_back"
    SESSION_EXPIRED = "session_expired"
    SESSION_CORRUPT = "session_corrupt"
    PAYLOAD_TOO_LARGE = "payload_too_large"
    UNSUPPORTED_IMAGE = "unsupported_image"
    UNSUPPORTED_VIDEO = "unsupported_video"
    QUOTA_EXCEEDED = "quota_exceeded"
    OVERLOADED = "overloaded"
    INTERNAL = "internal"
    UNAVAILABLE = "unavailable"
    STORE_UNAVAILABLE = "store_unavailable"
    DEADLINE_EXCEEDED = "deadline_exceeded"


@dataclass(frozen=True, slots=True)
class Row:
    """How one kind is told over HTTP and over gRPC."""

    http_status: int
    grpc_code: grpc.StatusCode
    title: str
    # The same request may succeed later.
    retryable: bool = False


_CODE = grpc.StatusCode

TABLE: dict[Kind, Row] = {
    Kind.INVALID_ARGUMENT: Row(400, _CODE.INVALID_ARGUMENT, "The request is not valid"),
    Kind.UNSUPPORTED_PROMPT: Row(400, _CODE.INVALID_ARGUMENT, "The variant cannot serve this kind of prompt"),
    Kind.UNAUTHENTICATED: Row(401, _CODE.UNAUTHENTICATED, "A key is required"),
    Kind.FORBIDDEN: Row(403, _CODE.PERMISSION_DENIED, "This is not allowed"),
    Kind.NOT_FOUND: Row(404, _CODE.NOT_FOUND, "There is nothing at this address"),
    Kind.METHOD_NOT_ALLOWED: Row(405, _CODE.UNIMPLEMENTED, "This address does not take that method"),
    Kind.VARIANT_NOT_FOUND: Row(404, _CODE.NOT_FOUND, "There is no such variant"),
    Kind.SESSION_NOT_FOUND: Row(404, _CODE.NOT_FOUND, "There is no such session"),
    Kind.IMAGE_NOT_FOUND: Row(404, _CODE.NOT_FOUND, "The image is not kept here: send it again"),
    Kind.FRAME_CONFLICT: Row(409, _CODE.ABORTED, "This frame was answered for another request"),
    Kind.FRAME_GAP: Row(409, _CODE.FAILED_PRECONDITION, "A frame is missing before this one"),
    Kind.IMAGE_REQUIRED: Row(409, _CODE.FAILED_PRECONDITION, "The frame's image must be sent again"),
    Kind.ARTEFACT_MISMATCH: Row(409, _CODE.FAILED_PRECONDITION, "The session belongs to another artefact"),
    Kind.SESSION_ROLLED_BACK: Row(409, _CODE.ABORTED, "The store lost the session's last frames"),
    Kind.SESSION_EXPIRED: Row(410, _CODE.NOT_FOUND, "The session has expired"),
    Kind.SESSION_CORRUPT: Row(410, _CODE.DATA_LOSS, "The session's stored state is damaged"),
    Kind.PAYLOAD_TOO_LARGE: Row(413, _CODE.INVALID_ARGUMENT, "The request is too large"),
    Kind.UNSUPPORTED_IMAGE: Row(415, _CODE.INVALID_ARGUMENT, "The image cannot be read"),
    Kind.UNSUPPORTED_VIDEO: Row(415, _CODE.INVALID_ARGUMENT, "The video cannot be read"),
    Kind.QUOTA_EXCEEDED: Row(429, _CODE.RESOURCE_EXHAUSTED, "The key's quota is used up", retryable=True),
    Kind.OVERLOADED: Row(429, _CODE.RESOURCE_EXHAUSTED, "The variant is busy", retryable=True),
    Kind.INTERNAL: Row(500, _CODE.INTERNAL, "Something went wrong on our side"),
    Kind.UNAVAILABLE: Row(503, _CODE.UNAVAILABLE, "No worker could answer", retryable=True),
    Kind.STORE_UNAVAILABLE: Row(503, _CODE.UNAVAILABLE, "The store is out of reach", retryable=True),
    Kind.DEADLINE_EXCEEDED: Row(504, _CODE.DEADLINE_EXCEEDED, "The deadline passed before the answer"),
}

# What a client is told of an unexpected failure; the rest stands in the log under the request's id.
INTERNAL_DETAIL = "An unexpected error occurred. It has been logged under this request's id."


class ServiceError(Exception):
    """An expected failure: a kind from the table and a sentence for the person who sent the request.

    `detail` names the field and the limit where there is one. `retry_after_s` is sent as `Retry-After`.
    `begun`: a worker may have begun the request when it went away, so that the request may be the cause.
    """

    def __init__(
        self, kind: Kind, detail: str, *, retry_after_s: float | None = None, begun: bool = False
    ) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        self.retry_after_s = retry_after_s
        self.begun = begun

    @property
    def row(self) -> Row:
        return TABLE[self.kind]


class SlowReaderError(ServiceError):
    """The client of a stream does not read the answers."""

    def __init__(self, timeout_s: float) -> None:
        detail = (
            f"The answers were not read within {timeout_s:.0f} s. Sessions stay: go on with the next frame."
        )
        super().__init__(Kind.DEADLINE_EXCEEDED, detail)
