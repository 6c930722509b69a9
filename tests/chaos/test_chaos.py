"""A short piece of `make chaos`, as its command runs it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

# Nothing is lost by design, so that every session must be finished.
_KINDS = ("kill-worker", "part-client-gateway", "full-redis", "read-only-redis")


@pytest.mark.slow
def test_a_short_piece_breaks_no_promise(tmp_path: Path) -> None:
    only = [option for kind in _KINDS for option in ("--only", kind)]
    command = [sys.executable, "-m", "tests.chaos", "--seconds", "15", "--seed", "3", *only]
    done = subprocess.run([*command, "--folder", str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (line,) = (tmp_path / "results.jsonl").read_text().splitlines()
    told = json.loads(line)
    assert told["faults"] and told["sessions"] > 0 and told["frames_answered"] > 0
    assert told["violations"] == told["differing_bits"] == told["sessions_lost"] == 0
    assert told["sessions_lost_by_design"] == told["rollbacks"] == 0
