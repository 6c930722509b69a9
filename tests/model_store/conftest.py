"""The small student's weights as a released file has them."""

from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from torch import Tensor

from model_store import importing, registry
from model_store.assembly import assemble
from model_store.networks.sizes import Sizes
from model_store.networks.student import build
from model_store.selfcheck import in_file
from tests.once import once

# How keys of the objects' side begin in a released file.
INTERACTIVE = "detector.backbone.vision_backbone.sam2_convs."
TRACKER = "tracker."


@pytest.fixture
def released(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights by the keys of a released file, with a part of each kind that no graph reads."""
    tensors = in_file(weights)
    tensors["tracker.maskmem_tpos_enc"] = torch.zeros(7, 1, 1, 4)
    tensors["detector.backbone.vision_backbone.sam2_convs.3.conv_1x1.weight"] = torch.zeros(4, 4, 1, 1)
    tensors["detector.backbone.vision_backbone.trunk.model.head.1.num_batches_tracked"] = torch.tensor(3)
    return tensors


@pytest.fixture(scope="session")
def partial_artefact(
    tmp_path_factory: pytest.TempPathFactory, weights: dict[str, Tensor], sizes: Sizes
) -> Path:
    """The small student's, of a file without the objects' side: without texts, and with weights as f16."""
    tensors = {
        key: value for key, value in in_file(weights).items() if not key.startswith((INTERACTIVE, TRACKER))
    }
    made = assemble(sizes, tensors)
    account = importing.Account(
        source={"file": "file.pt"}, audit=asdict(made.audit), texts=False, lacking=made.lacking, halves=True
    )
    variant, student = registry.find("es-ev-s-mc-s0"), build(sizes, made.weights, made.abilities)

    def make(store: Path) -> None:
        importing.make(variant, student, store, lambda *_: None, account)

    return once(tmp_path_factory, "partial", make) / variant.name
