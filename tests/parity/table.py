"""The tables of docs/parity.md, of what a test run measured."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tests.parity.end_to_end import Comparison
from tests.parity.goldens import Difference
from tests.parity.objects import MaskAgreement

# (engine, precision); only f32 has bounds.
Column = tuple[str, str]
F32: tuple[Column, ...] = (("openvino", "f32"), ("onnxruntime", "f32"))
BF16: Column = ("openvino", "bf16")
COLUMNS: tuple[Column, ...] = (*F32, BF16)


@dataclass
class Measured:
    """What a run has measured so far, by subject and column."""

    differences: dict[str, dict[Column, list[Difference]]] = field(default_factory=dict)
    concepts: dict[str, dict[Column, Comparison]] = field(default_factory=dict)
    objects: dict[str, dict[Column, list[MaskAgreement]]] = field(default_factory=dict)

    def tables(self) -> list[str]:
        """Lines of Markdown: graph by graph, then the final masks; empty where nothing was measured."""
        if not self.differences:
            return []
        names = " | ".join(f"{engine} {precision}" for engine, precision in COLUMNS)
        lines = [
            f"| student | graph | outputs | largest value | bound (f32) | {names} |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for name, columns in self.differences.items():
            lines += _graph_rows(name, columns)
        lines += [
            "",
            "| student | engine | concepts: boxes, largest distance (px) | concepts: masks, smallest IoU | "
            "concepts: areas, largest difference | objects: masks, smallest IoU (median) | "
            "objects: areas, largest difference |",
            "|---|---|---|---|---|---|---|",
        ]
        for name, found in self.concepts.items():
            lines += [
                _mask_row(name, column, found[column], self.objects[name][column])
                for column in COLUMNS
                if column in found
            ]
        return lines


def _graph_rows(name: str, columns: Mapping[Column, Sequence[Difference]]) -> list[str]:
    """A row per graph: the largest difference over its outputs, pictures and prompts, by column."""
    first = [each for each in columns[F32[0]] if each.bound]
    lines = []
    for graph in dict.fromkeys(each.graph for each in first):
        own = [each for each in first if each.graph == graph]
        largest = [
            f"{max(each.largest for each in columns[column] if each.graph == graph and each.bound):.1e}"
            if column in columns
            else "-"
            for column in COLUMNS
        ]
        scale, bound = max(each.scale for each in own), max(each.bound for each in own)
        cells = [name, f"`{graph}`", str(len(own)), f"{scale:.3g}", f"{bound:.0e}", *largest]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _mask_row(name: str, column: Column, concepts: Comparison, objects: Sequence[MaskAgreement]) -> str:
    ious = sorted(each.smallest_iou for each in objects if not math.isnan(each.smallest_iou))
    cells = [
        name,
        " ".join(column),
        f"{concepts.largest_box_px:.2g}",
        "-" if math.isnan(concepts.smallest_iou) else f"{concepts.smallest_iou:.5f}",
        f"{100 * concepts.largest_area_share:.2g} %",
        f"{ious[0]:.5f} ({ious[len(ious) // 2]:.5f})",
        f"{100 * max(each.largest_area_share for each in objects):.2g} %",
    ]
    return f"| {' | '.join(cells)} |"
