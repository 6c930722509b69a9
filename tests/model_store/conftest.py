"""A student of the real make that is small enough to be exported in seconds."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from model_store import importing, registry, synthetic
from model_store.networks.keys import sources
from model_store.networks.sizes import Sizes, TextSizes
from model_store.networks.student import Student, blank, build, shapes

VARIANT = "es-ev-s-mc-s0"


@pytest.fixture(scope="session")
def sizes() -> Sizes:
    text = TextSizes(context=6, width=16, layers=3, heads=2, convolutional_ends=True)
    return Sizes(
        trunk="efficientvit_b0",
        trunk_channels=128,
        text=text,
        image_size=72,
        embedding_channels=16,
        grid=5,
        width=16,
        heads=2,
        feed_forward=32,
        geometry_layers=1,
        encoder_layers=1,
        decoder_layers=2,
        queries=6,
    )


@pytest.fixture(scope="session")
def weights(sizes: Sizes) -> dict[str, Tensor]:
    return synthetic.weights(shapes(blank(sizes)))


@pytest.fixture(scope="session")
def student(sizes: Sizes, weights: dict[str, Tensor]) -> Student:
    return build(sizes, weights)


@pytest.fixture
def released(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights by the keys of a released file, with a part of each kind that no graph reads."""
    tensors: dict[str, Tensor] = {}
    thirds: dict[str, list[Tensor]] = {}
    origin = sources(weights)
    for name, tensor in weights.items():
        source = origin[name]
        if source.third is None:
            tensors[source.key] = tensor
        else:
            thirds.setdefault(source.key, [tensor] * 3)[source.third] = tensor
    tensors |= {key: torch.cat(parts) for key, parts in thirds.items()}
    tensors["tracker.maskmem_tpos_enc"] = torch.zeros(7, 1, 1, 4)
    tensors["detector.backbone.vision_backbone.sam2_convs.3.conv_1x1.weight"] = torch.zeros(4, 4, 1, 1)
    tensors["detector.backbone.vision_backbone.trunk.model.head.1.num_batches_tracked"] = torch.tensor(3)
    return tensors


@pytest.fixture(scope="session")
def artefact(tmp_path_factory: pytest.TempPathFactory, student: Student, weights: dict[str, Tensor]) -> Path:
    """The small student's artefact. Not to be changed; copy it."""
    store = tmp_path_factory.mktemp("store")
    audit = {"keys": len(weights), "used": len(weights), "unused_groups": {}}
    variant = registry.find(VARIANT)
    source = {"recipe": synthetic.RECIPE}
    return importing.make(variant, student, store, lambda *_: None, source, audit)
