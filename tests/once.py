"""What is made once per run, though the tests run in several processes: the first that needs it makes it."""

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import pytest


def once(tmp_path_factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder of this run alone, filled by `make`. The other processes wait for it.

    What fails is tried again by the next process that needs it, in a folder of its own.
    """
    base = tmp_path_factory.getbasetemp()
    # The processes of pytest-xdist have their folders in that of the run.
    run = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    made = run / f"once-{name}"
    with (run / f"once-{name}.lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if not made.exists():
            making = tmp_path_factory.mktemp(f"making-{name}")
            make(making)
            making.rename(made)
    return made
