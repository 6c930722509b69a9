"""Finds what has expired among many entries, without looking at those that have not."""

import heapq
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)

# Entries in the heap that are of no use any more, before the heap is made anew.
_SPARE = 64


class ExpiryQueue(Generic[Key]):
    """Keys by the time at which each expires. Every method takes O(log n) time, amortized.

    An entry whose time moves stays where it is in the heap until it comes up, and is then put back: a session
    that is used for every frame costs no memory for it.
    """

    def __init__(self) -> None:
        self._times: dict[Key, float] = {}
        # The earliest first; entries of one time come in the order in which they were put in.
        self._heap: list[tuple[float, int, Key]] = []
        # The time under which each key is in the heap; an entry with another time is out of date.
        self._queued: dict[Key, float] = {}
        self._count = 0

    def __len__(self) -> int:
        return len(self._times)

    def set(self, key: Key, time: float) -> None:
        """Let the key expire at this time, in place of an earlier setting."""
        self._times[key] = time
        queued = self._queued.get(key)
        if queued is None or time < queued:
            self._push(key, time)

    def discard(self, key: Key) -> None:
        """Forget the key if it is there."""
        if self._times.pop(key, None) is not None:
            self._queued.pop(key, None)
            self._shrink()

    def pop_expired(self, now: float) -> Iterator[tuple[Key, float]]:
        """Remove and yield the keys that have expired at `now`, with their times, the earliest first."""
        while self._heap and self._heap[0][0] <= now:
            queued, _, key = heapq.heappop(self._heap)
            if self._queued.get(key) != queued:
                continue
            del self._queued[key]
            time = self._times[key]
            if time <= now:
                del self._times[key]
                yield key, time
            else:
                self._push(key, time)

    def clear(self) -> None:
        """Forget all keys."""
        self._times.clear()
        self._heap.clear()
        self._queued.clear()

    def _push(self, key: Key, time: float) -> None:
        self._queued[key] = time
        self._count += 1
        heapq.heappush(self._heap, (time, self._count, key))
        self._shrink()

    def _shrink(self) -> None:
        """Make the heap anew if most of it is out of date."""
        if len(self._heap) > 2 * len(self._times) + _SPARE:
            self._heap = [entry for entry in self._heap if self._queued.get(entry[2]) == entry[0]]
            heapq.heapify(self._heap)
