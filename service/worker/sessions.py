"""Tracking sessions on a worker: hot while they are used, and what a client was told is in the store already.

Order: compute, write, then answer. What is hot is what the store has; when in doubt it is loaded again.
"""

import asyncio
import hashlib
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from google.protobuf.message import DecodeError

from service.config import WorkerSettings
from service.errors import Kind, ServiceError
from service.pb.efficientsam3.state.v1 import session_pb2 as state_pb
from service.pb.efficientsam3.v1 import tracking_pb2 as pb
from service.prompts import new_session_id as new_id
from service.sessions.image_store import until
from service.sessions.session_store import (
    START,
    BehindError,
    Claim,
    ClaimLostError,
    Cursor,
    SessionStore,
    Stored,
    corrupt,
)
from service.tracing import current
from service.worker.hot_sessions import HotSessions, Key, Session
from service.worker.scenes import Seen
from service.worker.tracker.state import (
    BASE,
    HEAD,
    Origin,
    State,
    answer_part,
    head_of,
    packed,
    state_of,
)

# Answers that are kept: those of frames that a client may have sent and lost.
ANSWERS = 4
# Bytes of them that are kept of a video, whose client may have read far less than it was sent.
VIDEO_ANSWERS = 2**20
# Times that a session is taken over again, in one request, from others that take it over too.
_TAKEOVERS = 3

# Computes a frame from the state before it: the state after it, the answer, and what was seen.
Compute = Callable[[Session, State], Awaitable[tuple[State, pb.FrameAnswer, Seen]]]


