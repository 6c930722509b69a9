"""Sessions as a worker has them at hand, bounded in bytes."""

import asyncio
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime

from service.sessions.session_store import Claim, Cursor
from service.worker.scenes import Seen
from service.worker.tracker.bank import Array
from service.worker.tracker.state import State, tensors_of

Key = tuple[str, str]


@dataclass(slots=True)
class Session:
    """A session in this process, as the store has it."""

    owner: str
    id: str
    claim: Claim
    cursor: Cursor
    # After the last frame, and before it.
    state: State
    base: State
    # By frame; each a serialized `Answer`.
    answers: dict[int, bytes]
    ttl_s: float
    expires: datetime
    # The last frame's image and features, while they are known.
    seen: Seen | None = None
    # When its next frame may be computed, in the process's own time, seconds.
    due: float = 0.0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def next_frame(self) -> int:
        """Index of the frame that comes next."""
        return self.cursor.frame + 1

    @property
    def tensors(self) -> dict[str, Array]:
        """What is kept of both states, by the name of its part."""
        return {**tensors_of(self.base), **tensors_of(self.state)}

    @property
    def oldest_answer(self) -> int:
        """Index of the oldest frame that can be answered again; that of the next one where there is none."""
        return min(self.answers, default=self.next_frame)

    @property
    def key(self) -> Key:
        """What it is kept under."""
        return self.owner, self.id

    @property
    def nbytes(self) -> int:
        """Of what is kept of its objects, of its answers, and of its last frame."""
        answers = sum(map(len, self.answers.values()))
        return self.state.nbytes + answers + (self.seen.nbytes if self.seen else 0)


class HotSessions:
    """Sessions of at most so many bytes in all, the least used first to be forgotten.

    Their last frames go before them: without one, whoever corrects it sends its image again. A session that
    is being computed stays as it is, and so does the last that was put, however large it is.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = self._room = max_bytes
        # Each with the bytes that it is counted with.
        self._entries: OrderedDict[Key, tuple[Session, int]] = OrderedDict()
        # Those whose last frame is known.
        self._seen: OrderedDict[Key, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def nbytes(self) -> int:
        """Of all of them."""
        return self._max_bytes - self._room

    def get(self, key: Key) -> Session | None:
        """The session, which is now the most recently used."""
        if key not in self._entries:
            return None
        self._entries.move_to_end(key)
        if key in self._seen:
            self._seen.move_to_end(key)
        return self._entries[key][0]

    def put(self, session: Session) -> None:
        """Keep the session as it is now, and forget others where room is short."""
        self.drop(session.key)
        self._count(session)
        for key in self._idle(self._seen, session):
            self._forget_frame(key)
        for key in self._idle(self._entries, session):
            self.drop(key)

    def drop(self, key: Key) -> None:
        """Forget the session, if it is there."""
        if key in self._entries:
            self._room += self._entries.pop(key)[1]
            self._seen.pop(key, None)

    def clear(self) -> None:
        """Forget all."""
        for key in list(self._entries):
            self.drop(key)

    def _idle(self, keys: Iterable[Key], newest: Session) -> Iterator[Key]:
        """Those that may be forgotten, the least used first, for as long as room is short."""
        if self._room >= 0:
            return
        for key in list(keys):
            if self._room >= 0:
                return
            if key != newest.key and not self._entries[key][0].lock.locked():
                yield key

    def _count(self, session: Session) -> None:
        size = session.nbytes
        self._entries[session.key] = session, size
        self._room -= size
        if session.seen is not None:
            self._seen[session.key] = None

    def _forget_frame(self, key: Key) -> None:
        session, size = self._entries[key]
        session.seen = None
        self._entries[key] = session, session.nbytes
        self._room += size - session.nbytes
        del self._seen[key]
