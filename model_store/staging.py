"""Artefacts appear in the store whole or not at all."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def staged(store: Path, name: str) -> Iterator[Path]:
    """A folder to fill, which becomes `<store>/<name>` if nothing fails and vanishes if something does."""
    store.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=store) as staging:
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
