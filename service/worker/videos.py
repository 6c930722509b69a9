"""Whole videos on a worker: a file's frames, each the image of a session's frame."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator

from service.config import Limits
from service.errors import Kind, ServiceError
from service.pb.efficientsam3.v1 import segmentation_pb2 as segmentation_pb
from service.pb.efficientsam3.v1 import tracking_pb2 as pb
from service.video import Video, VideoError, as_tiff


def open_video(data: bytes, limits: Limits) -> Video:
    """The video of these bytes, not yet decoded. Raises `unsupported_image`, `payload_too_large`."""
    try:
        video = Video(data)
    except VideoError as error:
        raise ServiceError(Kind.UNSUPPORTED_IMAGE, f"{error}.") from error
    width, height = video.size
    if width * height > limits.max_image_pixels or max(width, height) > limits.max_image_side:
        video.close()
        detail = (
            f"video has frames of {width:,} x {height:,} pixels; the limits are {limits.max_image_pixels:,} "
            f"in all and {limits.max_image_side:,} for a side."
        )
        raise ServiceError(Kind.PAYLOAD_TOO_LARGE, detail)
    return video


async def frames_of(video: Video, request: pb.TrackVideoRequest) -> AsyncIterator[pb.Frame]:
    """The request's frames from `first` on. While one is used the next is decoded.

    Raises ServiceError: `unsupported_image` where the file is damaged, `invalid_argument` at its end for
    prompts of frames that it does not have.
    """
    asked = defaultdict(list)
    for prompt in request.prompts:
        asked[prompt.frame].append(prompt.prompt)
    images = _images(video, request.first)
    coming, count = _next(images), 0
    try:
        while (data := await coming) is not None:
            coming = _next(images)
            if data:
                image = segmentation_pb.Image(data=data)
                yield pb.Frame(frame=count, image=image, prompts=asked[count])
            count += 1
    finally:
        await asyncio.gather(coming, return_exceptions=True)
    for index, prompt in enumerate(request.prompts):
        if prompt.frame >= count:
            detail = f"prompts[{index}].frame is {prompt.frame}; the video has {count:,} frames, from 0 on."
            raise ServiceError(Kind.INVALID_ARGUMENT, detail)


def _next(images: Iterator[bytes]) -> "asyncio.Future[bytes | None]":
    return asyncio.ensure_future(asyncio.to_thread(next, images, None))


def _images(video: Video, first: int) -> Iterator[bytes]:
    """Every frame's file; nothing for those before `first`."""
    try:
        for index, picture in enumerate(video):
            yield as_tiff(picture) if index >= first else b""
    except VideoError as error:
        raise ServiceError(Kind.UNSUPPORTED_IMAGE, f"{error}.") from error
