"""One running service for the tests of this folder."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serving import Serving


@pytest.fixture(scope="module")
def serving(synthetic: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """The synthesized student behind gateway and worker, in processes of their own."""
    with Serving(synthetic, tmp_path_factory.mktemp("serving") / "log", max_body_bytes=4_000_000) as running:
        yield running


@pytest.fixture(scope="package")
def small(artefact: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """The small student behind gateway and worker, in processes of their own."""
    with Serving(artefact, tmp_path_factory.mktemp("small") / "log", precision="f32") as serving:
        yield serving
