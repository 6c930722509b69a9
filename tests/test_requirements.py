"""Versions without known advisories: in pyproject.toml, in the images' lock files, and installed."""

import json
import re
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from tests import audit
from tests.redis_server import RedisServer

REPOSITORY = Path(__file__).parents[1]
# The oldest releases that we know no advisory of for what we do with them. Raise them with pyproject.toml.
MINIMUM = {
    "python-multipart": "0.0.27",
    "onnx": "1.21",
    "pillow": "12.2",
    "av": "16",
    "redis": "6.4",
    "h11": "0.16",
    "starlette": "0.49.1",
    "safetensors": "0.5",
}
# Of Redis itself: 6.2 has what our scripts need; these have the fixes for its Lua engine (October 2025).
MINIMUM_REDIS = "8.2.2"


def _requirements() -> list[Requirement]:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]
    lists = [project["dependencies"], *project["optional-dependencies"].values()]
    return [Requirement(text) for texts in lists for text in texts]


@pytest.mark.parametrize("name", MINIMUM)
def test_lower_bounds_and_installed_versions_have_the_minimum(name: str) -> None:
    stated = [each for each in _requirements() if each.name == name]
    for requirement in stated:
        bounds = [Version(each.version) for each in requirement.specifier if each.operator in (">=", "==")]
        assert bounds and min(bounds) >= Version(MINIMUM[name]), requirement
    try:
        assert Version(version(name)) >= Version(MINIMUM[name])
    except PackageNotFoundError:
        pytest.skip(f"{name} is not installed")


def test_lock_files_have_the_minimum_and_what_pyproject_allows() -> None:
    allowed = {each.name: each.specifier for each in _requirements() if each.specifier}
    seen = set()
    for path in sorted((REPOSITORY / "docker" / "requirements").glob("*.txt")):
        for name, pinned in re.findall(r"^([a-z0-9._-]+)==([^ \\\n]+)", path.read_text("utf-8"), flags=re.M):
            seen.add(name)
            assert Version(pinned) >= Version(MINIMUM.get(name, "0")), (path.name, name)
            assert name not in allowed or allowed[name].contains(pinned), (path.name, name)
    assert {"python-multipart", "pillow", "av", "redis", "h11", "starlette"} <= seen


def test_composed_redis_has_the_minimum() -> None:
    text = (REPOSITORY / "docker-compose.yml").read_text("utf-8")
    (pinned,) = re.findall(r"image: redis:([0-9.]+)-alpine@sha256:[0-9a-f]{64}", text)
    assert Version(pinned) >= Version(MINIMUM_REDIS)


def test_redis_of_the_tests_runs_our_scripts(redis_server: RedisServer) -> None:
    with redis_server.client() as client:
        told = client.info("server")
    assert Version(str(told["redis_version"])) >= Version("6.2")


def _report_of(**entry: object) -> str:
    return f"print({json.dumps({'dependencies': [{'name': 'pillow', **entry}]})!r})"


@pytest.mark.parametrize(
    ("behavior", "code", "says"),
    [
        (_report_of(version="13.0", vulns=[]), 0, "1 of 1 packages were checked"),
        (_report_of(version="1.0", vulns=[{"id": "PYSEC-1"}]), audit.FOUND, "pillow 1.0: PYSEC-1"),
        (_report_of(skip_reason="not found"), audit.UNREACHED, "could not be reached"),
        ("sys.exit('ConnectionError: no route')", audit.UNREACHED, "could not be reached"),
    ],
)
def test_audit_distinguishes_an_advisory_from_a_lost_network(
    capfd: pytest.CaptureFixture[str], behavior: str, code: int, says: str
) -> None:
    """With a stand-in for pip-audit, since tests reach no network."""
    assert audit.audit((sys.executable, "-c", f"import sys; {behavior}")) == code
    assert says in "".join(capfd.readouterr())


def test_audit_is_no_part_of_the_checks() -> None:
    makefile = (REPOSITORY / "Makefile").read_text("utf-8")
    (check,) = re.findall(r"^check:.*\n((?:\t.*\n)+)", makefile, flags=re.M)
    assert "audit" not in check and re.search(r"^audit:", makefile, flags=re.M)
    assert subprocess.run(["make", "-n", "check"], cwd=REPOSITORY, capture_output=True).returncode == 0
