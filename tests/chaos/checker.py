"""Verifies a recorded history against what docs/guarantees.md promises. It needs no running service."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from pycocotools import mask as coco

from tests.chaos.history import OK, Call, Fault, History, Sample

# What a client may see while a fault lasts; the same request succeeds later.
TRANSIENT = {"unavailable", "store_unavailable", "overloaded", "deadline_exceeded"}
# What says that the store lost data. "frame_gap" is what the bare API says of a rollback.
LOST = {"session_rolled_back", "session_not_found", "session_expired", "session_corrupt"}
# Two requests for one frame at once: one of them is refused.
RIVAL = {"frame_conflict", "frame_gap"}
# Seconds by which a write may reach a replica late.
_LAG_S = 2.0
_SIZE = (256, 256)

Position = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Expected:
    """The answer of the undisturbed run to one frame."""

    answer: str
    masks: Mapping[str, str]


# By plan, then by frame and revision.
Undisturbed = Mapping[str, Mapping[Position, Expected]]


@dataclass(frozen=True, slots=True)
class Violation:
    """A promise that the history breaks."""

    promise: str
    session: str
    detail: str
    at_s: float = 0.0
    # Pixels that differ from the undisturbed run.
    differing_bits: int = 0


def check(history: History, undisturbed: Undisturbed) -> list[Violation]:
    """Return every violation of a promise in the history, in the order of the promises."""
    sessions = _by_session(history.calls)
    found: list[Violation] = [
        Violation("no crash", "", f"{crash.process}: {crash.detail}", crash.at_s) for crash in history.crashes
    ]
    for session, calls in sessions.items():
        found += _gaps(session, calls)
        found += _unequal(session, calls, history.faults)
        found += _forgotten(session, calls, history.faults)
        found += _unexplained(session, calls, history.faults)
        found += _differing(session, calls, undisturbed)
        found += _unfinished(session, calls)
    found += _superseded(history.samples, history.faults)
    return found


def _by_session(calls: list[Call]) -> dict[str, list[Call]]:
    sessions: dict[str, list[Call]] = defaultdict(list)
    for call in calls:
        sessions[call.session].append(call)
    return sessions


def _of_session(calls: list[Call]) -> list[Call]:
    """Return the calls of the client that the session belongs to, without those of its rival."""
    return [call for call in calls if not is_rival(call)]


def is_rival(call: Call) -> bool:
    """Whether the call competes with the client's own call for the same frame."""
    return call.client.endswith("-rival")


def _answered(calls: list[Call]) -> list[Call]:
    return [call for call in calls if call.action == "frame" and call.outcome == OK]


def _gaps(session: str, calls: list[Call]) -> Iterator[Violation]:
    """Frames come one after another, each with at most one more revision, and none is skipped."""
    last: Position = (-1, 0)
    known: set[Position] = set()
    for call in _of_session(calls):
        if call.action == "rollback":
            # Whether it may have happened is checked with the other errors.
            last = (call.next_frame - 1, call.revision)
        if call.action != "frame" or call.outcome != OK:
            continue
        at = (call.frame, call.revision)
        if at in ((last[0] + 1, 0), (last[0], last[1] + 1)):
            last = at
        elif at not in known:
            yield Violation("one gap-free history", session, f"{at} was answered after {last}", call.ended_s)
        known.add(at)


def _unequal(session: str, calls: list[Call], faults: list[Fault]) -> Iterator[Violation]:
    """A frame and revision has one request and one answer, unless the store lost the first in between."""
    first: dict[Position, Call] = {}
    for call in _answered(calls):
        at = (call.frame, call.revision)
        one = first.setdefault(at, call)
        if one.request == call.request and one.answer == call.answer:
            continue
        if one.request != call.request and _lost_between(session, one.started_s, call.ended_s, faults):
            first[at] = call
            continue
        what = "answers" if one.request == call.request else "requests"
        detail = f"{at} has two {what}: {one.client} at {one.ended_s:.1f} s, {call.client}"
        yield Violation("equal answers", session, detail, call.ended_s)


def _lost_between(session: str, start_s: float, end_s: float, faults: list[Fault]) -> bool:
    return any(
        each.lost_since_s is not None
        and each.session in ("", session)
        and start_s <= each.ended_s
        and each.started_s <= end_s
        for each in faults
    )


def _forgotten(session: str, calls: list[Call], faults: list[Fault]) -> Iterator[Violation]:
    """What was answered is in the store from then on, unless a fault lost the writes since before it."""
    # When each position was answered first, among those that the store should have.
    written_s: dict[Position, float] = {}
    for call in _of_session(calls):
        if call.action == "frame" and call.outcome == OK:
            written_s.setdefault((call.frame, call.revision), call.ended_s)
        if call.action not in ("state", "rollback") or call.next_frame < 0:
            continue
        stored = (call.next_frame - 1, call.revision)
        lost = {at: when for at, when in written_s.items() if at > stored and when <= call.started_s}
        if lost and not any(_lost(each, session, min(lost.values()), call.ended_s) for each in faults):
            first = min(lost, key=lambda at: lost[at])
            detail = f"the store is at {stored}; {first} was answered at {lost[first]:.1f} s"
            yield Violation("no write lost", session, detail, call.ended_s)
        written_s = {at: when for at, when in written_s.items() if at not in lost}


def _lost(fault: Fault, session: str, written_s: float, noticed_s: float) -> bool:
    """Whether the fault lost what was written then, before the loss was noticed."""
    if fault.lost_since_s is None or fault.session not in ("", session):
        return False
    return fault.lost_since_s - _LAG_S <= written_s <= fault.ended_s and fault.started_s <= noticed_s


