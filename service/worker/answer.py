"""A response as it grows: encoded segment by segment, bounded, and given up when nobody waits for it."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.errors import Kind, ServiceError
from service.pb.efficientsam3.v1 import segmentation_pb2 as pb
from service.worker import masks
from service.worker.image import Picture

# Raises when nobody waits for the answer any more; asked before each costly step.
GoOn = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Kept:
    """What one prompt found, in descending order of score."""

    # [n], 0..1
    scores: NDArray[np.float64]
    # [n, 4] xyxy in pixels of the original image, clipped to it
    boxes_xyxy: NDArray[np.float64]
    # [n, h, w] float32; None where nobody asked for masks
    logits: NDArray[np.float32] | None


class Answer:
    """The response to one request."""

    def __init__(
        self, variant: str, picture: Picture, options: pb.SegmentOptions, max_bytes: int, go_on: GoOn
    ) -> None:
        image = pb.ImageInfo(id=picture.id, width=picture.width, height=picture.height)
        self.response = pb.SegmentResponse(variant=variant, image=image)
        self._picture = picture
        self._options = options
        self._max_bytes = max_bytes
        self._bytes = 0
        self._go_on = go_on

    def add(self, prompt: int, label: str, kept: Kept) -> None:
        """Append one prompt's result. Raises `payload_too_large`, and what `go_on` raises."""
        result = self.response.results.add(prompt=prompt)
        for index, (score, box) in enumerate(zip(kept.scores, kept.boxes_xyxy, strict=True)):
            self._go_on()
            x0, y0, x1, y1 = box.tolist()
            corners = pb.Box(x0=x0, y0=y0, x1=x1, y1=y1)
            segment = result.segments.add(score=float(score), box=corners, label=label)
            if kept.logits is not None:
                self._encode(segment, kept.logits[index])
            self._bound(segment)

    def _encode(self, segment: pb.Segment, logits: NDArray[np.float32]) -> None:
        if self._options.mask_format != pb.MASK_FORMAT_NONE:
            mask = masks.upscale(logits, self._picture.width, self._picture.height)
            segment.area = int(np.count_nonzero(mask))
            segment.mask.CopyFrom(masks.encode(mask, self._options.mask_format))
        if self._options.return_logits:
            segment.logits.CopyFrom(masks.logits_message(logits))

    def _bound(self, segment: pb.Segment) -> None:
        self._bytes += segment.ByteSize()
        if self._bytes > self._max_bytes:
            raise ServiceError(
                Kind.PAYLOAD_TOO_LARGE,
                f"The answer has more than {self._max_bytes:,} bytes, the limit: ask for fewer segments "
                "(options.max_segments, score_threshold), fewer prompts, or another options.mask_format.",
            )
