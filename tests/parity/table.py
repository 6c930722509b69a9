"""The tables of docs/parity.md, of what a test run measured."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tests.parity.end_to_end import Comparison
from tests.parity.goldens import Difference
from tests.parity.objects import MaskAgreement
from tests.parity.video_concepts import Agreement

# (engine, precision); only f32 has bounds.
Column = tuple[str, str]
F32: tuple[Column, ...] = (("openvino", "f32"), ("onnxruntime", "f32"))
BF16: Column = ("openvino", "bf16")
COLUMNS: tuple[Column, ...] = (*F32, BF16)
# What is compared of a followed object.
TRACK_COLUMNS = ("features", "mask logits", "object score", "pointer", "memory")


@dataclass
class Measured:
    """What a run has measured so far, by subject and column."""

    differences: dict[str, dict[Column, list[Difference]]] = field(default_factory=dict)
    concepts: dict[str, dict[Column, Comparison]] = field(default_factory=dict)
    objects: dict[str, dict[Column, list[MaskAgreement]]] = field(default_factory=dict)

    # Of what follows objects, in torch, by the reference outputs: a difference per frame and output, whose
    # `case` is the frame.
    tracks: dict[str, list[Difference]] = field(default_factory=dict)
    # Of what follows a text's instances: one per answer of the reference.
    videos: dict[str, list[Agreement]] = field(default_factory=dict)

    def tables(self) -> list[str]:
        """Lines of Markdown, a table for each of graphs, final masks, tracks and videos that was measured."""
        lines = []
        for table in (self._graphs(), self._masks(), self._tracks(), self._videos()):
            if len(table) > 2:
                lines += [*table, ""]
        return lines[:-1]

    def _graphs(self) -> list[str]:
        names = [f"{engine} {precision}" for engine, precision in COLUMNS]
        lines = _head("student", "graph", "outputs", "largest value", "bound (f32)", *names)
        for name, columns in self.differences.items():
            lines += _graph_rows(name, columns)
        return lines

    def _masks(self) -> list[str]:
        lines = _head(
            "student",
            "engine",
            "concepts: boxes, largest distance (px)",
            "concepts: masks, smallest IoU",
            "concepts: areas, largest difference",
            "objects: masks, smallest IoU (median)",
            "objects: areas, largest difference",
        )
        for name, found in self.concepts.items():
            lines += [
                _mask_row(name, column, found[column], self.objects[name][column])
                for column in COLUMNS
                if column in found
            ]
        return lines

    def _tracks(self) -> list[str]:
        lines = _head("reference output", "frames", *TRACK_COLUMNS)
        return lines + [_track_row(name, found) for name, found in self.tracks.items()]

    def _videos(self) -> list[str]:
        lines = _head(
            "reference output",
            "answers",
            "masks, smallest IoU",
            "areas, largest difference",
            "boxes, largest difference (of the side)",
            "scores, largest difference",
        )
        return lines + [_video_row(name, found) for name, found in self.videos.items()]


def _head(*names: str) -> list[str]:
    return [_line(names), "|---" * len(names) + "|"]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _graph_rows(name: str, columns: Mapping[Column, Sequence[Difference]]) -> list[str]:
    """A row per graph: the largest difference over its outputs, pictures and prompts, by column."""
    # Where some of the tests were run, there may be none.
    first = [each for each in columns.get(F32[0], ()) if each.bound]
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
        lines.append(_line(cells))
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
    return _line(cells)


def _track_row(name: str, found: Sequence[Difference]) -> str:
    """By output the largest difference over all frames, and its bound."""
    frames = {each.case for each in found if each.output == "mask logits"}
    cells = []
    for output in TRACK_COLUMNS:
        own = [each for each in found if each.output == output]
        largest = max(own, key=lambda each: each.largest, default=None)
        cells.append("-" if largest is None else f"{largest.largest:.1e} ({largest.bound:.1e})")
    return _line([name, str(len(frames) or "-"), *cells])


def _video_row(name: str, found: Sequence[Agreement]) -> str:
    cells = (
        f"{min(each.smallest_iou for each in found):.5f}",
        f"{100 * max(each.largest_area_share for each in found):.2g} %",
        f"{max(each.largest_box for each in found):.1e}",
        f"{max(each.largest_score for each in found):.1e}",
    )
    return _line([name, str(len(found)), *cells])
