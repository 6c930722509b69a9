"""Artefacts appear in the store whole or not at all."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def staged(store: Path, name: str) -> Iterator[Path]:
    """A folder to fill, which becomes `<store>/<name>` if nothing fails and vanishes if something does.

    What a process that was killed left of an earlier try is removed.
    """
    store.mkdir(parents=True, exist_ok=True)
    for left in store.glob(f".{name}-*"):
        _sweep(left)
    with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=store) as staging, _locked(staging):
        made, old = Path(staging, "new"), Path(staging, "old")
        made.mkdir()
        yield made
        if (store / name).exists():
            (store / name).replace(old)
        try:
            made.replace(store / name)
        except OSError:
            if old.exists():
                shutil.move(old, store / name)
            raise


@contextmanager
def _locked(folder: str) -> Iterator[None]:
    """Marks the folder as in use. The lock goes with the process, however that goes."""
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _sweep(folder: Path) -> None:
    """Remove the folder unless a process has it locked."""
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return
    else:
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(lock)
