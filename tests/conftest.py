"""Fixtures that any test may use: reference outputs, a real Redis, artefacts made once per run."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.redis_server import RedisServer
from tests.released import write_checkpoint


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


def run_command(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run `efficientsam3` with these arguments, as a user would, and fail loudly when it fails."""
    command = [sys.executable, "-m", "service.cli", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **(env or {})})
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done


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
def imported(store: Path, reference: Path) -> Callable[[str], Path]:
    """variant -> its artefact, imported by the public command from a checkpoint in the released layout."""

    @cache
    def once(variant: str) -> Path:
        checkpoint = write_checkpoint(reference, variant, store / f"{variant}.pt")
        run_command(
            "variants", "import", variant, "--checkpoint", str(checkpoint), "--store", str(store / "imported")
        )
        checkpoint.unlink()
        return store / "imported" / variant

    return once
