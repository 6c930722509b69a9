"""What the server answers, as types."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from service.client import masks

if TYPE_CHECKING:
    from service.client.masks import MaskArray

Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Segment:
    """One instance."""

    # 0..1.
    score: float
    # x0, y0, x1, y1 in pixels of the original image as displayed.
    box_xyxy: Box
    # Foreground pixels at the image's size; 0 when no mask was asked for.
    area_px: int
    # The prompt's text, or empty.
    label: str
    # As the API writes it, by its "format"; None when none was asked for.
    mask: Mapping[str, Any] | None
    # Low-resolution logits, which may be the `mask` of a later prompt; None when they were not asked for.
    logits: Mapping[str, Any] | None = None

    def mask_array(self) -> "MaskArray":
        """(height, width) bool of the image as displayed. Raises ValueError where there is no mask.

        Needs the extra `client`.
        """
        return masks.array(self.mask)


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server answered."""

    variant: str
    image_id: str
    # Pixels, as displayed.
    width_px: int
    height_px: int
    # One list per prompt, in the request's order; each in descending order of score.
    results: tuple[tuple[Segment, ...], ...]
    timings_ms: Mapping[str, float]
    # The answer in the API's JSON.
    raw: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class KeptImage:
    """An image that the server keeps: `id` stands for it in `Client.segment`."""

    id: str
    # Pixels, as displayed.
    width_px: int
    height_px: int
    # The variant that it was sent to.
    variant: str
    # Until when, unless the server's memory runs short; every use of the image moves it.
    kept_until: datetime


@dataclass(frozen=True, slots=True)
class TrackedObject:
    """One object on a frame."""

    id: int
    # The text that found it, or empty.
    label: str
    # How sure it is that the object is in the picture, 0..1.
    score: float
    # False: it is hidden, or has left; it has no box and no mask then.
    visible: bool
    # x0, y0, x1, y1 in pixels of the frame.
    box_xyxy: Box | None
    area_px: int
    # As the API writes it, by its "format".
    mask: Mapping[str, Any] | None
    # Index of the prompt that showed it on this frame.
    prompt: int | None

    def mask_array(self) -> "MaskArray":
        """(height, width) bool of the frame. Raises ValueError where there is no mask: see `visible`.

        Needs the extra `client`.
        """
        return masks.array(self.mask)


@dataclass(frozen=True, slots=True)
class Frame:
    """The answer to a frame."""

    index: int
    revision: int
    # Pixels.
    width_px: int
    height_px: int
    # Every object that is followed, in the order of their ids.
    objects: tuple[TrackedObject, ...]
    timings_ms: Mapping[str, float]
    # The answer in the API's JSON.
    raw: Mapping[str, Any]


def answer_of(body: Mapping[str, Any]) -> Answer:
    """Of the JSON of `POST /v1/segment`."""
    image = body["image"]
    return Answer(
        variant=body["variant"],
        image_id=image["id"],
        width_px=image["width"],
        height_px=image["height"],
        results=tuple(
            tuple(_segment(segment) for segment in result["segments"]) for result in body["results"]
        ),
        timings_ms=body["timings_ms"],
        raw=body,
    )


def kept_image_of(body: Mapping[str, Any]) -> KeptImage:
    """Of the JSON of `POST /v1/images`."""
    image, until = body["image"], datetime.fromisoformat(body["kept_until"])
    return KeptImage(image["id"], image["width"], image["height"], body["variant"], until)


def frame_of(body: Mapping[str, Any]) -> Frame:
    """Of the JSON of `POST /v1/sessions/{id}/frames`."""
    image = body["image"]
    return Frame(
        index=body["frame"],
        revision=body["revision"],
        width_px=image["width"],
        height_px=image["height"],
        objects=tuple(_tracked(each) for each in body["objects"]),
        timings_ms=body["timings_ms"],
        raw=body,
    )


def _segment(body: Mapping[str, Any]) -> Segment:
    x0, y0, x1, y1 = body["box"]
    return Segment(
        body["score"], (x0, y0, x1, y1), body["area"], body["label"], body.get("mask"), body.get("logits")
    )


def _tracked(body: Mapping[str, Any]) -> TrackedObject:
    box = body.get("box")
    return TrackedObject(
        id=body["object"],
        label=body["label"],
        score=body["score"],
        visible=body["visible"],
        box_xyxy=(box[0], box[1], box[2], box[3]) if box else None,
        area_px=body["area"],
        mask=body.get("mask"),
        prompt=body.get("prompt"),
    )
