"""JSON <-> proto of tracking sessions."""

from datetime import datetime

from service.gateway.session_schema import (
    FrameFields,
    FrameOut,
    OpenIn,
    RemovalIn,
    SessionOut,
    TrackedOut,
    TrackPromptIn,
    VideoIn,
)
from service.gateway.translate import (
    MASK_FORMATS,
    box_of,
    image_out,
    logits_out,
    mask_of,
    mask_out,
    points_of,
)
from service.pb.efficientsam3.v1 import segmentation_pb2 as segmentation_pb
from service.pb.efficientsam3.v1 import tracking_pb2 as pb


def open_request(body: OpenIn) -> pb.OpenSessionRequest:
    """The proto request of a JSON request."""
    return pb.OpenSessionRequest(
        variant=body.variant,
        ttl_s=body.ttl_s or 0,
        frames_total=body.frames_total,
        options=pb.TrackOptions(
            mask_format=MASK_FORMATS[body.options.mask_format],
            return_logits=body.options.return_logits,
            score_threshold=body.options.score_threshold,
            new_object_threshold=body.options.new_object_threshold,
            detect_every=body.options.detect_every,
            confirm_frames=body.options.confirm_frames,
            memory_selection=body.options.memory_selection,
        ),
    )


def frame_of(body: FrameFields, image: segmentation_pb.Image | None) -> pb.Frame:
    """The proto frame of a JSON frame and its image."""
    prompts = [_prompt(prompt) for prompt in body.prompts]
    return pb.Frame(
        frame=body.frame, revision=body.revision, follows=body.follows, image=image, prompts=prompts
    )


def video_request(body: VideoIn, video: bytes) -> pb.TrackVideoRequest:
    """The proto request of a video's JSON and its file."""
    opening = pb.OpenSessionRequest(session=body.session) if body.session else open_request(body)
    if body.session and body.variant:
        # To be refused with the words that every way in has for it.
        opening.variant = body.variant
    prompts = [pb.VideoPrompt(frame=each.frame, prompt=_prompt(each)) for each in body.prompts]
    return pb.TrackVideoRequest(open=opening, video=video, prompts=prompts, first=body.first)


def session_answer(session: pb.Session) -> SessionOut:
    """The JSON of a session."""
    return SessionOut(
        session=session.session,
        variant=session.variant,
        next_frame=session.next_frame,
        revision=session.revision,
        oldest_answer=session.oldest_answer,
        expires_at=datetime.fromisoformat(session.expires_at),
        objects=list(session.objects),
        memory_bytes=session.memory_bytes,
    )


def frame_answer(answer: pb.FrameAnswer) -> FrameOut:
    """The JSON of a frame's answer."""
    return FrameOut(
        frame=answer.frame,
        revision=answer.revision,
        image=image_out(answer.image),
        objects=[_tracked(each) for each in answer.objects],
        memory_bytes=answer.memory_bytes,
        timings_ms=dict(answer.timings_ms),
    )


def _prompt(prompt: TrackPromptIn) -> pb.TrackPrompt:
    return pb.TrackPrompt(
        object=prompt.object,
        points=points_of(prompt.points),
        box=box_of(prompt.box),
        mask=mask_of(prompt.mask) if prompt.mask else None,
        remove=_removal(prompt.remove) if prompt.remove else None,
        text=prompt.text or "",
    )


def _removal(removal: RemovalIn) -> pb.Removal:
    if removal.text is not None:
        return pb.Removal(text=removal.text)
    assert removal.object is not None, "its model allows no third"
    return pb.Removal(object=removal.object)


def _tracked(each: pb.TrackedObject) -> TrackedOut:
    box = each.box
    return TrackedOut(
        object=each.object,
        label=each.label,
        score=each.score,
        visible=each.visible,
        box=(box.x0, box.y0, box.x1, box.y1) if each.HasField("box") else None,
        area=each.area,
        mask=mask_out(each.mask) if each.HasField("mask") else None,
        logits=logits_out(each.logits) if each.HasField("logits") else None,
        prompt=each.prompt if each.HasField("prompt") else None,
    )
