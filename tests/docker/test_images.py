"""What docker/ holds: clean to the linter, pinned, and as pyproject.toml has it. Nothing is built here."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent.parent
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
DOCKERFILE = (ROOT / "docker" / "Dockerfile").read_text("utf-8")
EXTRAS = {"gateway": ("tracing",), "worker-cpu": ("cpu", "tracing"), "worker-gpu": ("gpu", "tracing")}

_PIN = re.compile(r"^(?P<name>[a-z0-9-]+)==(?P<version>\S+)((?: \\\n    --hash=sha256:[0-9a-f]{64})+)$", re.M)
_IMAGE = re.compile(r"^[\w./-]+:[\w.-]+@sha256:[0-9a-f]{64}$")


@pytest.mark.parametrize("file", ["docker/Dockerfile", "tests/compose/Dockerfile"])
def test_a_dockerfile_is_clean_to_hadolint(file: str) -> None:
    linter = Path(sys.executable).parent / "hadolint"
    done = subprocess.run([linter, "--no-color", ROOT / file], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def _pins(name: str) -> dict[str, str]:
    """Versions by package in a file of requirements, which has nothing else."""
    text = (ROOT / "docker" / "requirements" / f"{name}.txt").read_text("utf-8")
    pins = {found["name"]: found["version"] for found in _PIN.finditer(text)}
    assert _PIN.sub("", text).strip() == ""
    return pins


def _left_out(image: str) -> set[str]:
    """What docker/lock says that the image does without."""
    script = (ROOT / "docker" / "lock").read_text("utf-8")
    groups = dict(re.findall(r"mapfile -t (\w+) < <\(without ([\w -]+)\)", script))
    (line,) = re.findall(rf"^lock {image} .*$", script, re.M)
    names = [name for group in re.findall(r"\$\{(\w+)\[@\]\}", line) for name in groups[group].split()]
    return {*names, *re.findall(r"--no-emit-package (\S+)", line)}


@pytest.mark.parametrize("image", EXTRAS)
def test_what_an_image_installs_is_pinned_as_the_project_asks(image: str) -> None:
    pins, extras = _pins(image), PROJECT["optional-dependencies"]
    asked = [*PROJECT["dependencies"], *(each for extra in EXTRAS[image] for each in extras[extra])]
    wanted = {canonicalize_name(each.name): each.specifier for each in map(Requirement, asked)}
    assert wanted.keys() - pins.keys() == wanted.keys() & _left_out(image)
    wrong = {name: pins[name] for name in wanted.keys() & pins.keys() if pins[name] not in wanted[name]}
    assert wrong == {}


def test_a_gateway_has_no_model_runtime_and_a_worker_no_web_framework() -> None:
    assert not _pins("gateway").keys() & {
        "numpy",
        "openvino",
        "onnxruntime",
        "opencv-python-headless",
        "torch",
    }
    for image in ("worker-cpu", "worker-gpu"):
        assert not _pins(image).keys() & {"fastapi", "starlette", "uvicorn", "torch"}
    assert "onnxruntime-gpu" in _pins("worker-gpu") and "openvino" in _pins("worker-cpu")


def test_the_base_is_pinned_and_of_a_python_that_the_project_runs_on() -> None:
    bases = re.findall(r"^ARG BASE_IMAGE=(.+)$", DOCKERFILE, re.M)
    assert len(bases) == 1 and _IMAGE.match(bases[0])
    release = re.match(r"python:(3\.\d+)\.", bases[0])
    assert release and f"Programming Language :: Python :: {release[1]}" in PROJECT["classifiers"]
    assert f"--python-version {release[1]}" in (ROOT / "docker" / "lock").read_text("utf-8")
    assert bases[0] in (ROOT / "tests" / "compose" / "Dockerfile").read_text("utf-8")
