"""Print the tables of docs/parity.md: `python -m tests.parity.table ARTEFACT...`.

ARTEFACT is the folder of an artefact imported from a checkpoint filled with the reference recipe.
`EFFICIENTSAM3_REFERENCE` names the reference outputs.
"""

import math
import os
import sys
from pathlib import Path

import numpy as np

from model_store import artifact
from tests.parity.end_to_end import through_graphs
from tests.parity.measure import GOLDENS, Difference, measure

COLUMNS = (("openvino", "f32"), ("onnxruntime", "f32"), ("openvino", "bf16"))


def rows(loaded: artifact.Artifact, reference: Path) -> list[str]:
    """A Markdown row per output: the largest difference over all pictures and prompts, by engine."""
    measured = {column: measure(loaded, *column, reference) for column in COLUMNS}
    outputs = dict.fromkeys((each.graph, each.output) for each in measured[COLUMNS[0]])
    lines = []
    for graph, output in outputs:
        found = {
            column: [each for each in differences if (each.graph, each.output) == (graph, output)]
            for column, differences in measured.items()
        }
        first = found[COLUMNS[0]]
        cells = [f"{_largest(differences):.1e}" for differences in found.values()]
        scale = max(each.scale for each in first)
        cells = [f"`{graph}`", output, str(len(first)), f"{scale:.3g}", f"{first[0].bound:.0e}", *cells]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def final_rows(loaded: artifact.Artifact, reference: Path, golden: str) -> list[str]:
    """A Markdown row per engine: boxes and masks of the reference's queries at the picture's size."""
    arrays = np.load(reference / "goldens" / f"{golden}.npz")
    lines = []
    for engine, precision in COLUMNS:
        found = through_graphs(loaded, engine, precision, reference, arrays)
        iou = "-" if math.isnan(found.smallest_iou) else f"{found.smallest_iou:.5f}"
        lines.append(
            f"| {loaded.manifest.variant} | {engine} {precision} | {found.largest_box_px:.2g} | "
            f"{iou} | {100 * found.largest_area_share:.2g} % |"
        )
    return lines


def _largest(differences: list[Difference]) -> float:
    return max(each.largest for each in differences)


def main() -> None:
    """Measure every artefact named on the command line."""
    reference = Path(os.environ["EFFICIENTSAM3_REFERENCE"])
    artefacts = [artifact.load(Path(folder)) for folder in sys.argv[1:]]
    for loaded in artefacts:
        print(f"\n### {loaded.manifest.variant}\n")
        names = " | ".join(f"{engine} {precision}" for engine, precision in COLUMNS)
        print(f"| graph | output | comparisons | largest value | bound (f32) | {names} |")
        print("|---|---|---|---|---|---|---|---|")
        print("\n".join(rows(loaded, reference)))
    print("\n| variant | engine | boxes, largest distance (px) | masks, smallest IoU | masks, area |")
    print("|---|---|---|---|---|")
    for loaded in artefacts:
        print("\n".join(final_rows(loaded, reference, GOLDENS[loaded.manifest.variant, "truck"][0])))


if __name__ == "__main__":
    main()