def _unexplained(session: str, calls: list[Call], faults: list[Fault]) -> Iterator[Violation]:
    """Errors are transient, or documented and explained by a fault that loses data by design."""
    for call in calls:
        if call.outcome in TRANSIENT | {OK} or (call.outcome in RIVAL and is_rival(call)):
            continue
        if call.outcome in LOST | RIVAL:
            # A rival may have won: its answer is checked as one of two requests for one frame.
            if call.outcome == "frame_conflict" and _has_rival(calls):
                continue
            if any(_explains(each, session, calls, call) for each in faults):
                continue
        detail = f"{call.client}, {call.action} {call.frame}.{call.revision}: {call.outcome}: {call.detail}"
        yield Violation("documented errors only", session, detail, call.ended_s)


def _has_rival(calls: list[Call]) -> bool:
    return any(is_rival(call) for call in calls)


def _explains(fault: Fault, session: str, calls: list[Call], error: Call) -> bool:
    """Whether the fault lost what the error says that the store does not have."""
    if fault.lost_since_s is None or fault.started_s > error.ended_s:
        return False
    if fault.session:
        return fault.session == session
    # A session that is not found at all was opened after the writes began to be lost.
    lost = ("open",) if is_final(error) else ("open", "frame")
    written_s = [call.ended_s for call in calls if call.outcome == OK and call.action in lost]
    return any(_lost(fault, session, each, error.ended_s) for each in written_s)


def _differing(session: str, calls: list[Call], undisturbed: Undisturbed) -> Iterator[Violation]:
    """Every answer is that of the undisturbed run, to the bit."""
    for call in _answered(calls):
        expected = undisturbed.get(call.plan, {}).get((call.frame, call.revision))
        if expected is None:
            detail = f"{call.plan} has no frame {call.frame}, revision {call.revision}"
            yield Violation("masks as undisturbed", session, detail, call.ended_s)
        elif expected.answer != call.answer or dict(expected.masks) != dict(call.masks):
            bits = differing_bits(expected.masks, call.masks)
            detail = f"frame {call.frame}, revision {call.revision}: {bits} pixels differ"
            yield Violation("masks as undisturbed", session, detail, call.ended_s, bits)


def _unfinished(session: str, calls: list[Call]) -> Iterator[Violation]:
    """A session that was opened is followed to its end, or was lost with a documented error."""
    if not session:
        return
    own = _of_session(calls)
    ends = any(call.action == "finish" for call in own)
    if not ends and not any(is_final(call) for call in own):
        last = max(own, key=lambda call: call.ended_s) if own else calls[-1]
        detail = f"it was not finished; the last outcome is {last.outcome} of {last.action} {last.frame}"
        yield Violation("no session lost", session, detail, last.ended_s)


def is_final(call: Call) -> bool:
    """Whether the outcome ends the session."""
    return call.outcome in LOST - {"session_rolled_back"}


def _superseded(samples: list[Sample], faults: list[Fault]) -> Iterator[Violation]:
    """While nothing is lost, claims and cursors only grow in the store: an older claim wrote nothing."""
    last: dict[str, Sample] = {}
    for sample in samples:
        before = last.get(sample.session)
        last[sample.session] = sample
        if before is None:
            continue
        lower = (sample.epoch, sample.frame, sample.revision) < (before.epoch, before.frame, before.revision)
        back = (sample.frame, sample.revision) < (before.frame, before.revision)
        twice = sample.epoch == before.epoch and sample.nonce != before.nonce
        if not (lower or back or twice):
            continue
        if not _lost_between(sample.session, before.at_s, sample.at_s, faults):
            detail = (
                f"epoch {before.epoch}, frame {before.frame}.{before.revision} became "
                f"epoch {sample.epoch}, frame {sample.frame}.{sample.revision}"
            )
            yield Violation("no answer from a superseded claim", sample.session, detail, sample.at_s)


def differing_bits(one: Mapping[str, str], other: Mapping[str, str]) -> int:
    """Return how many pixels differ between two frames' masks; an absent mask is empty."""
    return sum(
        int(np.count_nonzero(_decoded(one.get(each)) != _decoded(other.get(each))))
        for each in one.keys() | other.keys()
    )


def _decoded(counts: str | None) -> "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]":
    """(H, W) uint8 of COCO RLE counts."""
    if counts is None:
        return np.zeros(_SIZE, np.uint8)
    decoded: np.ndarray[tuple[int, ...], np.dtype[np.uint8]] = coco.decode(
        {"size": list(_SIZE), "counts": counts.encode()}
    )
    return decoded


def summed(history: History, violations: list[Violation]) -> dict[str, int]:
    """Return the figures of one piece that are added up over pieces."""
    calls, count = history.calls, _counter(history)
    return {
        "sessions": len({call.session for call in calls if call.session and not is_rival(call)}),
        "frames_answered": count(lambda call: call.action == "frame" and call.outcome == OK),
        "retries": count(lambda call: call.attempt > 1),
        "errors": count(lambda call: call.outcome != OK),
        "rivals_refused": count(lambda call: is_rival(call) and call.outcome == "frame_conflict"),
        "rollbacks": count(lambda call: call.outcome == "session_rolled_back"),
        "sessions_lost_by_design": len({call.session for call in calls if call.session and is_final(call)}),
        "differing_bits": sum(each.differing_bits for each in violations),
        "sessions_lost": len({each.session for each in violations if each.promise == "no session lost"}),
        "violations": len(violations),
    }


def _counter(history: History) -> Callable[[Callable[[Call], bool]], int]:
    return lambda wanted: sum(map(wanted, history.calls))
