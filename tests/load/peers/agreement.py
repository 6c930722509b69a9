"""Whether two servers find the same."""

from collections.abc import Sequence

from pycocotools import mask as coco

from tests.load.peers.servers import Segments

LEAST_IOU = 0.99


def difference(theirs: Segments, ours: Segments) -> str:
    """What differs, in words; empty where both have as many segments, and masks of an IoU above the least."""
    if len(theirs) != len(ours):
        return f"{len(theirs)} segments, not {len(ours)}"
    for row, (one, other) in enumerate(zip(theirs, ours, strict=True)):
        if one["mask"]["size"] != other["mask"]["size"]:
            return f"segment {row} is of the size {one['mask']['size']}, not {other['mask']['size']}"
        iou = float(coco.iou([one["mask"]], [other["mask"]], [0])[0, 0])
        # Of two masks without foreground pycocotools says 0.
        if iou <= LEAST_IOU and (one["area"] or other["area"]):
            return f"the masks of segment {row} have an IoU of {iou:.4f}"
    return ""


def first_difference(theirs: Sequence[Segments], ours: Sequence[Segments]) -> str:
    """Of several answers the first difference, with the answer's number; empty where there is none."""
    for row, pair in enumerate(zip(theirs, ours, strict=True)):
        if what := difference(*pair):
            return f"answer {row}: {what}"
    return ""
