"""Decodes a video's frames; runs in a decoder process."""

import json
from collections.abc import Iterator
from typing import Any

# PyAV and Pillow import these late, and a decoder process opens no file by then.
import av.subtitles.codeccontext
import av.subtitles.stream  # noqa: F401
from PIL import Image, TiffImagePlugin  # noqa: F401

from service.video import DamagedFrameError, FrameLimits, FrameTooLargeError, Video, VideoError, as_tiff
from service.worker.decoder_child import DAMAGED_FRAME, DecodeRejected

Image.preinit()


def decode(data: bytes, options: dict[str, Any]) -> Iterator[bytes]:
    """Yield `{"frames": number or null}` as JSON, then every frame's TIFF file, empty before `first`.

    Raises DecodeRejected `unsupported_video`, `payload_too_large`, and DAMAGED_FRAME.
    """
    limits = FrameLimits(options["max_pixels"], options["max_side"])
    try:
        with Video(data, limits) as video:
            yield json.dumps({"frames": video.frames}).encode()
            for index, picture in enumerate(video):
                yield as_tiff(picture) if index >= options["first"] else b""
    except FrameTooLargeError as error:
        raise DecodeRejected("payload_too_large", f"{error}.") from error
    except DamagedFrameError as error:
        raise DecodeRejected(DAMAGED_FRAME, f"{error}.") from error
    except VideoError as error:
        raise DecodeRejected("unsupported_video", f"{error}.") from error
