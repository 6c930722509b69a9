"""The JSON of the HTTP API, in and out, as pydantic models. Field names are those of the proto."""

import base64
import binascii
from datetime import datetime
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    FailFast,
    Field,
    WithJsonSchema,
    model_validator,
)

from service.config import MAX_ENTRIES
from service.prompts import IMAGE_ID

_T = TypeVar("_T")


def _decoded(value: Any) -> bytes:
    if not isinstance(value, str):
        raise ValueError("must be a base64 string")
    try:
        return binascii.a2b_base64(value.encode("ascii"), strict_mode=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise ValueError("is not valid base64 (RFC 4648, padded, without line breaks)") from error


def encoded(data: bytes) -> str:
    """Base64 of `data`, as the API writes it."""
    return base64.b64encode(data).decode("ascii")


Coordinate = Annotated[float, Field(description="Pixels of the original image, origin top left")]
Score = Annotated[float, Field(description="0..1")]
Positive = Annotated[bool, Field(description="True: of the object or concept. False: not of it")]
BoxArray = Annotated[
    tuple[Coordinate, Coordinate, Coordinate, Coordinate],
    Field(description="[x0, y0, x1, y1] in pixels of the original image: top left and bottom right corner"),
]
Size = Annotated[
    tuple[Annotated[int, Field(ge=0, lt=2**32)], Annotated[int, Field(ge=0, lt=2**32)]],
    Field(description="[height, width] in pixels"),
]
Base64In = Annotated[
    bytes, BeforeValidator(_decoded), WithJsonSchema({"type": "string", "contentEncoding": "base64"})
]
Base64Out = Annotated[str, WithJsonSchema({"type": "string", "contentEncoding": "base64"})]
MaskFormatName = Literal["rle", "png", "polygon", "none"]
# Neither what comes in nor what is wrong with it is gathered without bound.
Entries = Annotated[list[_T], Field(max_length=MAX_ENTRIES), FailFast()]


_RING_XY = "x0, y0, x1, y1, ... in pixels of the original image"
_RING_HOLE = "True: the ring bounds a hole"


class In(BaseModel):
    """What comes in: no field too many, no type guessed."""

    model_config = ConfigDict(
        extra="forbid", strict=True, allow_inf_nan=False, frozen=True, hide_input_in_errors=True
    )


class NewImageIn(In):
    """An image to keep, by exactly one of these."""

    base64: Base64In | None = Field(default=None, description="An encoded file: JPEG, PNG, WebP, TIFF or GIF")
    url: str | None = Field(default=None, description="An http(s) address. Off unless the operator allows it")

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        names = list(type(self).model_fields)
        given = [name for name in names if getattr(self, name) is not None]
        if len(given) != 1:
            allowed = f"{', '.join(names[:-1])} and {names[-1]}"
            raise ValueError(f"needs exactly one of {allowed}; it has {' and '.join(given) or 'none'}")
        return self


class ImageIn(NewImageIn):
    """An image, by exactly one of these."""

    id: str | None = Field(
        default=None,
        description="Of an image sent before: sha256:<hex>",
        json_schema_extra={"pattern": f"^{IMAGE_ID}$"},
    )


class PointIn(In):
    """A click."""

    x: Coordinate
    y: Coordinate
    positive: Positive = True


class RegionPoint(In):
    """A point of an exemplar."""

    x: Coordinate
    y: Coordinate


class ExemplarIn(In):
    """An instance of the concept, or of what it is not: a box or a point."""

    box: BoxArray | None = None
    point: RegionPoint | None = None
    positive: Positive = True

    @model_validator(mode="after")
    def _exactly_one(self) -> "ExemplarIn":
        if (self.box is None) == (self.point is None):
            raise ValueError("needs a box or a point, and not both")
        return self


class RleIn(In):
    """COCO's compressed run-length encoding, column-major."""

    format: Literal["rle"]
    size: Size
    counts: str


class PngIn(In):
    """An 8-bit grey PNG; foreground is above 127."""

    format: Literal["png"]
    size: Size
    png: Base64In


class RingIn(In):
    """One closed ring; the last point joins the first."""

    xy: Annotated[list[float], FailFast()] = Field(description=_RING_XY)
    hole: bool = Field(default=False, description=_RING_HOLE)


class PolygonIn(In):
    """Rings; holes are rings of their own."""

    format: Literal["polygon"]
    size: Size
    rings: Entries[RingIn]


class LogitsIn(In):
    """Low-resolution logits as an earlier answer gave them."""

    format: Literal["logits"]
    size: Size
    logits: Base64In = Field(description="IEEE half floats, little endian, row-major")


MaskIn = Annotated[RleIn | PngIn | PolygonIn | LogitsIn, Field(discriminator="format")]


class PromptIn(In):
    """A concept (text and/or exemplars) or an object (points, box and/or mask), not both."""

    text: str | None = Field(default=None, description="A noun phrase")
    exemplars: Entries[ExemplarIn] = Field(default_factory=list)
    points: Entries[PointIn] = Field(default_factory=list)
    box: BoxArray | None = None
    mask: MaskIn | None = None
    score_threshold: Score | None = Field(default=None, description="0..1; default: the request's")


class OptionsIn(In):
    """How to answer."""

    score_threshold: Score | None = Field(default=None, description="0..1; default: the variant's")
    mask_format: MaskFormatName = "rle"
    max_segments: Annotated[int, Field(ge=0, lt=2**32)] | None = Field(
        default=None, description="Per prompt, those of the highest scores are kept; default 100"
    )
    multimask: bool = Field(default=False, description="For an object: all the candidate masks")
    return_logits: bool = Field(default=False, description="Add every segment's low-resolution logits")


class SegmentFields(In):
    """The part `request` of a multipart request: the JSON request without its image."""

    variant: str = Field(default="", description="Default: the server's")
    prompts: Entries[PromptIn]
    options: OptionsIn = Field(default_factory=OptionsIn)


class SegmentIn(SegmentFields):
    """One image and what to find in it."""

    image: ImageIn


class EncodeFields(In):
    """The part `request` of a multipart request to keep an image; it may be left out."""

    variant: str = Field(default="", description="Default: the server's")


class EncodeIn(EncodeFields):
    """One image to encode and keep."""

    image: NewImageIn


class RleOut(BaseModel):
    """COCO's compressed run-length encoding, column-major."""

    format: Literal["rle"] = "rle"
    size: Size
    counts: str


class PngOut(BaseModel):
    """An 8-bit grey PNG: 255 is foreground."""

    format: Literal["png"] = "png"
    size: Size
    png: Base64Out


class Ring(BaseModel):
    """One closed ring; the last point joins the first."""

    xy: list[float] = Field(description=_RING_XY)
    hole: bool = Field(default=False, description=_RING_HOLE)


class PolygonOut(BaseModel):
    """Rings; holes are rings of their own."""

    format: Literal["polygon"] = "polygon"
    size: Size
    rings: list[Ring]


class LogitsOut(BaseModel):
    """Low-resolution mask logits over the whole image; foreground is above 0."""

    format: Literal["logits"] = "logits"
    size: Size
    logits: Base64Out = Field(description="IEEE half floats, little endian, row-major")


MaskOut = Annotated[RleOut | PngOut | PolygonOut | LogitsOut, Field(discriminator="format")]


class SegmentOut(BaseModel):
    """One instance."""

    score: Score
    box: BoxArray
    area: int = Field(description="Foreground pixels at the image's size; 0 when no mask was asked for")
    label: str = Field(description="The prompt's text, or empty")
    mask: MaskOut | None = None
    logits: LogitsOut | None = None


class PromptOut(BaseModel):
    """What one prompt found, in descending order of score."""

    prompt: int = Field(description="Index of the prompt in the request")
    segments: list[SegmentOut]


class ImageOut(BaseModel):
    """The image as it was understood."""

    id: str = Field(description="sha256:<hex> of its bytes")
    width: int = Field(description="Pixels, as displayed")
    height: int = Field(description="Pixels, as displayed")


class SegmentAnswer(BaseModel):
    """One result per prompt, in the request's order."""

    variant: str
    image: ImageOut
    results: list[PromptOut]
    timings_ms: dict[str, float] = Field(description="Milliseconds by stage")


class EncodeAnswer(BaseModel):
    """An image that is kept, for requests to name by its id."""

    variant: str
    image: ImageOut
    kept_until: datetime = Field(description="UTC. Every use of the image moves it; memory permitting")
    timings_ms: dict[str, float] = Field(description="Milliseconds by stage")


class VariantOut(BaseModel):
    """One variant. What only an artefact tells is empty until one of its workers has been ready."""

    name: str
    image_encoder: str
    text_encoder: str
    context_length: int = Field(description="Tokens of a text, start and end included")
    image_size: int = Field(description="Side of the square that pictures are resized to, pixels")
    prompts: list[str] = Field(description="Kinds of prompt it can serve")
    score_threshold: float = Field(description="Default, 0..1")
    source: str
    licence: str
    synthetic: bool = Field(description="True: synthetic weights; they find nothing meaningful")
    parameters: int
    digest: str
    workers_ready: int
    capacity: int = Field(description="Requests that its ready workers take at once; one more is refused")
    memory: str = Field(description="Of a video's objects: perceiver, dense; empty: it follows none")
    default: bool
    audit: str


class VariantsOut(BaseModel):
    """The configured variants."""

    variants: list[VariantOut]


class PoolOut(BaseModel):
    """The workers of one variant."""

    workers: int = Field(description="Configured")
    workers_ready: int
    missing: str = Field(description="What is not ready, in words; empty when all are")


class ReadyOut(BaseModel):
    """Whether requests are admitted, and who would answer them."""

    status: Literal["ready", "waiting", "stopping"]
    default_variant: str
    session_store: Literal["none", "ready", "unavailable"] = Field(
        description="Redis. Images are served without it, but for those named by id; none: none is configured"
    )
    variants: dict[str, PoolOut]


class Problem(BaseModel):
    """An error (RFC 9457)."""

    type: str = Field(description="/problems/<kind>")
    title: str
    status: int
    detail: str
    instance: str = Field(description="The request's id")
    begun: bool = Field(
        default=False, description="Whether a worker may have begun the request when it went away."
    )
