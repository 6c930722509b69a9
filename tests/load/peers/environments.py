"""A virtual environment for each peer: the peer at its pinned version, the project with our versions."""

import hashlib
import json
import subprocess
import sys
import tomllib
import venv
from importlib.metadata import distributions
from pathlib import Path

from service.cli_common import CommandError
from tests.load.peers.servers import ROOT, Server

_STAMP = "installed"
# What the graphs, the pictures and the masks go through: of the very versions that we run here.
_SAME = (
    "openvino",
    "onnxruntime",
    "numpy",
    "scipy",
    "pillow",
    "opencv-python-headless",
    "pycocotools",
    "tokenizers",
    "ftfy",
)


def python_of(server: Server, place: Path) -> Path:
    """The interpreter that runs the server, in an environment under `place` that is made where it is missing.

    Raises CommandError that has pip's last words.
    """
    if not server.folder:
        return Path(sys.executable)
    folder = place / server.folder
    python = folder / "bin" / "python"
    constraints = "".join(sorted(f"{name}=={version}\n" for name, version in _versions().items()))
    stamp = hashlib.sha256(
        "\n".join(
            (
                sys.version,
                str(ROOT),
                constraints,
                server.requirements.read_text(),
                json.dumps(_ours()),
            )
        ).encode()
    ).hexdigest()
    mark = folder / _STAMP
    if mark.is_file() and mark.read_text() == stamp:
        return python
    venv.create(folder, with_pip=True, clear=True)
    (folder / "constraints.txt").write_text(constraints)
    command: list[str | Path] = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    command += ["-r", server.requirements, "-c", folder / "constraints.txt", "-e", f"{ROOT}[cpu]"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise CommandError(f"{server.name} cannot be installed: {done.stderr.strip()[-2000:]}")
    mark.write_text(stamp)
    return python


def _versions() -> dict[str, str]:
    return {each.name.lower(): each.version for each in distributions() if each.name.lower() in _SAME}


def _ours() -> list[str]:
    """What the project itself needs there."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return [*project["dependencies"], *project["optional-dependencies"]["cpu"]]
