"""What several threads need: made once, and kept as long as there is room."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Generic, TypeVar

from service.errors import Kind, ServiceError
from service.telemetry import CacheCounts

_V = TypeVar("_V")


class Cache(Generic[_V]):
    """Values by key, of at most so many bytes in all; the least recently used make room.

    Whoever asks for what is being made waits for it.
    """

    def __init__(self, max_bytes: int, size: Callable[[_V], int]) -> None:
        """0 keeps nothing. `size` gives a value's bytes."""
        self._room, self._max_bytes, self._size = max_bytes, max_bytes, size
        self._entries: OrderedDict[Hashable, _V] = OrderedDict()
        self._coming: dict[Hashable, Future[_V]] = {}
        self._hits = self._misses = self._joined = self._evictions = 0
        self._lock = threading.Lock()

    def counts(self) -> CacheCounts:
        """Since it was made."""
        with self._lock:
            held = self._max_bytes - self._room
            return CacheCounts(self._hits, self._misses, self._joined, self._evictions, held)

    def get(self, key: Hashable) -> _V | None:
        """The value, which is now the most recently used; None where there is none, which is no miss yet."""
        with self._lock:
            return self._known(key)

    def get_or_make(self, key: Hashable, make: Callable[[], _V]) -> _V:
        """The value, which `make` gives where there is none yet. Raises what `make` raises."""
        while True:
            with self._lock:
                if (known := self._known(key)) is not None:
                    return known
                coming = self._coming.get(key)
                self._joined += coming is not None
                if coming is None:
                    self._misses += 1
                    self._coming[key] = mine = Future[_V]()
            if coming is None:
                return self._made(key, make, mine)
            try:
                return coming.result()
            except ServiceError as error:
                # Whoever was making it has no use for it any more. We have.
                if error.kind is not Kind.DEADLINE_EXCEEDED:
                    raise

    def _made(self, key: Hashable, make: Callable[[], _V], mine: "Future[_V]") -> _V:
        try:
            value = make()
        except BaseException as error:
            with self._lock:
                del self._coming[key]
            mine.set_exception(error)
            raise
        with self._lock:
            del self._coming[key]
            self._keep(key, value)
        mine.set_result(value)
        return value

    def _known(self, key: Hashable) -> _V | None:
        if key in self._entries:
            self._hits += 1
            self._entries.move_to_end(key)
        return self._entries.get(key)

    def _keep(self, key: Hashable, value: _V) -> None:
        size = self._size(value)
        if size > self._max_bytes:
            return
        self._entries[key] = value
        self._room -= size
        while self._room < 0:
            self._evictions += 1
            self._room += self._size(self._entries.popitem(last=False)[1])
