"""A text's instances found and followed through a clip, beside the reference's detect-and-track loop.

The golden has no logits: masks are bits at every fourth pixel, areas and boxes. With recipe weights a mask is
salt and pepper over the whole picture, and one logit near 0 that changes sides joins or parts specks, which
stay or go as a whole. So the masks are bound as the final masks of pictures are. What remains is f32: where
one logit of -2.7e-4 on frame 1, or of -6.9e-5 on frame 2, has the other sign, every sampled pixel is the
reference's. Wrong rules are far beyond the bound: the first frame's mask remembered by way of the picture's
size gives an IoU of 0.969 on the next, remembered as in or out 0.989, with its specks 0.926; specks that are
shown, 0.877.

The reference answers the text's frame twice, by the detection and then by the track that it began; the
service answers with the track at once, and its detection is compared as well.
"""

import json
from pathlib import Path

import pytest

from model_store.networks.student import Student
from service.worker.tracker.associate import Rules
from tests.parity.goldens import FEATURES, golden
from tests.parity.memory import remembering
from tests.parity.table import Measured
from tests.parity.video_concepts import TextClip, compare, masks_of

VARIANT = "es-tv-m-mc-s0"
NAME = "video_concept_tv_m"
# Frames that every run sees, and all that the reference has.
SOME, ALL = 2, 4
SMALLEST_IOU, LARGEST_AREA_SHARE, LARGEST_BOX = 0.999, 1e-3, 1e-6


@pytest.fixture(scope="module")
def student(reference: Path) -> Student:
    return remembering(reference, VARIANT, "dense", concepts=True)


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("frames", [SOME, pytest.param(ALL, marks=pytest.mark.slow)])
def test_a_texts_instances_are_followed_as_the_reference_does(
    student: Student, reference: Path, tmp_path: Path, measured: Measured, frames: int
) -> None:
    expected = golden(reference, NAME)
    said = json.loads(str(expected["__meta__"]))
    limits = said["thresholds"]
    rules = Rules(
        detect_score=limits["score_threshold_detection"],
        new_score=limits["new_det_thresh"],
        duplicate_iou=limits["det_nms_thresh"],
        known_iou=limits["assoc_iou_thresh"],
        # Its temporal disambiguation is off.
        renew_every=0,
    )
    clip = TextClip(student, reference, said["text"], rules, tmp_path)
    found = []
    for number, answer in enumerate(clip.follow(frames)):
        if not number:
            assert (clip.engine.picture[0, :, ::63, ::63].numpy() == expected["frame0_sub"]).all()
            scores, masks = clip.detected(*said["video_wh"])
            found.append(compare(expected, "prompt", dict(enumerate(masks)), scores))
        # The reference's score stays that of the detection which began the object.
        found.append(compare(expected, f"f{number}", masks_of(answer), scores))
    measured.videos[f"`{NAME}`"] = found
    assert all(each.smallest_iou >= SMALLEST_IOU for each in found)
    assert all(each.largest_area_share <= LARGEST_AREA_SHARE for each in found)
    assert all(each.largest_box <= LARGEST_BOX and each.largest_score <= FEATURES for each in found)
