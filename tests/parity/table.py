"""Print the tables of docs/parity.md: `python -m tests.parity.table [VARIANT...]`.

Imports every subject of the goldens from a checkpoint in its released layout, which takes a minute or two
each. `EFFICIENTSAM3_REFERENCE` names the reference outputs.
"""

import math
import os
import sys
import tempfile
from pathlib import Path

from model_store import artifact
from model_store.artifact import Artifact
from tests.parity.end_to_end import through_graphs
from tests.parity.goldens import FILLED, OTHERS, SMALLEST, Subject, golden
from tests.parity.measure import measure, opened
from tests.parity.objects import final_masks
from tests.released import import_released

COLUMNS = (("openvino", "f32"), ("onnxruntime", "f32"), ("openvino", "bf16"))
_NAMES = " | ".join(f"{engine} {precision}" for engine, precision in COLUMNS)


def graph_rows(subject: Subject, loaded: Artifact, reference: Path) -> list[str]:
    """A Markdown row per graph: the largest difference over its outputs, pictures and prompts, by engine."""
    measured = [
        [each for each in measure(subject, loaded, *column, reference) if each.bound] for column in COLUMNS
    ]
    lines = []
    for graph in dict.fromkeys(each.graph for each in measured[0]):
        found = [[each for each in differences if each.graph == graph] for differences in measured]
        largest = [f"{max(each.largest for each in differences):.1e}" for differences in found]
        bound = max(each.bound for each in found[0])
        scale = max(each.scale for each in found[0])
        cells = [subject.name, f"`{graph}`", str(len(found[0])), f"{scale:.3g}", f"{bound:.0e}", *largest]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def mask_rows(subject: Subject, loaded: Artifact, reference: Path) -> list[str]:
    """A Markdown row per engine: concepts' boxes and masks, and objects' masks, at the picture's size."""
    whole = golden(reference, subject.whole["truck"])
    lines = []
    for engine, precision in COLUMNS:
        concepts = through_graphs(loaded, engine, precision, reference, whole)
        with opened(loaded, engine, precision) as (running, tokenize):
            objects = list(final_masks(loaded, running, tokenize, reference, whole))
        ious = sorted(each.smallest_iou for each in objects if not math.isnan(each.smallest_iou))
        cells = [
            subject.name,
            f"{engine} {precision}",
            f"{concepts.largest_box_px:.2g}",
            "-" if math.isnan(concepts.smallest_iou) else f"{concepts.smallest_iou:.5f}",
            f"{100 * concepts.largest_area_share:.2g} %",
            f"{ious[0]:.5f} ({ious[len(ious) // 2]:.5f})",
            f"{100 * max(each.largest_area_share for each in objects):.2g} %",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def main() -> None:
    """Measure the subjects of the variants on the command line, or all."""
    reference = Path(os.environ["EFFICIENTSAM3_REFERENCE"])
    subjects = [
        each for each in (SMALLEST, FILLED, *OTHERS) if each.variant in (sys.argv[1:] or each.variant)
    ]
    masks: list[str] = []
    print(f"| student | graph | outputs | largest value | bound (f32) | {_NAMES} |", flush=True)
    print("|---|---|---|---|---|---|---|---|")
    for subject in subjects:
        with tempfile.TemporaryDirectory() as store:
            folder = import_released(reference, Path(store), subject.variant, subject.context, subject.rows)
            loaded = artifact.load(folder)
            print("\n".join(graph_rows(subject, loaded, reference)), flush=True)
            masks += mask_rows(subject, loaded, reference) if subject.whole else []
    print(
        "\n| student | engine | concepts: boxes, largest distance (px) | concepts: masks, smallest IoU | "
        "concepts: masks, area | objects: masks, smallest (median) IoU | objects: masks, area |"
    )
    print("|---|---|---|---|---|---|---|")
    print("\n".join(masks))


if __name__ == "__main__":
    main()
