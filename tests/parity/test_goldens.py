"""Every graph of an imported checkpoint against the reference, in f32, on both engines."""

from collections.abc import Callable
from pathlib import Path

import pytest

from model_store import artifact
from tests.parity.goldens import FILLED, OTHERS, SMALLEST, Subject, golden
from tests.parity.measure import measure, opened
from tests.parity.objects import final_masks

ENGINES = ("openvino", "onnxruntime")
SUBJECTS = [
    pytest.param(SMALLEST, id=SMALLEST.name),
    *(pytest.param(each, id=each.name, marks=pytest.mark.slow) for each in (FILLED, *OTHERS)),
]


@pytest.mark.parametrize("subject", SUBJECTS)
def test_every_graph_agrees_with_the_reference_in_f32(
    imported: Callable[..., Path], reference: Path, subject: Subject
) -> None:
    loaded = artifact.load(imported(subject.variant, subject.context, subject.rows))
    for engine in ENGINES:
        differences = measure(subject, loaded, engine, "f32", reference)
        seen = {difference.graph for difference in differences}
        assert seen == set(loaded.manifest.graphs) if subject.whole else seen
        assert not [each for each in differences if each.largest > each.bound]


@pytest.mark.parametrize("engine", ENGINES)
def test_objects_masks_are_the_references_in_f32(
    imported: Callable[..., Path], reference: Path, engine: str
) -> None:
    loaded = artifact.load(imported(SMALLEST.variant))
    whole = golden(reference, SMALLEST.whole["truck"])
    with opened(loaded, engine, "f32") as (running, tokenize):
        found = list(final_masks(loaded, running, tokenize, reference, whole))
    assert len(found) == 11
    assert not [each for each in found if each.smallest_iou < 0.999 or each.largest_area_share > 1e-3]


def test_the_goldens_are_all_compared(reference: Path) -> None:
    """But those of video, which is another matter."""
    subjects = (SMALLEST, FILLED, *OTHERS)
    compared = {name for each in subjects for name in (each.image, *each.whole.values(), *each.texts) if name}
    there = {path.stem for path in (reference / "goldens").glob("*.npz")}
    video = {name for name in there if name.startswith(("track_", "unit_tracker", "stage2_", "video_"))}
    assert compared == there - video
