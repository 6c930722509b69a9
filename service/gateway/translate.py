"""JSON <-> proto: the whole difference between the HTTP API and the gRPC API."""

from collections.abc import Iterable
from datetime import datetime
from typing import assert_never

from pydantic import ValidationError

from service.errors import Kind, ServiceError
from service.gateway.schema import (
    EncodeAnswer,
    ExemplarIn,
    ImageIn,
    ImageOut,
    LogitsIn,
    LogitsOut,
    MaskIn,
    MaskOut,
    NewImageIn,
    OptionsIn,
    PngIn,
    PngOut,
    PointIn,
    PolygonIn,
    PolygonOut,
    PromptIn,
    PromptOut,
    Ring,
    RleIn,
    RleOut,
    SegmentAnswer,
    SegmentFields,
    SegmentOut,
    VariantOut,
    encoded,
)
from service.pb.efficientsam3.v1 import segmentation_pb2 as pb
from service.pb.efficientsam3.v1 import variants_pb2

MASK_FORMATS = {
    "rle": pb.MASK_FORMAT_RLE,
    "png": pb.MASK_FORMAT_PNG,
    "polygon": pb.MASK_FORMAT_POLYGON,
    "none": pb.MASK_FORMAT_NONE,
}
# What pydantic puts into the path of a mask, to say which of the four it took it for.
_MASK_TAGS = frozenset({"rle", "png", "polygon", "logits"})
_ERRORS_SHOWN = 3


def segment_request(body: SegmentFields, image: pb.Image) -> pb.SegmentRequest:
    """The proto request of a JSON request and its image."""
    return pb.SegmentRequest(
        variant=body.variant,
        image=image,
        prompts=[_prompt(prompt) for prompt in body.prompts],
        options=_options(body.options),
    )


def image_of(image: NewImageIn) -> pb.Image:
    """The proto image of a JSON image."""
    if image.base64 is not None:
        return pb.Image(data=image.base64)
    if image.url is not None:
        return pb.Image(url=image.url)
    assert isinstance(image, ImageIn) and image.id is not None, "its model allows no fourth"
    return pb.Image(id=image.id)


def segment_answer(response: pb.SegmentResponse) -> SegmentAnswer:
    """The JSON answer of a proto response."""
    return SegmentAnswer(
        variant=response.variant,
        image=image_out(response.image),
        results=[
            PromptOut(prompt=result.prompt, segments=[_segment(segment) for segment in result.segments])
            for result in response.results
        ],
        timings_ms=dict(response.timings_ms),
    )


def encode_answer(response: pb.EncodeImageResponse) -> EncodeAnswer:
    """The JSON answer of a proto response."""
    return EncodeAnswer(
        variant=response.variant,
        image=image_out(response.image),
        kept_until=datetime.fromisoformat(response.kept_until),
        timings_ms=dict(response.timings_ms),
    )


def variant_answer(variant: variants_pb2.Variant) -> VariantOut:
    """The JSON of a variant."""
    return VariantOut(
        name=variant.name,
        image_encoder=variant.image_encoder,
        text_encoder=variant.text_encoder,
        context_length=variant.context_length,
        image_size=variant.image_size,
        prompts=list(variant.prompts),
        # A float32 in the proto: 0.4 must not come out as 0.4000000059604645.
        score_threshold=round(variant.score_threshold, 6),
        source=variant.source,
        licence=variant.licence,
        synthetic=variant.synthetic,
        parameters=variant.parameters,
        digest=variant.digest,
        workers_ready=variant.workers_ready,
        capacity=variant.capacity,
        memory=variant.memory,
        default=variant.default,
        audit=variant.audit,
    )


def refusal(error: ValidationError) -> ServiceError:
    """What is wrong with a JSON request, by JSON path, without repeating its content.

    PAYLOAD_TOO_LARGE when a list has too many entries, else INVALID_ARGUMENT.
    """
    errors = error.errors(include_url=False, include_input=False)
    for each in errors:
        if each["type"] == "too_long" and each["ctx"]["field_type"] == "List":
            limit = each["ctx"]["max_length"]
            detail = f"{_path(each['loc'])} has more entries than the limit of {limit:,}."
            return ServiceError(Kind.PAYLOAD_TOO_LARGE, detail)
    # A misspelt field is the cause of the missing one: it comes first.
    errors.sort(key=lambda each: each["type"] != "extra_forbidden")
    shown = [
        f"{_named(each['loc'])}{_sentence(each['type'], each['msg'])}" for each in errors[:_ERRORS_SHOWN]
    ]
    more = f"; and {len(errors) - len(shown)} more" if len(errors) > len(shown) else ""
    return ServiceError(Kind.INVALID_ARGUMENT, "; ".join(shown) + more)


