"""The reference's processor result beside what the service makes of the same picture and prompt.

The goldens hold seven segments of "a red car" on one picture: every box, every mask's area, a sample of
every mask (60 x 90 of its probabilities) and the first mask at a quarter of its size.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

from model_store.artifact import Artifact
from service.config import Limits
from service.worker import masks as worker_masks
from service.worker.image import decode
from tests.parity.measure import NO_EXEMPLARS, opened
from tests.serving import Serving

TEXT = "a red car"
CASE = "text_red_car"
PICTURE = "pictures/truck.jpg"
# A sample whose probability is this close to a half is nobody's: its logit is smaller than what any two
# runtimes differ by in f32. `full_ev_m_s0_truck` has one at 0.4999993.
_UNDECIDED = 1e-5
Array = NDArray[Any]


@dataclass(frozen=True)
class Comparison:
    """How far a result is from the reference."""

    # Largest distance of a box's coordinate, pixels; the reference's boxes clipped to the image.
    largest_box_px: float
    # IoU of masks: the first mask at a quarter of its size, every mask at the sample's size. NaN where no
    # mask is large enough for the samples to see.
    smallest_iou: float
    # Largest difference in a mask's area, as a share of the reference's.
    largest_area_share: float


def over_http(serving: Serving, reference: Path, golden: Mapping[str, Array]) -> Comparison:
    """Ask for the reference's prompt at the reference's threshold.

    Answers name no queries, so segments are matched by their boxes, which are far more apart than the bound.
    """
    prompt = {"text": TEXT, "score_threshold": float(golden["proc__threshold"])}
    answer = serving.segment((reference / PICTURE).read_bytes(), {"prompts": [prompt]}).json()
    segments = answer["results"][0]["segments"]
    boxes = np.array([segment["box"] for segment in segments])
    width, height = answer["image"]["width"], answer["image"]["height"]
    distance = np.abs(boxes[:, None] - _boxes(golden, width, height)[None]).max(axis=2)
    # Segment i of the reference is segment match[i] of the answer.
    match = distance.argmin(axis=0)
    assert sorted(match) == list(range(len(segments))), "the segments are not those of the reference"
    masks = [coco.decode(segments[index]["mask"]) for index in match]
    return _compare(boxes[match], masks, golden)


def through_graphs(
    loaded: Artifact, engine_name: str, precision: str, reference: Path, golden: Mapping[str, Array]
) -> Comparison:
    """The reference's queries through the worker's parts, without the threshold.

    Recipe scores lie so close together that in bf16 other queries pass the threshold: here the reference
    chooses the queries, and the graphs are judged by what they make of them.
    """
    score = _sigmoid(golden[f"{CASE}__logits"]) * _sigmoid(golden[f"{CASE}__presence"])
    kept = np.flatnonzero(score > golden["proc__threshold"])
    picture = decode((reference / PICTURE).read_bytes(), Limits(), loaded.manifest.image_size)
    with opened(loaded, engine_name, precision) as (engine, tokenize):
        features = engine.run(
            "concept_features", engine.run("image_encoder", {"pixels": picture.pixels[None]})
        )
        prompt = engine.run("text_encoder", {"tokens": tokenize(TEXT)})
        decoded = engine.run(
            "concept_decoder", {"features_x1": features.pop("features_x1"), **prompt, **NO_EXEMPLARS}
        )
        inputs = {name: decoded[name] for name in ("encoded", "prompt", "prompt_valid")}
        queries = np.ascontiguousarray(decoded["queries"][:, kept])
        logits = engine.run("concept_masks", {**inputs, **features, "queries": queries})["mask_logits"][0]
    size = [picture.width, picture.height, picture.width, picture.height]
    masks = [worker_masks.upscale(each, picture.width, picture.height) for each in logits]
    return _compare(np.clip(decoded["boxes"][0, kept] * size, 0, size), masks, golden)


def _compare(boxes: Array, masks: Sequence[Array], golden: Mapping[str, Array]) -> Comparison:
    height, width = masks[0].shape
    areas = golden["proc__mask_area"].tolist()
    return Comparison(
        largest_box_px=float(np.abs(boxes - _boxes(golden, width, height)).max()),
        smallest_iou=min((iou for iou in _ious(masks, golden) if not math.isnan(iou)), default=math.nan),
        largest_area_share=max(
            abs(int(mask.sum()) - area) / area for mask, area in zip(masks, areas, strict=True)
        ),
    )


def _boxes(golden: Mapping[str, Array], width: int, height: int) -> Array:
    boxes: Array = np.clip(golden["proc__boxes"], 0, [width, height, width, height])
    return boxes


def _ious(masks: Sequence[Array], golden: Mapping[str, Array]) -> list[float]:
    quarter = masks[0][::4, ::4]
    bits = np.unpackbits(golden["proc__mask0_bits_s4"])[: quarter.size].reshape(quarter.shape)
    sampled = golden["proc__prob_sub"]
    rows, columns = (side // samples for side, samples in zip(masks[0].shape, sampled[0].shape, strict=True))
    ious = [_iou(quarter, bits)]
    for mask, samples in zip(masks, sampled, strict=True):
        decided = np.abs(samples - 0.5) > _UNDECIDED
        ious.append(_iou(mask[::rows, ::columns][decided], samples[decided] > 0.5))
    return ious


def _iou(ours: Array, theirs: Array) -> float:
    union = np.logical_or(ours, theirs).sum()
    return float(np.logical_and(ours, theirs).sum() / union) if union else math.nan


def _sigmoid(logits: Array) -> Array:
    values: Array = 1 / (1 + np.exp(-logits.astype(np.float64)))
    return values
