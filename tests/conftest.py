"""Fixtures that any test may use: reference outputs, a real Redis, artefacts made once per run."""

import os
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path

import pytest
from hypothesis import settings

from tests.command import run_command
from tests.redis_server import RedisServer
from tests.released import import_released

pytest_plugins = ["tests.small_student"]

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
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model store for the whole run."""
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="session")
def synthetic(store: Path) -> Path:
    """The artefact that `make serve` serves, made by the command it uses. Needs no reference outputs."""
    run_command("variants", "synthesize", "es-ev-s-mc-s0", "--store", str(store / "synthetic"))
    return store / "synthetic" / "es-ev-s-mc-s0"


@pytest.fixture(scope="session")
def imported(store: Path, reference: Path) -> Callable[..., Path]:
    """(variant, context, rows) -> its artefact, imported by the public command from its released layout.

    `context` and `rows` (of the text position table) are None for the variant's own.
    """

    return cache(partial(import_released, reference, store))
