"""What was computed before, least recently used first out, bounded in bytes."""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

_V = TypeVar("_V")


class ByteCache(Generic[_V]):
    """Values by key, of at most so many bytes in all. Not thread-safe."""

    def __init__(self, max_bytes: int) -> None:
        """0 keeps nothing."""
        self._max_bytes = max_bytes
        self._bytes = 0
        self._entries: OrderedDict[Hashable, tuple[_V, int]] = OrderedDict()

    def get(self, key: Hashable) -> _V | None:
        """The value, which is now the most recently used; None where there is none."""
        if key not in self._entries:
            return None
        self._entries.move_to_end(key)
        return self._entries[key][0]

    def put(self, key: Hashable, value: _V, size: int) -> None:
        """Keep the value of `size` bytes, unless it is larger than all that may be kept."""
        self.drop(key)
        if size > self._max_bytes:
            return
        self._entries[key] = (value, size)
        self._bytes += size
        while self._bytes > self._max_bytes:
            _, (_, freed) = self._entries.popitem(last=False)
            self._bytes -= freed

    def drop(self, key: Hashable) -> None:
        """Forget the value, if it is there."""
        if key in self._entries:
            self._bytes -= self._entries.pop(key)[1]
