"""What stands between an artefact and its worker, run for real: the script of the init step."""

import hashlib
import subprocess
from pathlib import Path

import pytest

from tests.deploy.containers import environment
from tests.deploy.helm import LEAST, render


def _step(store: Path, digest: str) -> "subprocess.CompletedProcess[str]":
    """The init step of a variant with this digest, with its artefact in `store`."""
    entry = {"name": "demo", "digest": f"sha256:{digest}", "artefact": {"claim": "a"}}
    (worker,) = render(values={**LEAST, "variants": [entry]}).workers()
    (step,) = worker["spec"]["template"]["spec"]["initContainers"]
    (mount,) = [each for each in step["volumeMounts"] if each["name"] == "artefact"]
    told = {name: value.replace(mount["mountPath"], str(store)) for name, value in environment(step).items()}
    environ = {"PATH": "/usr/bin:/bin", **told}
    return subprocess.run(step["command"], env=environ, capture_output=True, text=True)


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    file = tmp_path / "demo" / "manifest.json"
    file.parent.mkdir()
    file.write_text('{"variant": "demo"}')
    return file


def test_the_artefact_of_the_digest_is_let_through(tmp_path: Path, manifest: Path) -> None:
    assert _step(tmp_path, hashlib.sha256(manifest.read_bytes()).hexdigest()).returncode == 0


def test_another_artefact_is_not(tmp_path: Path, manifest: Path) -> None:
    done = _step(tmp_path, "0" * 64)
    assert done.returncode != 0 and "FAILED" in done.stdout


def test_none_is_not(tmp_path: Path) -> None:
    done = _step(tmp_path, "0" * 64)
    assert done.returncode != 0 and "manifest.json" in done.stderr
