"""What is found of a session's objects on a frame, as a message."""

import math

import numpy as np

from service.errors import Kind, ServiceError
from service.pb.efficientsam3.v1 import segmentation_pb2 as segmentation_pb
from service.pb.efficientsam3.v1 import tracking_pb2 as pb
from service.worker import masks
from service.worker.objects import fill_holes
from service.worker.run import GoOn
from service.worker.scenes import Scene
from service.worker.tracker.follow import Found
from service.worker.tracker.frame import Step


def answer_of(
    frame: pb.Frame, scene: Scene, step: Step, options: pb.TrackOptions, max_bytes: int, go_on: GoOn
) -> pb.FrameAnswer:
    """The answer to a frame, without its timings.

    Raises `payload_too_large` for one of more than `max_bytes`, and what `go_on` raises.
    """
    image = segmentation_pb.ImageInfo(id=scene.id, width=scene.width, height=scene.height)
    answer = pb.FrameAnswer(frame=frame.frame, revision=frame.revision, image=image)
    size = 0
    for found in step.found:
        if found.track.trial is not None:
            continue
        go_on()
        shown = _shown(found, scene, options)
        if (prompt := step.prompts.get(found.track.id)) is not None:
            shown.prompt = prompt
        answer.objects.append(shown)
        size += shown.ByteSize()
        if size > max_bytes:
            detail = (
                f"The answer has more than {max_bytes:,} bytes, the limit: open the session with another "
                "options.mask_format, or follow fewer objects."
            )
            raise ServiceError(Kind.PAYLOAD_TOO_LARGE, detail)
    return answer


def _shown(found: Found, scene: Scene, options: pb.TrackOptions) -> pb.TrackedObject:
    track, score = found.track, 1 / (1 + math.exp(-max(found.object_score, -80.0)))
    shown = pb.TrackedObject(object=track.id, score=score, label=track.label)
    if found.visible:
        # A text's instances are without specks already; the reference fills no larger holes of theirs.
        logits = found.logits if track.label else fill_holes(found.logits)
        mask = masks.upscale(logits, scene.width, scene.height)
        shown.area = int(np.count_nonzero(mask))
        shown.visible = shown.area > 0
    if shown.visible:
        box = shown.box
        box.x0, box.y0, box.x1, box.y1 = masks.bounds_xyxy(mask)
        if options.mask_format != segmentation_pb.MASK_FORMAT_NONE:
            shown.mask.CopyFrom(masks.encode(mask, options.mask_format))
    if options.return_logits:
        shown.logits.CopyFrom(masks.logits_message(found.logits))
    return shown