class Sessions:
    """The sessions of one worker. Used from one event loop."""

    def __init__(self, store: SessionStore, origin: Origin, limits: WorkerSettings) -> None:
        self._store, self._origin, self._limits = store, origin, limits
        self.hot = HotSessions(limits.hot_session_bytes)
        # Frames that wait or are computed.
        self._coming: Counter[Key] = Counter()

    async def open(
        self,
        owner: str,
        id: str,
        ttl_s: float,
        frames_total: int | None,
        options: pb.TrackOptions,
        most: int,
    ) -> Session:
        """A new session; `id` is chosen by the gateway, or empty. `most`: how many its owner may have."""
        id = id or new_id(self._origin.variant, self._origin.artefact)
        await self._store.admit(owner, id, most)
        state = State(self._origin, options, frames_total)
        try:
            claim = await self._store.create(owner, id, ttl_s, {HEAD: head_of(state), BASE: head_of(state)})
        except ClaimLostError:
            # A worker made it for this same request, and died before it could say so.
            claim, _ = await self._store.claim(owner, id)
        session = Session(owner, id, claim, START, state, state, {}, ttl_s, until(ttl_s))
        self.hot.put(session)
        return session

    async def get(self, owner: str, id: str) -> Session:
        """The session, claimed by this worker. Raises what the store does, and `artefact_mismatch`.

        Raises `session_corrupt` too where a part of it is missing.
        """
        key = owner, id
        if (session := self.hot.get(key)) is not None:
            return session
        claim, stored = await self._store.claim(owner, id)
        session = self._read(owner, id, claim, stored)
        # Another request may have been faster: its claim is the older one then.
        self.hot.put(session)
        return session

    async def look(self, owner: str, id: str) -> Session:
        """The session as the store has it, unclaimed, to be looked at."""
        return self._read(owner, id, Claim(0, ""), await self._store.look(owner, id))

    async def add(
        self, owner: str, id: str, frame: pb.Frame, compute: Compute, keep: int = 0
    ) -> pb.FrameAnswer:
        """Answer a frame: the next one, a correction of the last, or one that was answered already.

        The last `ANSWERS` answers are kept, and those before them while all are at most `keep` bytes.

        Raises ServiceError: `frame_gap`, `frame_conflict`, `session_rolled_back`, `overloaded` and
        `quota_exceeded` for its limits, what the store raises, and what `compute` raises. The session is then
        as it was before.
        """
        with self._one_more((owner, id)):
            return await self._add(owner, id, frame, compute, keep)

    async def _add(self, owner: str, id: str, frame: pb.Frame, compute: Compute, keep: int) -> pb.FrameAnswer:
        known = START
        for _ in range(_TAKEOVERS):
            session = await self.get(owner, id)
            async with session.lock:
                if self.hot.get((owner, id)) is not session:
                    continue
                if session.cursor < known:
                    raise _rolled_back(session)
                try:
                    return await self._answer(session, frame, compute, keep)
                except ClaimLostError:
                    self.hot.drop((owner, id))
                    known = max(known, session.cursor)
        detail = f"Session {id[:64]!r} is being taken over again and again: it is used from several places."
        raise ServiceError(Kind.UNAVAILABLE, detail, retry_after_s=1.0)

    @contextmanager
    def _one_more(self, key: Key) -> Iterator[None]:
        most = self._limits.max_frames_in_flight
        if self._coming[key] >= most:
            detail = f"{most} frames of the session are on their way, which is the limit: wait for an answer."
            raise ServiceError(Kind.OVERLOADED, detail, retry_after_s=1.0)
        self._coming[key] += 1
        try:
            yield
        finally:
            self._coming[key] -= 1
            if not self._coming[key]:
                del self._coming[key]

    async def fork(self, owner: str, id: str, other: str, most: int) -> Session:
        """A new session that goes on from where this one stands; `other` is its id, as in `open`."""
        other = other or new_id(self._origin.variant, self._origin.artefact)
        await self._store.admit(owner, other, most)
        stored = await self._store.fork(owner, id, other)
        return self._read(owner, other, Claim(0, ""), stored)

    async def delete(self, owner: str, id: str) -> bool:
        """Forget the session; whether there was one."""
        self.hot.drop((owner, id))
        return await self._store.delete(owner, id)

    async def close(self) -> None:
        """What is hot is in the store as well."""
        self.hot.clear()
        await self._store.close()

    async def _answer(self, session: Session, frame: pb.Frame, compute: Compute, keep: int) -> pb.FrameAnswer:
        request = hashlib.sha256(frame.SerializeToString(deterministic=True)).digest()
        try:
            corrects = _place(session, frame, request)
        except ServiceError:
            await self._confirm(session)
            raise
        if corrects is None:
            await self._confirm(session)
            return state_pb.Answer.FromString(session.answers[frame.frame]).answer
        before = session.base if corrects else session.state
        await self._in_turn(session)
        after, answer, seen = await compute(session, before)
        if after.nbytes > (most := self._limits.max_session_bytes):
            detail = f"The session would keep {after.nbytes:,} bytes of its objects; the limit is {most:,}."
            raise ServiceError(Kind.QUOTA_EXCEEDED, detail)
        cursor = Cursor(frame.frame, frame.revision)
        kept = state_pb.Answer(revision=frame.revision, request=request, answer=answer).SerializeToString()
        answers = {**session.answers, frame.frame: kept}
        _forget(answers, keep)
        started = time.perf_counter()
        await self._commit(
            session, replace(session, cursor=cursor, state=after, base=before, answers=answers)
        )
        store_ms = (time.perf_counter() - started) * 1e3
        current().took("store", store_ms)
        session.seen = seen
        self.hot.put(session)
        # Known only now that the answer is written: it is told once, and not when the answer is given again.
        answer.timings_ms["store"] = store_ms
        answer.timings_ms["total"] += store_ms
        return answer

    async def _commit(self, session: Session, changed: Session) -> None:
        """Make of the session what it is after its frame `changed.cursor.frame`, in the store first."""
        cursor, stored, tensors = changed.cursor, session.tensors.keys(), changed.tensors
        fresh = {
            name: packed(tensor)
            for name, tensor in tensors.items()
            if name not in stored or name.endswith(f":{cursor.frame}")
        }
        put = {
            HEAD: head_of(changed.state),
            BASE: head_of(changed.base),
            answer_part(cursor.frame): changed.answers[cursor.frame],
            **fresh,
        }
        drop = [
            *(stored - tensors.keys()),
            *map(answer_part, session.answers.keys() - changed.answers.keys()),
        ]
        moved = session.cursor, cursor
        try:
            await self._store.commit(session.owner, session.id, session.claim, moved, put, drop)
        except BehindError:
            await self._restore(changed)
        except ClaimLostError:
            raise
        except BaseException:
            # Whether it was written is not known: the store will tell.
            self.hot.drop((session.owner, session.id))
            raise
        session.cursor, session.answers = cursor, changed.answers
        session.state, session.base = changed.state, changed.base
        session.expires = until(session.ttl_s)

    async def _in_turn(self, session: Session) -> None:
        """Return when the session's next frame may be computed."""
        if rate := self._limits.max_frame_rate:
            now = time.monotonic()
            begins = max(now, session.due)
            session.due = begins + 1 / rate
            await asyncio.sleep(begins - now)

    async def _confirm(self, session: Session) -> None:
        """Return if what is hot is the session. Raises ClaimLostError if it goes on elsewhere."""
        try:
            await self._store.commit(
                session.owner, session.id, session.claim, (session.cursor, session.cursor), {}
            )
        except BehindError:
            await self._restore(session)

    async def _restore(self, session: Session) -> None:
        """Write the whole session again, after the store lost what this worker has written.

        Raises ClaimLostError if the session goes on elsewhere: with its claims, the store may have lost which
        worker is the newest, so that another one has answered frames since.
        """
        try:
            stands = await self._store.look(session.owner, session.id)
        except ServiceError as error:
            if error.kind is Kind.STORE_UNAVAILABLE:
                raise
        else:
            if stands.cursor >= session.cursor:
                raise ClaimLostError(session.id)
        parts = {
            HEAD: head_of(session.state),
            BASE: head_of(session.base),
            **{answer_part(frame): answer for frame, answer in session.answers.items()},
            **{name: packed(tensor) for name, tensor in session.tensors.items()},
        }
        stored = Stored(session.cursor, parts, session.ttl_s, session.ttl_s)
        await self._store.restore(session.owner, session.id, session.claim, stored)

    def _read(self, owner: str, id: str, claim: Claim, stored: Stored) -> Session:
        try:
            state, base = (state_of(stored.parts, self._origin, part) for part in (HEAD, BASE))
            answers = {
                int(name.partition(":")[2]): part
                for name, part in stored.parts.items()
                if name.startswith(answer_part(0)[:-1])
            }
        except (KeyError, ValueError, DecodeError) as error:
            raise corrupt(id) from error
        if stored.cursor != START and stored.cursor.frame not in answers:
            raise corrupt(id)
        expires = until(stored.left_s)
        return Session(owner, id, claim, stored.cursor, state, base, answers, stored.ttl_s, expires)


