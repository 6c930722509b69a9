"""The checker finds what is wrong with a history, and nothing in one that is right."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coco

from tests.chaos.checker import Expected, Undisturbed, check, differing_bits, summed
from tests.chaos.history import Call, Crash, Fault, History, Record, Sample, answer_digest, masks_of, read

SESSION, PLAN = "tiny.1", "clip"


def counts(pixels: int) -> str:
    """COCO RLE counts of a mask whose first column has so many pixels."""
    mask = np.zeros((256, 256), np.uint8, order="F")
    mask[:pixels, 0] = 1
    encoded: bytes = coco.encode(mask)["counts"]
    return encoded.decode()


UNDISTURBED: Undisturbed = {
    PLAN: {
        position: Expected(f"answer-{position}", {"1": counts(10 + position[0])})
        for position in [(0, 0), (1, 0), (2, 0), (2, 1), (3, 0)]
    }
}


def frame(frame: int, at_s: float, revision: int = 0, **facts: object) -> Call:
    """A frame's answer, as the undisturbed run has it unless `facts` say otherwise."""
    right = UNDISTURBED[PLAN][frame, revision]
    call = Call(
        client="http-sync",
        plan=PLAN,
        session=SESSION,
        action="frame",
        started_s=at_s,
        ended_s=at_s + 0.1,
        frame=frame,
        revision=revision,
        request=f"request-{frame}.{revision}",
        answer=right.answer,
        masks=right.masks,
    )
    return replace(call, **facts)


def call(action: str, at_s: float, **facts: object) -> Call:
    """Another call of the session."""
    plain = Call("http-sync", PLAN, SESSION, action, at_s, at_s + 0.1)
    return replace(plain, **facts)


OPEN = call("open", 1.0)
FRAMES = [frame(0, 2.0), frame(1, 3.0), frame(2, 4.0), frame(2, 5.0, 1), frame(3, 6.0)]
STATE = call("state", 7.0, next_frame=4)
FINISH = call("finish", 8.0)
WHOLE: list[Record] = [OPEN, *FRAMES, STATE, FINISH]

FLUSH = Fault("Redis flushed", "", 3.5, 3.6, -1.0, 3.6)
STALE = Fault("stale replica promoted", "", 2.5, 4.5, 2.6, 4.5)
ROLLED_BACK = frame(3, 6.0, outcome="session_rolled_back", answer="", masks={})
TO_TWO = call("rollback", 6.2, outcome="session_rolled_back", next_frame=2)
AGAIN = [frame(2, 7.0), frame(2, 7.2, 1), frame(3, 7.4), call("state", 7.6, next_frame=4), FINISH]


def broken(*records: Record) -> set[str]:
    """The promises that a history of these records breaks."""
    return {violation.promise for violation in check(History(list(records)), UNDISTURBED)}


@pytest.mark.parametrize(
    "records",
    [
        WHOLE,
        # Transient errors, each followed by the answer.
        [OPEN, frame(0, 1.5, outcome="unavailable", answer="", masks={}), *WHOLE[1:]],
        [OPEN, frame(0, 1.5, outcome="deadline_exceeded", answer="", masks={}), *WHOLE[1:]],
        # An answer that is given again.
        [OPEN, *FRAMES[:2], frame(0, 3.5), *FRAMES[2:], STATE, FINISH],
        # Writes that a stale replica never got, and the client goes on from there.
        [STALE, OPEN, *FRAMES[:3], ROLLED_BACK, TO_TWO, *AGAIN],
        # The bare API calls a rollback a gap.
        [
            STALE,
            OPEN,
            *FRAMES[:3],
            replace(ROLLED_BACK, outcome="frame_gap"),
            replace(TO_TWO, outcome="frame_gap"),
            *AGAIN,
        ],
        # A flush takes the whole session.
        [FLUSH, OPEN, *FRAMES[:2], frame(2, 4.0, outcome="session_not_found", answer="", masks={})],
        # Corruption is reported, and ends the session.
        [
            Fault("byte of a session flipped", "head", 3.5, 3.6, 3.5, 3.5, SESSION),
            OPEN,
            *FRAMES[:2],
            frame(2, 4.0, outcome="session_corrupt", answer="", masks={}),
        ],
        # A rival is refused, or wins: then its request is the only one.
        [*WHOLE[:3], frame(1, 3.0, client="http-sync-rival", outcome="frame_conflict", masks={}), *WHOLE[3:]],
        [
            *WHOLE[:2],
            frame(1, 3.0, client="http-sync-rival", request="rival"),
            frame(1, 3.2, request="rival"),
            *WHOLE[3:],
        ],
        # Claims grow; after a flush they begin anew.
        [*WHOLE, Sample(1.0, SESSION, 1, "a", 0, 0), Sample(2.0, SESSION, 2, "b", 1, 0)],
        [FLUSH, *WHOLE, Sample(3.0, SESSION, 2, "b", 1, 0), Sample(4.0, SESSION, 1, "a", 0, 0)],
    ],
)
def test_a_history_that_keeps_every_promise_passes(records: list[Record]) -> None:
    assert broken(*records) == set()


