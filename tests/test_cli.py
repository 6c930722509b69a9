"""The command: what it says, and with which exit code."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.gateway.serve_fakes import Served
from tests.pictures import encoded


def _run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "service.cli", *arguments]
    variables = {**os.environ, "COLUMNS": "200", **environment}
    return subprocess.run(command, capture_output=True, text=True, env=variables)


def _fails(code: int, sentence: str, *arguments: str, **environment: str) -> None:
    """It exits with the code, says the sentence on standard error, and shows no traceback."""
    done = _run(*arguments, **environment)
    assert done.returncode == code, done.stderr
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    if code == 1:
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where a fake variant "demo" is served."""
    with Served(tmp_path_factory.mktemp("served") / "log", "1", "demo") as served:
        served.wait_for("demo is ready")
        yield served.url


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """A picture of the size that the fake worker's masks have."""
    path = tmp_path / "picture.png"
    path.write_bytes(encoded(Image.new("RGB", (6, 4), "grey"), "PNG"))
    return path


def test_help_names_every_command_and_imports_nothing_heavy() -> None:
    done = _run("--help")
    assert done.returncode == 0
    for command in ("serve", "gateway", "worker", "segment", "track", "variants", "bench"):
        assert command in done.stdout
    code = "import sys, service.cli; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not {"grpc", "fastapi", "pydantic", "httpx", "PIL", "numpy"} & set(loaded.split())


def test_wrong_usage_exits_with_2() -> None:
    _fails(2, "Missing argument", "worker")
    _fails(2, "No such command", "train")
    _fails(2, "Missing argument", "segment")
    _fails(2, "setting http_port", "gateway", "--http-port", "99999")
    _fails(2, "JSON", "gateway", EFFICIENTSAM3_WORKERS="{")
    workers = json.dumps({"demo": ["127.0.0.1:1"]})
    ports = {"EFFICIENTSAM3_HTTP_PORT": "0", "EFFICIENTSAM3_GRPC_PORT": "0"}
    _fails(
        2,
        "default_variant",
        "gateway",
        EFFICIENTSAM3_WORKERS=workers,
        EFFICIENTSAM3_DEFAULT_VARIANT="x",
        **ports,
    )


def test_expected_failures_are_one_line_and_exit_with_1(picture: Path, tmp_path: Path, url: str) -> None:
    empty = str(tmp_path / "store")
    _fails(1, "no artefact of es-ev-s-mc-s0", "serve", "es-ev-s-mc-s0", "--store", empty)
    _fails(1, "variants synthesize es-ev-s-mc-s0", "serve", "es-ev-s-mc-s0", "--store", empty)
    _fails(1, "variants pull es-ev-m-mc-s0", "serve", "es-ev-m-mc-s0", "--store", empty)
    _fails(1, "no variant 'es-ev-xs'", "serve", "es-ev-xs", "--store", empty)
    _fails(1, "no variant 'es-ev-xs'", "variants", "show", "es-ev-xs")
    _fails(1, "/nowhere.pt is no file", "variants", "import", "es-ev-m", "--checkpoint", "/nowhere.pt")
    _fails(1, "manifest.json", "worker", "es-ev-s-mc-s0", "--store", empty)
    _fails(1, "/nowhere.jpg", "segment", "/nowhere.jpg", "--text", "truck")
    _fails(1, "No server answers", "segment", str(picture), "--text", "a", "--server", "http://127.0.0.1:1")
    _fails(1, "variant_not_found", "segment", str(picture), "--text", "a", "--variant", "x", "--server", url)
    taken = url.rpartition(":")[2]
    _fails(1, f"cannot listen on 127.0.0.1:{taken}", "gateway", "--http-port", taken, "--grpc-port", "0")


def test_synthesize_if_missing_keeps_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "es-ev-s-mc-s0").mkdir()
    (tmp_path / "es-ev-s-mc-s0" / "manifest.json").write_text("kept")
    done = _run("variants", "synthesize", "es-ev-s-mc-s0", "--if-missing", "--store", str(tmp_path))
    assert (done.returncode, "already" in done.stdout) == (0, True)
    assert (tmp_path / "es-ev-s-mc-s0" / "manifest.json").read_text() == "kept"


def test_variants_are_listed_and_shown(tmp_path: Path) -> None:
    listed = _run("variants", "list", "--store", str(tmp_path))
    assert listed.returncode == 0, listed.stderr
    (row,) = [line.split() for line in listed.stdout.splitlines() if line.split()[:1] == ["es-ev-s-mc-s0"]]
    assert row == ["es-ev-s-mc-s0", "efficientvit_b0", "mobileclip_s0", "16", "no", "-"]
    shown = _run("variants", "show", "es-ev-s-mc-s0", "--store", str(tmp_path))
    assert shown.returncode == 0, shown.stderr
    assert "context_length: 16" in shown.stdout and "released: False" in shown.stdout


def test_a_missing_extra_names_the_pip_command(tmp_path: Path) -> None:
    # What the import system does when torch is not installed.
    code = "import sys; sys.modules['torch'] = None; from service.cli import main; main(sys.argv[1:])"
    command = [
        sys.executable,
        "-c",
        code,
        "variants",
        "synthesize",
        "es-ev-s-mc-s0",
        "--store",
        str(tmp_path),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert (
        done.stderr.strip() == "efficientsam3: this needs torch: pip install 'efficientsam3-service[import]'"
    )
