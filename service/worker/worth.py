"""Whether calls of a graph are worth merging, which what they took lately tells."""

from collections import deque
from statistics import median

# Of each kind, the latest that count, and the fewest that say anything. The first of a shape takes longer.
_LATEST, _FEWEST = 9, 3
# Where it does not pay, one chance of so many is taken all the same: machines and requests change.
_RETRIED = 20


class Worth:
    """Of one graph.

    A batch saves time in the engine, and takes some to be put together. Which is more depends on the graph,
    on the size of its inputs, and on the machine: many cores and accelerators gain much by it, one core next
    to nothing.
    """

    def __init__(self) -> None:
        # Seconds of a row.
        self._alone: deque[float] = deque(maxlen=_LATEST)
        self._merged: deque[float] = deque(maxlen=_LATEST)
        self._declined = 0

    def took(self, calls: int, rows: int, seconds: float) -> None:
        """So many calls, of so many rows in all, were answered by one run."""
        (self._alone if calls == 1 else self._merged).append(seconds / rows)

    def pays(self) -> bool:
        """Whether the next calls should be merged."""
        if min(len(self._alone), len(self._merged)) < _FEWEST or median(self._merged) <= median(self._alone):
            return True
        self._declined += 1
        return self._declined % _RETRIED == 0