def _path(loc: tuple[int | str, ...]) -> str:
    """("prompts", 0, "mask", "rle", "size") -> "prompts[0].mask.size". Tags of unions are no part of it."""
    path = ""
    before: int | str = ""
    for step in loc:
        if isinstance(step, int):
            path += f"[{step}]"
        elif before != "mask" or step not in _MASK_TAGS:
            path += f".{step[:100]}"
        before = step
    return path.lstrip(".")


def _named(loc: tuple[int | str, ...]) -> str:
    path = _path(loc)
    return f"{path}: " if path else ""


def _sentence(kind: str, message: str) -> str:
    return "there is no such field" if kind == "extra_forbidden" else message.removeprefix("Value error, ")


def _prompt(prompt: PromptIn) -> pb.Prompt:
    return pb.Prompt(
        text=prompt.text or "",
        exemplars=[_exemplar(exemplar) for exemplar in prompt.exemplars],
        points=points_of(prompt.points),
        box=box_of(prompt.box),
        mask=mask_of(prompt.mask) if prompt.mask else None,
        score_threshold=prompt.score_threshold,
    )


def _exemplar(exemplar: ExemplarIn) -> pb.Exemplar:
    point = exemplar.point
    return pb.Exemplar(
        box=box_of(exemplar.box),
        point=pb.Point(x=point.x, y=point.y) if point else None,
        positive=exemplar.positive,
    )


def points_of(points: Iterable[PointIn]) -> list[pb.Point]:
    """The proto clicks of JSON clicks."""
    return [pb.Point(x=point.x, y=point.y, positive=point.positive) for point in points]


def box_of(box: tuple[float, float, float, float] | None) -> pb.Box | None:
    """The proto box of a JSON box."""
    return pb.Box(x0=box[0], y0=box[1], x1=box[2], y1=box[3]) if box else None


def _options(options: OptionsIn) -> pb.SegmentOptions:
    return pb.SegmentOptions(
        score_threshold=options.score_threshold,
        mask_format=MASK_FORMATS[options.mask_format],
        max_segments=options.max_segments,
        multimask=options.multimask,
        return_logits=options.return_logits,
    )


def mask_of(mask: MaskIn) -> pb.Mask:
    """The proto mask of a JSON mask."""
    height, width = mask.size
    match mask:
        case RleIn():
            return pb.Mask(height=height, width=width, rle=mask.counts)
        case PngIn():
            return pb.Mask(height=height, width=width, png=mask.png)
        case PolygonIn():
            rings = [pb.Ring(xy=ring.xy, hole=ring.hole) for ring in mask.rings]
            return pb.Mask(height=height, width=width, polygon=pb.Polygon(rings=rings))
        case LogitsIn():
            return pb.Mask(height=height, width=width, logits=mask.logits)
        case _:
            assert_never(mask)


def image_out(image: pb.ImageInfo) -> ImageOut:
    """The JSON of an image."""
    return ImageOut(id=image.id, width=image.width, height=image.height)


def _segment(segment: pb.Segment) -> SegmentOut:
    box = segment.box
    return SegmentOut(
        score=segment.score,
        box=(box.x0, box.y0, box.x1, box.y1),
        area=segment.area,
        label=segment.label,
        mask=mask_out(segment.mask) if segment.HasField("mask") else None,
        logits=logits_out(segment.logits) if segment.HasField("logits") else None,
    )


def logits_out(logits: pb.Mask) -> LogitsOut:
    """The JSON of low-resolution logits."""
    return LogitsOut(size=(logits.height, logits.width), logits=encoded(logits.logits))


def mask_out(mask: pb.Mask) -> MaskOut:
    """The JSON of a mask."""
    size = (mask.height, mask.width)
    match mask.WhichOneof("encoding"):
        case "png":
            return PngOut(size=size, png=encoded(mask.png))
        case "polygon":
            rings = [Ring(xy=list(ring.xy), hole=ring.hole) for ring in mask.polygon.rings]
            return PolygonOut(size=size, rings=rings)
        case "logits":
            return LogitsOut(size=size, logits=encoded(mask.logits))
        case _:
            return RleOut(size=size, counts=mask.rle)
