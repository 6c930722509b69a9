"""Fair shares of a bounded number of places, for owners that compete for them."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

# Owners below their share are admitted up to so many times the limit, until the others have shrunk to theirs.
_MOST = 2


class FairShare:
    """Counts the places that owners hold, and decides who gets the next one.

    While places are free, every owner gets one, so that an owner who is alone may hold all of them. When none
    is free, only an owner that holds less than its fair share gets one: the limit divided by the number of
    owners that hold any.
    """

    def __init__(self) -> None:
        self._held: Counter[str] = Counter()
        # Places that are held.
        self.total = 0

    def held(self, owner: str) -> int:
        """Places that the owner holds."""
        return self._held[owner]

    def share(self, owner: str, limit: int) -> int:
        """The fair share of an owner that holds a place, or is about to."""
        owners = len(self._held) + (owner not in self._held)
        return max(1, limit // owners)

    def has_room(self, owner: str, limit: int) -> bool:
        """Whether the owner may have one more of `limit` places."""
        if self.total < limit:
            return True
        return self.total < _MOST * limit and self.held(owner) < self.share(owner, limit)

    @contextmanager
    def hold(self, owner: str) -> Iterator[None]:
        """Hold a place for the owner during the block."""
        self.total += 1
        self._held[owner] += 1
        try:
            yield
        finally:
            self.total -= 1
            self._held[owner] -= 1
            if not self._held[owner]:
                del self._held[owner]