def _place(session: Session, frame: pb.Frame, request: bytes) -> bool | None:
    """False: the frame is the next. True: it corrects the last. None: it was answered, and asks the same."""
    at = Cursor(frame.frame, frame.revision)
    if at == Cursor(session.next_frame, 0):
        _check_followed(session, frame)
        return False
    if at == Cursor(session.cursor.frame, session.cursor.revision + 1) and session.cursor != START:
        return True
    if at.frame >= session.next_frame:
        detail = f"frame {frame.frame}, revision {frame.revision}: frame {session.next_frame} comes next."
        raise ServiceError(Kind.FRAME_GAP, detail)
    if frame.frame not in session.answers:
        detail = (
            f"frame {frame.frame} was answered long ago, and its answer is not kept any more: "
            f"the oldest is that of frame {session.oldest_answer}."
        )
        raise ServiceError(Kind.FRAME_CONFLICT, detail)
    kept = state_pb.Answer.FromString(session.answers[frame.frame])
    if (kept.revision, kept.request) != (frame.revision, request):
        detail = (
            f"frame {frame.frame} was answered for another request, of revision {kept.revision}. The last "
            f"frame is corrected by revision {session.cursor.revision + 1}; for earlier ones fork first."
        )
        raise ServiceError(Kind.FRAME_CONFLICT, detail)
    return None


def _forget(answers: dict[int, bytes], keep: int) -> None:
    """Drop those that are not kept, as `Sessions.add` says."""
    over = sum(map(len, answers.values())) - keep
    for frame in sorted(answers)[:-ANSWERS]:
        if over <= 0:
            return
        over -= len(answers.pop(frame))


def _check_followed(session: Session, frame: pb.Frame) -> None:
    """Raise if the frame is to follow another answer to the last frame than the one that is known here."""
    last = session.cursor
    if not frame.HasField("follows") or frame.follows == last.revision:
        return
    if frame.follows > last.revision:
        detail = f"The session store lost a correction that was answered: frame {last.frame} is of revision"
        raise ServiceError(Kind.SESSION_ROLLED_BACK, f"{detail} {last.revision}.")
    detail = f"frame {frame.frame} follows revision {frame.follows}: frame {last.frame} was corrected since, "
    raise ServiceError(Kind.FRAME_CONFLICT, f"{detail}and is of revision {last.revision}.")


def _rolled_back(session: Session) -> ServiceError:
    detail = f"The session store lost frames that were answered: frame {session.next_frame} comes next."
    return ServiceError(Kind.SESSION_ROLLED_BACK, detail)
