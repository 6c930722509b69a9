"""Artefacts appear in the store whole or not at all."""

import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from model_store.artifact import StoreError

# A folder that is being filled: this, the artefact's name, a tilde and something random.
_PREFIX = ".importing-"
_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def staged(store: Path, name: str) -> Iterator[Path]:
    """A folder to fill, which becomes `<store>/<name>` if nothing fails and vanishes if something does.

    What processes that were killed left of earlier tries is removed.

    Raises:
        StoreError: the disk is full.
    """
    store.mkdir(parents=True, exist_ok=True)
    staging, lock = _begin(store, name)
    try:
        made = staging / "new"
        made.mkdir()
        with _room(store):
            yield made
        _swap(store / name, made, staging / "old")
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        os.close(lock)


def _begin(store: Path, name: str) -> tuple[Path, int]:
    """A folder of our own and the lock on it, which goes with the process, however that goes."""
    with _locked(store):
        for left in store.glob(f"{_PREFIX}*"):
            _sweep(store, left)
        staging = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{name}~", dir=store))
        lock = os.open(staging, os.O_RDONLY)
        fcntl.flock(lock, fcntl.LOCK_EX)
    return staging, lock


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _sweep(store: Path, left: Path) -> None:
    """Remove the folder unless a process has it locked; an artefact that was on its way out comes back."""
    lock = os.open(left, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return
    else:
        name = left.name.removeprefix(_PREFIX).rpartition("~")[0]
        if (left / "old").exists() and not (store / name).exists():
            (left / "old").replace(store / name)
        shutil.rmtree(left, ignore_errors=True)
    finally:
        os.close(lock)


def _swap(place: Path, made: Path, old: Path) -> None:
    """`made` takes the place, or whatever was there stays."""
    if place.exists():
        place.replace(old)
    try:
        made.replace(place)
    except OSError:
        with suppress(FileNotFoundError):
            old.replace(place)
        raise


@contextmanager
def _room(store: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise StoreError(f"there is no room in {store} for the artefact: {error.strerror}") from error
        raise
