"""A student of the real make that is small enough to be exported in seconds: a plugin of fixtures."""

from pathlib import Path

import pytest
from torch import Tensor

from model_store import importing, registry, synthetic
from model_store.networks.sizes import MemorySizes, Sizes, TextSizes
from model_store.networks.student import Abilities, Student, blank, build, shapes
from tests.once import once

VARIANT = "es-ev-s-mc-s0"
REMEMBERING = Abilities(memory="perceiver")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of the files that need the artefact one comes first, the others last.

    So one process of pytest-xdist makes it while the other has something to do.
    """
    needing = {item.path: None for item in items if "artefact" in getattr(item, "fixturenames", ())}
    first = next(iter(needing), None)
    items.sort(key=lambda item: 0 if item.path == first else 2 if item.path in needing else 1)


@pytest.fixture(scope="session")
def sizes() -> Sizes:
    text = TextSizes(context=6, width=16, layers=3, heads=2, convolutional_ends=True)
    # None of them a full student's.
    memory = MemorySizes(
        width=8,
        fuser_feed_forward=24,
        dense_feed_forward=24,
        dense_layers=2,
        latents=5,
        windows=3,
        perceiver_head_width=8,
        perceiver_feed_forward=24,
        attention_heads=2,
        attention_feed_forward=24,
    )
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
        memory=memory,
    )


@pytest.fixture(scope="session")
def weights(sizes: Sizes) -> dict[str, Tensor]:
    """Without a video memory."""
    return synthetic.weights(shapes(blank(sizes)))


@pytest.fixture(scope="session")
def student(sizes: Sizes) -> Student:
    return build(sizes, synthetic.weights(shapes(blank(sizes, REMEMBERING))), REMEMBERING)


@pytest.fixture(scope="session")
def artefact(tmp_path_factory: pytest.TempPathFactory, student: Student, weights: dict[str, Tensor]) -> Path:
    """The small student's artefact. Not to be changed; copy it."""
    audit = {"keys": len(weights), "used": len(weights), "unused_groups": {}}
    account = importing.Account(source={"recipe": synthetic.RECIPE}, audit=audit)
    variant = registry.find(VARIANT)

    def make(store: Path) -> None:
        importing.make(variant, student, store, lambda *_: None, account)

    return once(tmp_path_factory, "small", make) / variant.name
