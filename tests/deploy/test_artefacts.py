"""What the pods do before they serve, run for real: the scripts of the init step and of the pull."""

import hashlib
import subprocess
from pathlib import Path

import pytest

from tests.deploy.containers import container, environment
from tests.deploy.helm import EVERYTHING, LEAST, render


def _init(tmp_path: Path, digest: str, *, pull: bool = False) -> subprocess.Popen[str]:
    """The init step of a variant with this digest, begun, with the store in `tmp_path`."""
    artefact = {"claim": "a", **({"pull": {"revision": "main"}} if pull else {})}
    entry = {"name": "demo", "digest": f"sha256:{digest}", "artefact": artefact}
    (worker,) = render(values={**LEAST, "variants": [entry]}).workers()
    (check,) = worker["spec"]["template"]["spec"]["initContainers"]
    told = {
        each["name"]: each["value"].replace("/var/lib/efficientsam3", str(tmp_path)) for each in check["env"]
    }
    return subprocess.Popen(
        check["command"], env={"PATH": "/usr/bin:/bin", **told}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    file = tmp_path / "demo" / "manifest.json"
    file.parent.mkdir()
    file.write_text('{"variant": "demo"}')
    return file


def test_the_artefact_of_the_digest_is_let_through(tmp_path: Path, manifest: Path) -> None:
    digest = hashlib.sha256(manifest.read_bytes()).hexdigest()
    assert _init(tmp_path, digest).wait(60) == 0


def test_another_artefact_is_not(tmp_path: Path, manifest: Path) -> None:
    step = _init(tmp_path, "0" * 64)
    said, _ = step.communicate(timeout=60)
    assert step.returncode != 0 and "FAILED" in said


def test_a_worker_waits_for_what_is_being_pulled(tmp_path: Path) -> None:
    text = b'{"variant": "demo"}'
    step = _init(tmp_path, hashlib.sha256(text).hexdigest(), pull=True)
    assert step.stdout is not None and "waiting for" in step.stdout.readline()
    folder = tmp_path / "staged"
    folder.mkdir()
    (folder / "manifest.json").write_bytes(text)
    folder.rename(tmp_path / "demo")
    assert step.wait(60) == 0


@pytest.mark.parametrize("there", [True, False])
def test_what_is_there_is_not_pulled_again(tmp_path: Path, there: bool) -> None:
    (job,) = render(values=EVERYTHING).of_kind("Job")
    pull = container(job)
    store, tools, calls = tmp_path / "store", tmp_path / "bin", tmp_path / "calls"
    tools.mkdir()
    command = tools / "efficientsam3"
    command.write_text(f'#!/bin/sh\necho "$@" >> {calls}\n')
    command.chmod(0o755)
    if there:
        (store / "es-ev-m-mc-s0").mkdir(parents=True)
        (store / "es-ev-m-mc-s0" / "manifest.json").touch()
    told = {**environment(pull), "EFFICIENTSAM3_STORE": str(store), "PATH": f"{tools}:/usr/bin:/bin"}
    assert subprocess.run(pull["command"], env=told).returncode == 0
    assert calls.exists() is not there
