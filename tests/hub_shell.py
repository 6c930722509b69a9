"""Commands that fetch from a hub of a test's own. They are processes, since the hub's settings are theirs."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.hub_server import Hub, serve_hub

REPOSITORY, FILE = "somebody/students", "folder/student.pt"
FETCH = """
import json, sys
from model_store import pull
told = []
try:
    found = pull.fetch(*json.loads(sys.argv[1]), lambda stage, fraction: told.append((stage, fraction)))
    answer = {name: str(getattr(found, name)) for name in found.__slots__} | {"origin": found.origin()}
except pull.PullError as error:
    answer = {"error": str(error)}
print(json.dumps(answer | {"told": told, "torch": "torch" in sys.modules}))
"""


@dataclass
class Shell:
    """Runs commands with the hub's environment."""

    hub: Hub
    home: Path

    def environment(self, **more: str) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        ours = {"HF_ENDPOINT": self.hub.url, "HF_HOME": str(self.home), "NO_PROXY": "127.0.0.1,localhost"}
        return {**kept, **ours, **more}

    def run(self, *command: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *command], capture_output=True, text=True, env=self.environment(**more)
        )

    def fetch(self, *aliases: str, revision: str | None = None, **more: str) -> dict[str, Any]:
        done = self.run("-c", FETCH, json.dumps([REPOSITORY, FILE, aliases, revision]), **more)
        # Nothing of huggingface_hub's is printed: no warning, no bar.
        assert (done.returncode, done.stderr) == (0, "")
        answer: dict[str, Any] = json.loads(done.stdout)
        assert not answer.pop("torch")
        return answer

    def fails(self, *aliases: str, **more: str) -> str:
        """What is told of a fetch that cannot succeed, in one line."""
        told: str = self.fetch(*aliases, **more)["error"]
        assert "\n" not in told
        return told

    def pull(self, name: str, **more: str) -> subprocess.CompletedProcess[str]:
        store = str(self.home.parent / "store")
        return self.run("-m", "service.cli", "variants", "pull", name, "--store", store, **more)

    def refuses(self, name: str, sentence: str, **more: str) -> None:
        """The command ends with one line that has the sentence, and nothing is in the store."""
        done = self.pull(name, **more)
        assert (done.returncode, done.stdout) == (1, "")
        (line,) = done.stderr.strip().splitlines()
        assert sentence in line
        assert not (self.home.parent / "store").exists()


@contextmanager
def hub_shell(hub: Hub, folder: Path) -> Iterator[Shell]:
    """Serve the hub; what is fetched lies below `folder / "home"`, what is imported in `folder / "store"`."""
    with serve_hub(hub):
        yield Shell(hub, folder / "home")
