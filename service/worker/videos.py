"""Whole videos on a worker: a file's frames, each the image of a session's frame.

A decoder process reads the file; the worker itself never gives it to FFmpeg.
"""

import json
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager

from service.config import MIB, WorkerSettings
from service.errors import Kind, ServiceError
from service.pb.efficientsam3.v1 import segmentation_pb2 as segmentation_pb
from service.pb.efficientsam3.v1 import tracking_pb2 as pb
from service.worker.decoder_child import DAMAGED_FRAME
from service.worker.decoder_process import (
    DecodeRejected,
    DecoderError,
    DecoderLimits,
    DecoderProcesses,
    DecoderStartError,
    Results,
)

_DECODE = "service.worker.video_decoder:decode"
# Bytes of a pixel in a frame's TIFF file, and of everything else in it.
_PIXEL_BYTES, _TIFF_BYTES = 3, MIB
# The kinds that this function rejects a video with.
_REJECTIONS = (Kind.UNSUPPORTED_VIDEO, Kind.PAYLOAD_TOO_LARGE)
_RETRY_S = 1.0
# What `frames_total` can hold; a header may state any number.
_MOST_FRAMES = 2**32 - 1


class Video:
    """A video whose frames a decoder process decodes, one ahead of their use. It is read once."""

    def __init__(
        self, results: Results, frames: int | None, first: bytes | DecodeRejected, settings: WorkerSettings
    ) -> None:
        """`first` is the first frame's result, or says that this frame is damaged."""
        self._results, self._first, self._settings = results, first, settings
        # How many the file says that it has.
        self.frames = frames

    async def frames_of(self, request: pb.TrackVideoRequest) -> AsyncGenerator[pb.Frame, None]:
        """Yield the request's frames from `first` on.

        Raises ServiceError: `unsupported_video` or `payload_too_large` for a frame that cannot be decoded,
        `invalid_argument` after the last frame for prompts of frames that the video does not have.
        """
        asked = defaultdict(list)
        for prompt in request.prompts:
            asked[prompt.frame].append(prompt.prompt)
        with _service_errors(self._settings):
            if isinstance(self._first, DecodeRejected):
                raise self._first
        data: bytes | None = self._first
        count = 0
        while data is not None:
            if data:
                image = segmentation_pb.Image(data=data)
                yield pb.Frame(frame=count, image=image, prompts=asked[count])
            count += 1
            with _service_errors(self._settings):
                data = await anext(self._results, None)
        for index, prompt in enumerate(request.prompts):
            if prompt.frame >= count:
                detail = (
                    f"prompts[{index}].frame is {prompt.frame}; the video has {count:,} frames, from 0 on."
                )
                raise ServiceError(Kind.INVALID_ARGUMENT, detail)


@asynccontextmanager
async def open_video(
    processes: DecoderProcesses, request: pb.TrackVideoRequest, settings: WorkerSettings, owner: str
) -> AsyncIterator[Video]:
    """Decode the request's video in a process that ends with the block, at once.

    Raises ServiceError `unsupported_video` and `payload_too_large` for a file that cannot be read or has no
    frame, and `unavailable` where no process starts.
    """
    options = {
        "first": request.first,
        "max_pixels": settings.max_image_pixels,
        "max_side": settings.max_image_side,
    }
    limits = DecoderLimits(
        memory_bytes=settings.video_decoder_memory_bytes,
        cpu_s=settings.video_decoder_cpu_s,
        timeout_s=settings.video_decoder_timeout_s,
        max_result_bytes=_PIXEL_BYTES * settings.max_image_pixels + _TIFF_BYTES,
    )
    async with AsyncExitStack() as stack:
        with _service_errors(settings):
            decoding = processes.decode(_DECODE, request.video, options, limits, owner)
            results = await stack.enter_async_context(decoding)
            frames = _frames(await anext(results))
            first = await _first(results)
        if first is None:
            raise ServiceError(Kind.UNSUPPORTED_VIDEO, "video has no frame that can be decoded.")
        yield Video(results, frames, first, settings)


async def _first(results: Results) -> bytes | DecodeRejected | None:
    """Return the first frame; a damaged one ends the video like any other, after the session is opened."""
    try:
        return await anext(results, None)
    except DecodeRejected as rejected:
        if rejected.kind != DAMAGED_FRAME:
            raise
        return rejected


def _frames(facts: bytes) -> int | None:
    """Return the number of frames that the file's header states, if it is possible."""
    frames = json.loads(facts)["frames"]
    return frames if isinstance(frames, int) and 0 < frames <= _MOST_FRAMES else None


@contextmanager
def _service_errors(settings: WorkerSettings) -> Iterator[None]:
    """Turn what a decoder process raises into ServiceErrors."""
    try:
        yield
    except DecodeRejected as error:
        kind = next((kind for kind in _REJECTIONS if kind == error.kind), Kind.UNSUPPORTED_VIDEO)
        raise ServiceError(kind, error.detail) from error
    except DecoderError as error:
        raise ServiceError(Kind.UNSUPPORTED_VIDEO, _failures(settings)[error.reason]) from error
    except DecoderStartError as error:
        detail = "The worker could not start a decoder for the video."
        raise ServiceError(Kind.UNAVAILABLE, detail, retry_after_s=_RETRY_S) from error


def _failures(settings: WorkerSettings) -> dict[str, str]:
    """Return what a client reads by the reason of a DecoderError."""
    memory = f"{settings.video_decoder_memory_bytes:,} bytes of memory"
    cpu_s = f"{settings.video_decoder_cpu_s:,} s of processor time"
    timeout_s = f"{settings.video_decoder_timeout_s:,g} s"
    return {
        "memory": f"video takes more to decode than the limit of {memory}: send smaller frames.",
        "cpu": f"video takes more for a frame than the limit of {cpu_s}: send smaller frames.",
        "time": f"video takes longer for a frame than the limit of {timeout_s}: send smaller frames.",
        "crashed": "video made its decoder fail: it may be damaged.",
    }
