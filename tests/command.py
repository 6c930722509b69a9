"""The command, as a user runs it."""

import os
import subprocess
import sys


def run_command(
    *arguments: str, env: dict[str, str] | None = None, fails: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run `efficientsam3` with these arguments, as a user would, and fail loudly unless it ends so."""
    command = [sys.executable, "-m", "service.cli", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **(env or {})})
    assert (done.returncode != 0) == fails, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done
