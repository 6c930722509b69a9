"""A clip of the samples whose objects are followed, and how what was found compares with another time."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

import model_store
from model_store.demo.evaluate import iou
from model_store.demo.tasks import box_of
from service.client import Frame, Session
from service.video import Video, as_png

SAMPLES = Path(model_store.__file__).parent / "samples"
FRAMES = 20
# The text names things that are shown by boxes as well: its instances are objects of their own.
_CLIP, TEXT = "traffic-lights", "traffic light"

Sent = tuple[bytes, Sequence[Mapping[str, Any]]]


def decoded(rle: Mapping[str, Any]) -> NDArray[np.bool_]:
    """The mask of an answer."""
    mask: NDArray[np.bool_] = coco.decode({"size": rle["size"], "counts": rle["counts"].encode()}).astype(
        bool
    )
    return mask


@cache
def pictures() -> list[bytes]:
    """The clip's frames as files."""
    with Video(SAMPLES / f"{_CLIP}.mp4") as video:
        return [as_png(picture) for picture in video]


def clip(frames: int = FRAMES, *texts: str) -> list[Sent]:
    """Frames with their prompts: on the first a box for each of three objects, and the texts."""
    facts = json.loads((SAMPLES / "samples.json").read_text("utf-8"))["clips"][_CLIP]
    first = [decoded(thing["masks"][0]) for thing in facts["things"]]
    boxes = [[float(edge) for edge in box_of(mask) * mask.shape[0]] for mask in first]
    prompts = [*({"box": box} for box in boxes), *({"text": text} for text in texts)]
    return [(picture, [] if index else prompts) for index, picture in enumerate(pictures()[:frames])]


def found(frame: Frame) -> Mapping[str, Any]:
    """An answer, to the bit: all but how long it took."""
    return {name: value for name, value in frame.raw.items() if name != "timings_ms"}


def followed(
    session: Session, frames: Iterable[Sent], after: Mapping[int, Callable[[], object]] | None = None
) -> list[Mapping[str, Any]]:
    """What is found on frames that are streamed, several in flight; of `after`, what to do after a frame."""
    answers, first = [], session.next_frame
    for frame in session.stream(frames):
        assert frame.index == first + len(answers), "every frame once, in order"
        answers.append(found(frame))
        (after or {}).get(frame.index, lambda: None)()
    return answers


def likeness(one: Sequence[Mapping[str, Any]], other: Sequence[Mapping[str, Any]]) -> float:
    """Mean IoU of two times' masks, 0..1, over frames and objects; of an object that is seen once, 0."""
    ratios = []
    for first, second in zip(one, other, strict=True):
        masks = [
            {each["object"]: each.get("mask") for each in answer["objects"]} for answer in (first, second)
        ]
        for id in masks[0].keys() | masks[1].keys():
            pair = [each.get(id) for each in masks]
            if all(pair):
                ratios.append(iou(decoded(pair[0]), decoded(pair[1])))
            elif any(pair):
                ratios.append(0.0)
    return float(np.mean(ratios))
