"""A response as it grows: encoded segment by segment, bounded, and given up when nobody waits for it."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.errors import Kind, ServiceError
from service.pb.efficientsam3.v1 import segmentation_pb2 as pb
from service.worker import masks
from service.worker.run import GoOn
from service.worker.scenes import Scene

Logits = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Kept:
    """What one prompt found, in descending order of score."""

    # [n], 0..1
    scores: NDArray[np.float64]
    # [n, 4] xyxy in pixels of the original image, clipped to it; None: each is its mask's.
    boxes_xyxy: NDArray[np.float64] | None
    # [n, h, w] float32; None where nobody asked for masks
    logits: Logits | None
    # (h, w) logits as they are made a mask of, and as they are given back.
    mended: Callable[[Logits], Logits] = lambda logits: logits
    returned: Callable[[Logits], Logits] = lambda logits: logits


class Answer:
    """The response to one request."""

    def __init__(
        self, variant: str, scene: Scene, options: pb.SegmentOptions, max_bytes: int, go_on: GoOn
    ) -> None:
        image = pb.ImageInfo(id=scene.id, width=scene.width, height=scene.height)
        self.response = pb.SegmentResponse(variant=variant, image=image)
        self._size = scene.width, scene.height
        self._options = options
        self._max_bytes = max_bytes
        self._bytes = 0
        self._go_on = go_on

    def add(self, prompt: int, label: str, kept: Kept) -> None:
        """Append one prompt's result. Raises `payload_too_large`, and what `go_on` raises."""
        result = self.response.results.add(prompt=prompt)
        for index, score in enumerate(kept.scores):
            self._go_on()
            segment = result.segments.add(score=float(score), label=label)
            if kept.boxes_xyxy is not None:
                _set_box(segment.box, *kept.boxes_xyxy[index].tolist())
            if kept.logits is not None:
                self._encode(segment, kept, kept.logits[index])
            self._bound(segment)

    def _encode(self, segment: pb.Segment, kept: Kept, logits: Logits) -> None:
        wanted = self._options.mask_format != pb.MASK_FORMAT_NONE
        if wanted or kept.boxes_xyxy is None:
            mask = masks.upscale(kept.mended(logits), *self._size)
            if kept.boxes_xyxy is None:
                _set_box(segment.box, *masks.bounds_xyxy(mask))
            if wanted:
                segment.area = int(np.count_nonzero(mask))
                segment.mask.CopyFrom(masks.encode(mask, self._options.mask_format))
        if self._options.return_logits:
            segment.logits.CopyFrom(masks.logits_message(kept.returned(logits)))

    def _bound(self, segment: pb.Segment) -> None:
        self._bytes += segment.ByteSize()
        if self._bytes > self._max_bytes:
            raise ServiceError(
                Kind.PAYLOAD_TOO_LARGE,
                f"The answer has more than {self._max_bytes:,} bytes, the limit: ask for fewer segments "
                "(options.max_segments, score_threshold), fewer prompts, or another options.mask_format.",
            )


def _set_box(box: pb.Box, x0: float, y0: float, x1: float, y1: float) -> None:
    box.x0, box.y0, box.x1, box.y1 = x0, y0, x1, y1