@pytest.mark.parametrize(
    ("records", "promise"),
    [
        # A frame is skipped, or a revision is.
        ([OPEN, FRAMES[0], frame(2, 3.0), FRAMES[3], FRAMES[4], STATE, FINISH], "one gap-free history"),
        ([OPEN, FRAMES[0], FRAMES[1], frame(2, 5.0, 1), FRAMES[4], STATE, FINISH], "one gap-free history"),
        # A frame has two answers, or two requests that were both answered.
        ([*WHOLE, frame(3, 9.0, answer="other")], "equal answers"),
        ([*WHOLE, frame(3, 9.0, client="http-sync-rival", request="rival")], "equal answers"),
        ([FLUSH, *WHOLE, frame(3, 9.0, client="http-sync-rival", request="rival")], "equal answers"),
        # The store is behind what was answered.
        ([OPEN, *FRAMES, call("state", 7.0, next_frame=3, revision=1), FINISH], "no write lost"),
        # Errors that nothing explains.
        ([OPEN, *FRAMES[:3], ROLLED_BACK, TO_TWO, *AGAIN], "documented errors only"),
        ([OPEN, frame(0, 2.0, outcome="session_not_found", masks={})], "documented errors only"),
        ([OPEN, frame(0, 2.0, outcome="session_corrupt", masks={})], "documented errors only"),
        ([OPEN, frame(0, 1.5, outcome="internal", masks={}), *WHOLE[1:]], "documented errors only"),
        ([OPEN, frame(0, 1.5, outcome="frame_conflict", masks={}), *WHOLE[1:]], "documented errors only"),
        ([OPEN, frame(0, 1.5, outcome="frame_gap", masks={}), *WHOLE[1:]], "documented errors only"),
        # Faults that explain nothing: too late, before the session, or of another session.
        (
            [replace(FLUSH, started_s=9.0), OPEN, frame(0, 2.0, outcome="session_not_found", masks={})],
            "documented errors only",
        ),
        (
            [
                Fault("Redis flushed", "", 0.1, 0.2, -1.0, 0.2),
                OPEN,
                frame(0, 2.0, outcome="session_not_found", masks={}),
            ],
            "documented errors only",
        ),
        (
            [
                Fault("byte of a session flipped", "head", 1.5, 1.6, 1.5, 1.5, "tiny.2"),
                OPEN,
                frame(0, 2.0, outcome="session_corrupt", masks={}),
            ],
            "documented errors only",
        ),
        # A stale replica had the frames from before: only later ones may be lost.
        (
            [
                Fault("stale replica promoted", "", 5.0, 6.1, 5.5, 6.1),
                OPEN,
                *FRAMES[:3],
                ROLLED_BACK,
                TO_TWO,
                replace(TO_TWO, next_frame=0),
            ],
            "no write lost",
        ),
        # A stale replica had the session: its last frames may be lost, and not all of it.
        (
            [
                Fault("stale replica promoted", "", 5.0, 6.5, 5.1, 6.5),
                OPEN,
                *FRAMES[:3],
                frame(3, 6.6, outcome="session_not_found", masks={}),
            ],
            "documented errors only",
        ),
        # Other masks than those of the undisturbed run, also after a fault that loses data.
        ([*WHOLE[:2], frame(1, 3.0, masks={"1": counts(14)}), *WHOLE[3:]], "masks as undisturbed"),
        ([FLUSH, *WHOLE[:2], frame(1, 3.0, masks={}), *WHOLE[3:]], "masks as undisturbed"),
        ([*WHOLE[:2], frame(1, 3.0, answer="another score"), *WHOLE[3:]], "masks as undisturbed"),
        # It stands still at the end.
        ([OPEN, *FRAMES], "no session lost"),
        ([OPEN, frame(0, 2.0, outcome="unavailable", masks={})], "no session lost"),
        # An older claim wrote, a claim was given twice, or the cursor went back.
        (
            [*WHOLE, Sample(1.0, SESSION, 2, "b", 0, 0), Sample(2.0, SESSION, 1, "a", 1, 0)],
            "no answer from a superseded claim",
        ),
        (
            [*WHOLE, Sample(1.0, SESSION, 2, "b", 0, 0), Sample(2.0, SESSION, 2, "a", 1, 0)],
            "no answer from a superseded claim",
        ),
        (
            [*WHOLE, Sample(1.0, SESSION, 1, "a", 2, 1), Sample(2.0, SESSION, 2, "b", 2, 0)],
            "no answer from a superseded claim",
        ),
        ([*WHOLE, Crash(3.0, "worker-0", "it ended with -11")], "no crash"),
    ],
)
def test_a_broken_promise_is_found(records: list[Record], promise: str) -> None:
    assert promise in broken(*records)


