"""How much a worker is trusted: one that fails is set aside, one that is back is given little at first."""

import time
from collections.abc import Callable

# Failures in a row that set a worker aside; the first time, and at most, for so many seconds.
_FAILURES = 5
_FIRST_S, _LONGEST_S = 1.0, 30.0
# Until a worker that has come back is asked as much as others, and the share that it begins with.
_RAMP_S, _LEAST_SHARE = 10.0, 0.1


class Standing:
    """What a worker's answers say of it. Times are the process's own, seconds."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._failures = 0
        self._aside_s = _FIRST_S
        self._aside_until = float("-inf")
        self._back_since = float("-inf")

    @property
    def aside(self) -> bool:
        """It is not to be asked, if there is another."""
        return self._now() < self._aside_until

    @property
    def share(self) -> float:
        """Of the load that others have, 0..1."""
        return min(1.0, max(_LEAST_SHARE, (self._now() - self._back_since) / _RAMP_S))

    def came_back(self) -> None:
        """It is ready after it was not."""
        self._back_since = self._now()

    def answered(self) -> None:
        """It did what it should, which may be to refuse a request that is wrong."""
        self._failures, self._aside_s = 0, _FIRST_S

    def failed(self) -> None:
        """It failed by a fault of its own."""
        self._failures += 1
        if self._failures >= _FAILURES:
            # One more failure, once it is back, sets it aside again, for longer.
            self._failures = _FAILURES - 1
            self._aside_until = self._back_since = self._now() + self._aside_s
            self._aside_s = min(2 * self._aside_s, _LONGEST_S)
