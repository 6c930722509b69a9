"""A typed client of the HTTP API."""

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Any
from urllib.parse import quote

import httpx

from service.errors import Kind, ServiceError

# What `POST /v1/segment` takes as a prompt, e.g. {"text": "truck"}.
Prompt = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Segment:
    """One instance."""

    # 0..1.
    score: float
    # x0, y0, x1, y1 in pixels of the original image as displayed.
    box_xyxy: tuple[float, float, float, float]
    # Foreground pixels at the image's size; 0 when no mask was asked for.
    area_px: int
    # The prompt's text, or empty.
    label: str
    # As the API writes it, by its "format"; None when none was asked for.
    mask: Mapping[str, Any] | None
    # Low-resolution logits, which may be the `mask` of a later prompt; None when they were not asked for.
    logits: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server answered."""

    variant: str
    image_id: str
    # Pixels, as displayed.
    width_px: int
    height_px: int
    # One list per prompt, in the request's order; each in descending order of score.
    results: tuple[tuple[Segment, ...], ...]
    timings_ms: Mapping[str, float]
    # The answer's JSON as it came.
    raw: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class KeptImage:
    """An image that the server keeps: `id` stands for it in `Client.segment`."""

    id: str
    # Pixels, as displayed.
    width_px: int
    height_px: int
    # The variant that it was sent to.
    variant: str
    # Until when, unless the server's memory runs short; every use of the image moves it.
    kept_until: datetime


class Client:
    """A connection to one server. Use it as a context manager, or `close` it.

    Every method raises ServiceError with the server's kind; UNAVAILABLE where no server answers.
    """

    def __init__(self, base_url: str = "http://127.0.0.1:8080", *, timeout_s: float = 60.0) -> None:
        """`timeout_s` bounds one request, and is told to the server."""
        self._base_url = base_url.rstrip("/")
        self._timeout_s = timeout_s
        # The server answers at its deadline at the latest; a little later we stop waiting for it.
        self._http = httpx.Client(timeout=timeout_s + 5.0)

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def segment(
        self,
        image: bytes | str,
        prompts: Sequence[Prompt],
        *,
        variant: str = "",
        score_threshold: float | None = None,
        mask_format: str = "rle",
        max_segments: int | None = None,
        multimask: bool = False,
        return_logits: bool = False,
    ) -> Answer:
        """Find what `prompts` ask for in `image`: an encoded file's bytes, or a kept image's id.

        `variant` empty: the server's default. `score_threshold` is for concepts, None: the variant's; an
        object's goes into its prompt. `mask_format` is one of "rle", "png", "polygon" and "none".
        `multimask`: all the candidate masks of an object. `return_logits`: every segment's `logits`.
        """
        options = {
            "score_threshold": score_threshold,
            "mask_format": mask_format,
            "max_segments": max_segments,
            "multimask": multimask or None,
            "return_logits": return_logits or None,
        }
        request = {
            "variant": variant,
            "prompts": list(prompts),
            "options": {name: value for name, value in options.items() if value is not None},
        }
        if isinstance(image, str):
            return _answer(self._send("POST", "/v1/segment", json={**request, "image": {"id": image}}))
        return _answer(self._send("POST", "/v1/segment", files=_parts(image, request)))

    def encode_image(self, image: bytes, *, variant: str = "") -> KeptImage:
        """Have the server encode and keep `image`, an encoded file's bytes.

        `variant` empty: the server's default. Later requests should go to the same variant.
        """
        body = self._send("POST", "/v1/images", files=_parts(image, {"variant": variant}))
        kept = body["image"]
        until = datetime.fromisoformat(body["kept_until"])
        return KeptImage(kept["id"], kept["width"], kept["height"], body["variant"], until)

    def delete_image(self, id: str) -> None:
        """Have the server forget a kept image. Raises IMAGE_NOT_FOUND if it does not keep it."""
        self._send("DELETE", f"/v1/images/{quote(id, safe='')}")

    def variants(self) -> list[Mapping[str, Any]]:
        """The server's variants, as `GET /v1/variants` describes them."""
        return list(self._send("GET", "/v1/variants")["variants"])

    def _send(self, method: str, path: str, **content: Any) -> dict[str, Any]:
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


def _parts(image: bytes, request: Mapping[str, Any]) -> dict[str, tuple[str | None, bytes, str]]:
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


def _answer(body: dict[str, Any]) -> Answer:
    image = body["image"]
    return Answer(
        variant=body["variant"],
        image_id=image["id"],
        width_px=image["width"],
        height_px=image["height"],
        results=tuple(
            tuple(_segment(segment) for segment in result["segments"]) for result in body["results"]
        ),
        timings_ms=body["timings_ms"],
        raw=body,
    )


def _segment(body: dict[str, Any]) -> Segment:
    x0, y0, x1, y1 = body["box"]
    return Segment(
        body["score"], (x0, y0, x1, y1), body["area"], body["label"], body.get("mask"), body.get("logits")
    )