def test_differing_pixels_are_counted() -> None:
    assert differing_bits({"1": counts(10)}, {"1": counts(10)}) == 0
    assert differing_bits({"1": counts(10)}, {"1": counts(13)}) == 3
    assert differing_bits({"1": counts(10)}, {"2": counts(4)}) == 14
    wrong = [*WHOLE[:2], frame(1, 3.0, masks={"1": counts(14)}), *WHOLE[3:]]
    history = History(list(wrong))
    assert summed(history, check(history, UNDISTURBED))["differing_bits"] == 3


def test_the_figures_are_those_of_the_history() -> None:
    failed = frame(0, 1.5, outcome="unavailable", answer="", masks={})
    refused = frame(1, 3.0, client="http-sync-rival", outcome="frame_conflict")
    history = History([OPEN, failed, replace(FRAMES[0], attempt=2), refused, *WHOLE[2:]])
    figures = summed(history, check(history, UNDISTURBED))
    assert figures["sessions"] == 1 and figures["frames_answered"] == 5
    assert figures["retries"] == 1 and figures["errors"] == 2 and figures["rivals_refused"] == 1
    assert figures["violations"] == figures["differing_bits"] == figures["sessions_lost"] == 0


def test_an_answer_is_all_but_its_timings() -> None:
    thing = {"object": 1, "score": 0.5, "mask": {"format": "rle", "counts": "abc"}}
    answer = {"frame": 1, "objects": [thing, {"object": 2, "visible": False}], "timings_ms": {"total": 1.0}}
    later = {**answer, "timings_ms": {"total": 2.0}}
    assert answer_digest(answer) == answer_digest(later) and masks_of(answer) == {"1": "abc"}
    changes: list[Callable[[], dict[str, object]]] = [
        lambda: {**answer, "frame": 2},
        lambda: {**answer, "objects": [{**thing, "score": 0.6}]},
        lambda: {**answer, "objects": [{**thing, "mask": {"format": "rle", "counts": "abd"}}]},
    ]
    assert all(answer_digest(change()) != answer_digest(answer) for change in changes)


def test_a_history_is_read_as_it_was_written(tmp_path: Path) -> None:
    file = tmp_path / "history.jsonl"
    records: list[Record] = [*WHOLE, FLUSH, Sample(1.0, SESSION, 1, "a", 0, 0), Crash(2.0, "worker-0", "x")]
    with file.open("w") as output:
        history = History(file=output)
        for record in records:
            history.add(record)
    assert read(file).records == records
