"""Every graph of an imported checkpoint against the reference, in f32, on both engines."""

from collections.abc import Callable
from pathlib import Path

import pytest

from model_store import artifact
from tests.parity.measure import measure


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
@pytest.mark.parametrize("variant", ["es-ev-s-mc-s0", "es-ev-m-mc-s0"])
def test_every_graph_agrees_with_the_reference_in_f32(
    imported: Callable[[str], Path], reference: Path, variant: str, engine: str
) -> None:
    loaded = artifact.load(imported(variant))
    differences = measure(loaded, engine, "f32", reference)
    assert {difference.graph for difference in differences} == set(loaded.manifest.graphs)
    assert not [difference for difference in differences if difference.largest > difference.bound]
