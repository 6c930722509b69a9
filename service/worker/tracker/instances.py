"""The instances of a text on one frame, beside those that are followed: known, new, renewed, hidden."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from service.worker.resize import grow
from service.worker.run import Run
from service.worker.scenes import Scene, Seen
from service.worker.tracker.associate import (
    Association,
    Rules,
    associate,
    distinct,
    hidden_copies,
    shrunk,
)
from service.worker.tracker.bank import Track
from service.worker.tracker.follow import Chosen, Follower, Prompted
from service.worker.tracker.specks import without_specks
from service.worker.tracker.trial import Trial

# Logits of what another object covers, and what is said of an object by its mask alone.
_COVERED, _SURE = -10.0, 10.0
_NO_POINTS = np.zeros((0, 2), np.float32), np.zeros(0, np.int32)


@dataclass(frozen=True, slots=True)
class Detections:
    """What a text finds, the best first."""

    # 0..1.
    scores: tuple[float, ...]
    # (n, 4g, 4g).
    logits: NDArray[np.float32]


class Find(Protocol):
    """The detector: for each text what the scene has of it, and what scores above a threshold."""

    def __call__(
        self, run: Run, scene: Scene, texts: Sequence[str], threshold: float
    ) -> Sequence[Detections]: ...


@dataclass(frozen=True, slots=True)
class Row:
    """One track on its frame."""

    track: Track
    chosen: Chosen
    # It was shown, or is begun or renewed by a detection.
    prompted: bool


class Instances:
    """Brings detections and tracks together. The rules are those of SAM3's video inference."""

    def __init__(self, follower: Follower, find: Find) -> None:
        self._follower, self._find = follower, find

    def meet(
        self,
        run: Run,
        seen: Seen,
        frame: int,
        span: int,
        rows: Sequence[Row],
        texts: Sequence[str],
        rules: Rules,
    ) -> list[Row]:
        """Look for the texts: what is found again may be renewed, what is new gets a track behind the others.

        New tracks have no id of their own yet: theirs are below 0. Tracks that failed their trial are gone.
        """
        kept = list(rows)
        given: dict[int, Prompted] = {}
        begun: list[Track] = []
        detections = self._find(run, seen.scene, texts, rules.detect_score)
        for text, detected in zip(texts, detections, strict=True):
            own = [row for row in kept if row.track.label == text]
            found = _distinct(detected, rules)
            known = _masks([row.chosen.logits for row in own], found.logits) > 0
            met = associate(known, found.scores, found.logits > 0, rules)
            after = tried(own, met, rules)
            kept = [row for each in kept if (row := after.get(each.track.id, each)) is not None]
            if frame and rules.renew_every and frame % rules.renew_every == 0:
                for row, best, overlap in zip(own, met.best, met.best_iou, strict=True):
                    if best >= 0 and _renews(row, found.scores[best], overlap, rules):
                        given[row.track.id] = self._shown(found.logits[best], seen.scene)
            for index in met.new:
                trial, selects = Trial.of(rules.confirm_frames), rules.memory_selection
                track = Track(-1 - len(begun), text, trial=trial, selects=selects)
                begun.append(track)
                given[track.id] = self._shown(found.logits[index], seen.scene)
        changed = [*(row.track for row in kept if row.track.id in given), *begun]
        looked = self._follower.look(run, seen, frame, span, changed, given)
        anew = {
            track.id: cleaned(Row(track, chosen, True)) for track, chosen in zip(changed, looked, strict=True)
        }
        return [*(anew.get(row.track.id, row) for row in kept), *(anew[track.id] for track in begun)]

    def _shown(self, logits: NDArray[np.float32], scene: Scene) -> Prompted:
        """A detection's mask as the prompt that begins a track."""
        mask = grow(logits, self._follower.memory_side) > 0
        return Prompted(*_NO_POINTS, given=self._follower.given(mask, scene.width, scene.height))


def _distinct(found: Detections, rules: Rules) -> Detections:
    rows = distinct(found.scores, found.logits > 0, rules)
    return Detections(tuple(found.scores[row] for row in rows), found.logits[rows])


def tried(rows: Sequence[Row], met: Association, rules: Rules) -> dict[int, Row | None]:
    """By their ids the rows of tracks on trial after they were looked for; None: they failed it."""
    after: dict[int, Row | None] = {}
    for row, found, shared in zip(rows, met.found, met.shared, strict=True):
        if row.track.trial is None:
            continue
        trial = row.track.trial.after(found=found, shared=shared)
        on = None if trial.passed(rules.confirm_frames) else trial
        failed = trial.failed(rules.confirm_frames)
        after[row.track.id] = None if failed else replace(row, track=replace(row.track, trial=on))
    return after


def cleaned(row: Row) -> Row:
    """An instance's row without its mask's specks, as it is compared, shown and kept; others as they are."""
    if not row.track.label:
        return row
    return replace(row, chosen=replace(row.chosen, logits=without_specks(row.chosen.logits)))


def settled(rows: Sequence[Row], frame: int, rules: Rules) -> list[Row]:
    """The rows of instances after they were compared with each other: copies and covered ones are hidden.

    Whether an instance is in the picture is said by its mask alone. Other rows stay as they are.
    """
    own = [index for index, row in enumerate(rows) if row.track.label]
    logits = _masks([rows[index].chosen.logits for index in own], None)
    copies = hidden_copies(logits > 0, [rows[index].track.hidden for index in own], rules) if own else set()
    kept = np.array([index not in copies for index in range(len(own))], np.bool_)
    left_over = np.zeros(len(own), np.bool_)
    left_over[kept] = shrunk(logits[kept], rules)
    after = list(rows)
    for place, index in enumerate(own):
        after[index] = _judged(rows[index], frame, hidden=bool(place in copies or left_over[place]))
    return after


def _judged(row: Row, frame: int, *, hidden: bool) -> Row:
    logits = np.minimum(row.chosen.logits, _COVERED) if hidden else row.chosen.logits
    seen = bool((logits > 0).any())
    chosen = replace(row.chosen, logits=logits, object_score=_SURE if seen else -_SURE)
    return replace(row, chosen=chosen, track=row.track if seen else replace(row.track, hidden=frame + 1))


def _renews(row: Row, score: float, overlap: float, rules: Rules) -> bool:
    return (
        score >= rules.renew_score
        and overlap >= rules.renew_iou
        and row.chosen.object_score > rules.renew_object_score
        and not row.prompted
    )


def _masks(logits: Sequence[NDArray[np.float32]], like: NDArray[np.float32] | None) -> NDArray[Any]:
    """(n, h, w) of any n, 0 included."""
    if logits:
        return np.stack(logits)
    return np.zeros((0, 1, 1) if like is None else (0, *like.shape[1:]), np.float32)
