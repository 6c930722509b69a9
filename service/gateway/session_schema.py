"""The JSON of tracking sessions, in and out. Field names are those of the proto."""

from datetime import datetime
from typing import Annotated, Self

from pydantic import BaseModel, Field, model_validator

from service.gateway.schema import (
    BoxArray,
    Entries,
    ImageIn,
    ImageOut,
    In,
    LogitsOut,
    MaskFormatName,
    MaskIn,
    MaskOut,
    PointIn,
    Score,
)
from service.prompts import MAX_CONFIRM_FRAMES, MAX_OBJECT_ID

ObjectId = Annotated[int, Field(ge=1, le=MAX_OBJECT_ID)]


class TrackOptionsIn(In):
    """How every frame of a session is answered."""

    mask_format: MaskFormatName = "rle"
    return_logits: bool = Field(default=False, description="Add every object's low-resolution logits")
    score_threshold: Score | None = Field(
        default=None, description="Of what texts find; default: the variant's"
    )
    new_object_threshold: Score | None = Field(
        default=None, description="Of what begins a new object later; default: 0.2 above score_threshold"
    )
    detect_every: Annotated[int, Field(ge=0, lt=2**32)] = Field(
        default=1, description="Texts are looked for on every so many frames"
    )
    confirm_frames: Annotated[int, Field(ge=0, le=MAX_CONFIRM_FRAMES)] = Field(
        default=0,
        description="A text's instance is answered once so many frames found it; 0 or 1: at once. One that "
        "more than half as many miss, or find to be an older object's, is forgotten",
    )
    memory_selection: bool | None = Field(
        default=None,
        description="An object is followed by the latest frames that show it, rather than by the latest; "
        "these differ once it was hidden. Default: so are a text's instances, and other objects are not",
    )


class OpenIn(In):
    """A session to open."""

    variant: str = Field(default="", description="Default: the server's")
    ttl_s: Annotated[int, Field(ge=1, lt=2**32)] | None = Field(
        default=None, description="Seconds that the session is kept after its last use"
    )
    frames_total: Annotated[int, Field(ge=1, lt=2**32)] | None = Field(
        default=None, description="Frames of the video, if they are known; unknown counts as 16 or more"
    )
    options: TrackOptionsIn = Field(default_factory=TrackOptionsIn)


class RemovalIn(In):
    """What is followed no more."""

    object: ObjectId | None = None
    text: str | None = Field(default=None, description="A text, with all its objects")

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if (self.object is None) == (self.text is None):
            raise ValueError("needs an object or a text, and not both")
        return self


class TrackPromptIn(In):
    """A text, all of whose instances are followed; or one object; or what is followed no more."""

    text: str | None = Field(default=None, description="A noun phrase. Alone")
    object: ObjectId | None = Field(
        default=None, description="An unknown id begins an object; without one the server gives a new id"
    )
    points: Entries[PointIn] = Field(default_factory=list)
    box: BoxArray | None = None
    mask: MaskIn | None = Field(default=None, description="Alone: the object is exactly this")
    remove: RemovalIn | None = None


class FrameFields(In):
    """The part `request` of a multipart frame: the JSON frame without its image."""

    frame: Annotated[int, Field(ge=0, lt=2**63)] = Field(description="The next index; the first is 0")
    revision: Annotated[int, Field(ge=0, lt=2**32)] = Field(
        default=0, description="One above the last: the last frame is corrected, its prompts are replaced"
    )
    prompts: Entries[TrackPromptIn] = Field(default_factory=list)
    follows: Annotated[int, Field(ge=0, lt=2**32)] | None = Field(
        default=None,
        description="Of the frame before: the revision of the answer that this frame is to go on from. Where "
        "it is another, the frame is refused; default: whichever it is",
    )


class FrameIn(FrameFields):
    """One frame and its prompts."""

    image: ImageIn | None = Field(
        default=None, description="May be left out of a correction while the image is known"
    )


class VideoPromptIn(TrackPromptIn):
    """A prompt of one of a video's frames."""

    frame: Annotated[int, Field(ge=0, lt=2**63)] = Field(default=0, description="Index of its frame")


class VideoIn(OpenIn):
    """The part `request` of a video: the session it is tracked in, and its prompts."""

    session: str = Field(default="", description="A session that the video began in, to go on with it")
    first: Annotated[int, Field(ge=0, lt=2**63)] = Field(
        default=0, description="Index of the first frame to answer: those before it have been answered"
    )
    prompts: Entries[VideoPromptIn] = Field(default_factory=list)


class SessionOut(BaseModel):
    """Where a session stands."""

    session: str
    variant: str
    next_frame: int
    revision: int = Field(description="Of the last frame: how often it was corrected")
    oldest_answer: int = Field(description="Frames from here on are answered again when they are sent again")
    expires_at: datetime = Field(description="UTC. Every frame moves it")
    objects: list[int] = Field(description="Ids of the objects that are followed and confirmed")
    memory_bytes: int = Field(description="Of what is kept of them")


class TrackedOut(BaseModel):
    """One object on a frame."""

    object: int
    label: str = Field(description="The text that found it, or empty")
    score: Score = Field(description="How sure it is that the object is in the picture, 0..1")
    visible: bool = Field(description="False: it is hidden, or has left")
    box: BoxArray | None = Field(default=None, description="Its mask's")
    area: int
    mask: MaskOut | None = None
    logits: LogitsOut | None = None
    prompt: int | None = Field(default=None, description="Index of the prompt that showed it on this frame")


class FrameOut(BaseModel):
    """The answer to a frame."""

    frame: int
    revision: int
    image: ImageOut
    objects: list[TrackedOut] = Field(
        description="Every object that is followed and confirmed, in the order of their ids"
    )
    memory_bytes: int = Field(description="Of what is kept of the session's objects after this frame")
    timings_ms: dict[str, float] = Field(description="Milliseconds by stage")
