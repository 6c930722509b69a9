"""The reference's `predict_inst` cases beside what the worker makes of the same prompts."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco

from model_store.artifact import Artifact, Manifest
from service.config import WorkerSettings
from service.pb.efficientsam3.v1 import segmentation_pb2 as pb
from service.worker.engines import Engine
from service.worker.objects import Objects
from service.worker.run import Run
from service.worker.segmenter import Segmenter
from service.worker.tokenizer import TextTokenizer
from tests.parity.goldens import MASKS, Array, Difference, compare

# Cases with a mask, of which the goldens do not list the prompts.
_MASK_CASES: dict[str, dict[str, Any]] = {
    "maskin_only": {"multimask_output": True},
    "maskin_pts": {
        "multimask_output": False,
        "point_coords": [[500.0, 375.0], [1125.0, 625.0]],
        "point_labels": [1, 1],
    },
}


@dataclass(frozen=True)
class Case:
    """One call of the reference: objects, and whether all candidates are wanted."""

    name: str
    prompts: list[pb.Prompt]
    multimask: bool


def cases(whole: Mapping[str, Array]) -> Iterator[Case]:
    """The golden's cases as requests."""
    meta = json.loads(str(whole["__meta__"]))
    size = meta["size_wh"]
    listed = meta.get("inst_cases", {})
    for name, call in (listed | (_MASK_CASES if listed else {})).items():
        points = np.asarray(call.get("point_coords", np.zeros((0, 2))), np.float64)
        if not call.get("normalize_coords", True):
            points = points * size
        clicks = [
            pb.Point(x=x, y=y, positive=bool(label))
            for (x, y), label in zip(points, call.get("point_labels", ()), strict=True)
        ]
        boxes = np.asarray(call.get("box", np.zeros((0, 4)))).reshape(-1, 4).tolist()
        prompts = [pb.Prompt(points=clicks) for _ in boxes or [None]]
        for prompt, (x0, y0, x1, y1) in zip(prompts, boxes, strict=False):
            prompt.box.CopyFrom(pb.Box(x0=x0, y0=y0, x1=x1, y1=y1))
        if name in _MASK_CASES:
            logits = whole["inst_mask_input"].astype("<f2").tobytes()
            prompts[0].mask.CopyFrom(pb.Mask(height=288, width=288, logits=logits))
        yield Case(name, prompts, call["multimask_output"])


def objects(
    engine: Engine, manifest: Manifest, picture: str, whole: Mapping[str, Array], embedding: Array
) -> Iterator[Difference]:
    """The masks' logits and their predicted IoU, before anything is chosen among them."""
    width, height = json.loads(str(whole["__meta__"]))["size_wh"]
    features = engine.run("interactive_features", {"embedding": embedding})
    no_memory = np.array(manifest.constants["no_memory"], np.float32).reshape(1, -1, 1, 1)
    finer = {name: features[name] for name in ("interactive_x2", "interactive_x4")}
    for case in cases(whole):
        prompts = list(enumerate(case.prompts))
        inputs = Objects(manifest).read(Run(engine, lambda: None), prompts, width, height)
        count = len(case.prompts)
        decoded = engine.run(
            "prompt_decoder",
            {
                "conditioned": np.repeat(features["interactive_x1"] + no_memory, count, axis=0),
                "image": np.zeros(count, np.int32),
                **finer,
                **inputs,
            },
        )
        yield from _compare(picture, case, whole, decoded["mask_logits"], decoded["iou"])


def _compare(
    picture: str, case: Case, whole: Mapping[str, Array], logits: Array, iou: Array
) -> Iterator[Difference]:
    where = (picture, case.name, "prompt_decoder")
    low, scores = whole[f"inst_{case.name}__low"], whole[f"inst_{case.name}__iou"].reshape(len(iou), -1)
    low = low.reshape(len(iou), -1, *low.shape[-2:])
    ours = np.clip(logits[:, :, ::3, ::3], -32, 32)
    if case.multimask:
        ours, iou = ours[:, 1:], iou[:, 1:]
    else:
        # The reference chose one of the four; which, its score tells.
        chosen = np.abs(iou - scores).argmin(axis=1)[:, None]
        ours = np.take_along_axis(ours, chosen[..., None, None], axis=1)
        iou = np.take_along_axis(iou, chosen, axis=1)
    yield compare(where, "mask_logits", ours, low, MASKS)
    yield compare(where, "iou", iou, scores)


@dataclass(frozen=True)
class MaskAgreement:
    """The final masks of one case."""

    case: str
    # Over the golden's samples, every eighth pixel; NaN where they see no foreground.
    smallest_iou: float
    # Largest difference in area, as a share of the reference's.
    largest_area_share: float


def final_masks(
    loaded: Artifact, engine: Engine, tokenize: TextTokenizer, reference: Path, whole: Mapping[str, Array]
) -> Iterator[MaskAgreement]:
    """Every case as a request: what is chosen, filled and enlarged, as the worker answers it."""
    segmenter = Segmenter(loaded.manifest, engine, tokenize, WorkerSettings())
    image = pb.Image(data=(reference / "pictures" / "truck.jpg").read_bytes())
    for case in cases(whole):
        options = pb.SegmentOptions(multimask=case.multimask)
        answer = segmenter.segment(pb.SegmentRequest(image=image, prompts=case.prompts, options=options))
        segments = [segment for result in answer.results for segment in result.segments]
        scores = whole[f"inst_{case.name}__iou"].ravel()
        order = np.argsort(-scores, kind="stable") if case.multimask else np.arange(len(scores))
        yield _agreement(case.name, segments, order, whole)


def _agreement(
    name: str, segments: Sequence[pb.Segment], order: Array, whole: Mapping[str, Array]
) -> MaskAgreement:
    areas = whole[f"inst_{name}__area"].ravel()[order].tolist()
    masks = np.stack(
        [
            coco.decode({"size": [each.mask.height, each.mask.width], "counts": each.mask.rle})[::8, ::8]
            for each in segments
        ]
    )
    bits = np.unpackbits(whole[f"inst_{name}__bits_s8"])[: masks.size].reshape(masks.shape)[order]
    both, either = np.logical_and(masks, bits).sum((1, 2)), np.logical_or(masks, bits).sum((1, 2))
    return MaskAgreement(
        name,
        min((a / b for a, b in zip(both, either, strict=True) if b), default=math.nan),
        max(abs(int(one.area) - area) / area for one, area in zip(segments, areas, strict=True)),
    )
