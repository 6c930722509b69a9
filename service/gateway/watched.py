"""A file of the operator's that is read again when it changes."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from service.config import ConfigurationError

_T = TypeVar("_T")


class WatchedFile(Generic[_T]):
    """What a file says; while it is broken, what it said before."""

    def __init__(
        self,
        path: Path,
        read: Callable[[Path], _T],
        what: str,
        summary: Callable[[_T], str],
        log: logging.Logger,
    ) -> None:
        """`what` is in it: `keys`, of the setting `keys_file`. Raises ConfigurationError, as `read` does."""
        self._path, self._read = path, read
        self._what, self._summary, self._log = what, summary, log
        self._state = _state(path)
        self.says = read(path)

    def look(self) -> _T:
        """What it says now. To ask costs microseconds, and no change is overlooked."""
        state = _state(self._path)
        if state != self._state:
            self._state = state
            try:
                self.says = self._read(self._path)
            except ConfigurationError as error:
                self._log.error("%s. The %s stay as they were", error, self._what)
            else:
                told = self._what, self._path, self._summary(self.says)
                self._log.info("%s_file %s was read again: %s", *told)
        return self.says


def _state(path: Path) -> tuple[int, ...]:
    """What changes when the file does. A mounted map of Kubernetes is a link that is exchanged."""
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
