"""Sessions as a worker has them at hand, bounded in bytes."""

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import datetime

from service.pb.efficientsam3.state.v1 import session_pb2 as state_pb
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
    # By frame, the oldest first.
    answers: dict[int, state_pb.Answer]
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


class HotSessions:
    """Sessions whose memories are of at most so many bytes in all, the least used first to be forgotten.

    One that is being computed stays, and so does the last that was put, however large it is.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = self._room = max_bytes
        # Each with the bytes that it is counted with.
        self._entries: OrderedDict[Key, tuple[Session, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def nbytes(self) -> int:
        """Of their memories."""
        return self._max_bytes - self._room

    def get(self, key: Key) -> Session | None:
        """The session, which is now the most recently used."""
        if key not in self._entries:
            return None
        self._entries.move_to_end(key)
        return self._entries[key][0]

    def put(self, session: Session) -> None:
        """Keep the session as it is now, and forget others where room is short."""
        self.drop(session.key)
        size = session.state.nbytes
        self._entries[session.key] = session, size
        self._room -= size
        if self._room < 0:
            idle = [key for key, (one, _) in self._entries.items() if not one.lock.locked()]
            for key in idle:
                if self._room < 0 and key != session.key:
                    self.drop(key)

    def drop(self, key: Key) -> None:
        """Forget the session, if it is there."""
        if key in self._entries:
            self._room += self._entries.pop(key)[1]

    def clear(self) -> None:
        """Forget all."""
        for key in list(self._entries):
            self.drop(key)
