"""The client for programs with an event loop."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from service.client.answers import Answer, KeptImage, answer_of, kept_image_of
from service.client.over_grpc import OverGrpc
from service.client.over_http import OverHttp
from service.client.patience import FRAME_TRIES, patiently, patiently_for_frame, until_gone, was_refused
from service.client.sessions import AsyncSession
from service.client.transport import Json, Server, Transport
from service.client.videos import AsyncVideo, VideoPrompt, begun
from service.errors import Kind, ServiceError

# What `POST /v1/segment` takes as a prompt, e.g. {"text": "truck"}.
Prompt = Mapping[str, Any]


class AsyncClient:
    """A client of one server, over HTTP or gRPC, in one event loop.

    Use it as a context manager, or `close` it.

    Every method raises ServiceError with the server's kind; UNAVAILABLE where no server answers. What may
    pass is tried again, no sooner than the server asks for. Where no answer came to what makes something new
    (a session, a fork, a video's), that is not: it may have been made. A request that a worker did not
    outlive is tried three times at most, since it may be the cause. Where a deadline passed, frames alone are
    tried again.
    """

    def __init__(
        self,
        address: str = "http://127.0.0.1:8080",
        *,
        timeout_s: float = 60.0,
        patience_s: float | None = None,
        key: str = "",
        ca: Path | None = None,
    ) -> None:
        """`address`: http:// or https:// with the HTTP port, grpc:// or grpcs:// with the gRPC port.

        `timeout_s` bounds one try of one request, and is told to the server; in a stream, or a video, it
        bounds the wait for one frame. `patience_s`: for so long what may pass is tried again, 0: never;
        None: for `timeout_s`, and frames for twice that, so that a late one is tried once more.
        `key`: where the server asks for one. `ca`: a PEM file of the authorities to
        believe, instead of the usual ones. Raises INVALID_ARGUMENT for another address.
        """
        self._transport = _transport(Server(address, timeout_s, key, ca))
        self._patience_s = timeout_s if patience_s is None else patience_s
        self._frame_patience_s = FRAME_TRIES * timeout_s if patience_s is None else patience_s

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Hang up."""
        await self._transport.close()

    async def segment(
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
        request = {"variant": variant, "prompts": list(prompts), "options": _given(options)}
        answer = await patiently(lambda: self._transport.segment(image, request), self._patience_s)
        return answer_of(answer)

    async def encode_image(self, image: bytes, *, variant: str = "") -> KeptImage:
        """Have the server encode and keep `image`, an encoded file's bytes.

        `variant` empty: the server's default. Later requests should go to the same variant.
        """
        encode = self._transport.encode_image
        return kept_image_of(await patiently(lambda: encode(image, variant), self._patience_s))

    async def delete_image(self, id: str) -> None:
        """Have the server forget a kept image. Raises IMAGE_NOT_FOUND if it does not keep it."""
        delete = self._transport.delete_image
        await until_gone(lambda: delete(id), self._patience_s, Kind.IMAGE_NOT_FOUND)

    async def open_session(
        self,
        *,
        variant: str = "",
        ttl_s: int | None = None,
        frames_total: int | None = None,
        mask_format: str = "rle",
        options: Mapping[str, Any] | None = None,
    ) -> AsyncSession:
        """Open a tracking session.

        `variant` empty: the server's default. `ttl_s`: seconds that it is kept after its last use.
        `frames_total`: of the video, where it is known. `options`: what else the API has under that name,
        such as {"confirm_frames": 3}.
        """
        request = _opening(variant, ttl_s, frames_total, mask_format, options)
        open_ = self._transport.open_session
        state = await patiently(lambda: open_(request), self._patience_s, was_refused)
        return AsyncSession(self._transport, state, self._frame_patience_s)

    async def session(self, id: str) -> AsyncSession:
        """A session that was opened before, to go on with."""
        get = self._transport.get_session
        state = await patiently_for_frame(lambda: get(id), self._frame_patience_s)
        return AsyncSession(self._transport, state, self._frame_patience_s)

    async def track_video(
        self,
        video: bytes,
        prompts: Sequence[VideoPrompt] = (),
        *,
        session: str = "",
        first: int | None = None,
        variant: str = "",
        ttl_s: int | None = None,
        mask_format: str = "rle",
        options: Mapping[str, Any] | None = None,
    ) -> AsyncVideo:
        """Follow objects through a video file's bytes, MP4 or another that FFmpeg reads.

        Each prompt has the index of its "frame", or is of the first. `session`: id of the one that this
        video began in, to go on with it from the index `first` on; else one is opened with what else is
        given, as by `open_session`. Without `first` it goes on where the server stands, which is
        ahead of whoever left: of its answers the last mebibyte is kept, and given again.
        """
        known = await self.session(session) if session else None
        if known and first is not None:
            known.next_frame = first
        opening = _opening(variant, ttl_s, None, mask_format, options)
        return await begun(self._transport, video, prompts, opening, known, self._frame_patience_s)

    async def variants(self) -> list[Mapping[str, Any]]:
        """The server's variants, as `GET /v1/variants` describes them."""
        return list(await patiently(self._transport.variants, self._patience_s))


def _transport(server: Server) -> Transport:
    match server.address.partition("://")[0]:
        case "http" | "https":
            return OverHttp(server)
        case "grpc" | "grpcs":
            return OverGrpc(server)
    detail = (
        f"{server.address!r} is no server's address: it begins with http://, https://, grpc:// or grpcs://."
    )
    raise ServiceError(Kind.INVALID_ARGUMENT, detail)


def _opening(
    variant: str,
    ttl_s: int | None,
    frames_total: int | None,
    mask_format: str,
    options: Mapping[str, Any] | None,
) -> Json:
    given = {"ttl_s": ttl_s, "frames_total": frames_total}
    return {"variant": variant, "options": {"mask_format": mask_format, **(options or {})}, **_given(given)}


def _given(values: Mapping[str, Any]) -> Json:
    return {name: value for name, value in values.items() if value is not None}
