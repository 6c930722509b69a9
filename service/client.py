"""A typed client of the HTTP API."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Any
from urllib.parse import quote

from service.client_http import Http, parts
from service.client_sessions import Session

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
        self._http = Http(base_url, timeout_s)
        self._timeout_s = timeout_s

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
            return _answer(self._http.send("POST", "/v1/segment", json={**request, "image": {"id": image}}))
        return _answer(self._http.send("POST", "/v1/segment", files=parts(image, request)))

    def encode_image(self, image: bytes, *, variant: str = "") -> KeptImage:
        """Have the server encode and keep `image`, an encoded file's bytes.

        `variant` empty: the server's default. Later requests should go to the same variant.
        """
        body = self._http.send("POST", "/v1/images", files=parts(image, {"variant": variant}))
        kept = body["image"]
        until = datetime.fromisoformat(body["kept_until"])
        return KeptImage(kept["id"], kept["width"], kept["height"], body["variant"], until)

    def delete_image(self, id: str) -> None:
        """Have the server forget a kept image. Raises IMAGE_NOT_FOUND if it does not keep it."""
        self._http.send("DELETE", f"/v1/images/{quote(id, safe='')}")

    def open_session(
        self,
        *,
        variant: str = "",
        ttl_s: int | None = None,
        frames_total: int | None = None,
        mask_format: str = "rle",
        options: Mapping[str, Any] | None = None,
    ) -> Session:
        """Open a tracking session.

        `variant` empty: the server's default. `ttl_s`: seconds that it is kept after its last use.
        `frames_total`: of the video, where it is known. `options`: what else the API has under that name,
        such as {"confirm_frames": 3}.
        """
        given = {"ttl_s": ttl_s, "frames_total": frames_total}
        request = {
            "variant": variant,
            "options": {"mask_format": mask_format, **(options or {})},
            **{name: value for name, value in given.items() if value is not None},
        }
        return Session(self._http, self._http.send("POST", "/v1/sessions", json=request), self._timeout_s)

    def session(self, id: str) -> Session:
        """A session that was opened before, to go on with."""
        state = self._http.send("GET", f"/v1/sessions/{quote(id, safe='')}")
        return Session(self._http, state, self._timeout_s)

    def variants(self) -> list[Mapping[str, Any]]:
        """The server's variants, as `GET /v1/variants` describes them."""
        return list(self._http.send("GET", "/v1/variants")["variants"])


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
