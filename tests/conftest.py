"""Fixtures that any test may use: reference outputs, a real Redis, artefacts made once per run."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.command import run_command
from tests.once import once
from tests.redis_server import RedisServer
from tests.released import import_released

pytest_plugins = ["tests.small_student", "tests.measured"]

# What fails today fails tomorrow, and on another machine.
settings.register_profile("repeatable", derandomize=True, database=None, deadline=None)
settings.load_profile("repeatable")


@pytest.fixture(scope="session")
def reference() -> Path:
    """The folder of reference outputs: `goldens/`, `manifests/`, `pictures/`, `weight_recipe.py`."""
    named = os.environ.get("EFFICIENTSAM3_REFERENCE", "")
    if named and Path(named, "goldens").is_dir():
        return Path(named)
    reason = f"no reference outputs: EFFICIENTSAM3_REFERENCE={named!r} names no folder with goldens/"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    """A real redis-server of the test's own, with an append-only file that is synced on every write."""
    server = RedisServer(tmp_path / "redis")
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artefact of full size, made by the public command: a minute or two. Needs no reference outputs."""
    variant = "es-ev-s-mc-s0"

    def make(store: Path) -> None:
        run_command("variants", "synthesize", variant, "--store", str(store))

    return once(tmp_path_factory, "synthetic", make) / variant


@pytest.fixture(scope="session")
def imported(tmp_path_factory: pytest.TempPathFactory, reference: Path) -> Callable[..., Path]:
    """(variant, context, rows) -> its artefact, imported by the public command from its released layout.

    `context` and `rows` (of the text position table) are None for the variant's own.
    """

    def artefact(variant: str, context: int | None = None, rows: int | None = None) -> Path:
        def make(store: Path) -> None:
            import_released(reference, store, variant, context, rows)

        return once(tmp_path_factory, f"imported-{variant}-{context}-{rows}", make) / variant

    return artefact
