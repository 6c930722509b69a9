"""Instances of texts on one frame, beside each other: what is hidden, and what is said of it."""

import numpy as np
from numpy.typing import NDArray

from service.worker.tracker.associate import Rules
from service.worker.tracker.bank import Track
from service.worker.tracker.follow import Chosen
from service.worker.tracker.instances import Row, cleaned, settled

RULES = Rules()


def row(id: int, x0: int, x1: int, *, label: str = "dog", hidden: int = 0, sure: float = 1.0) -> Row:
    logits = np.full((20, 40), -1.0, np.float32)
    logits[:10, x0:x1] = sure
    return Row(Track(id, label, hidden=hidden), Chosen(logits, 0.9, 0.5, np.zeros(4, np.float32)), False)


def _seen(rows: list[Row]) -> list[bool]:
    return [row.chosen.object_score > 0 for row in rows]


def _area(row: Row) -> int:
    mask: NDArray[np.bool_] = row.chosen.logits > 0
    return int(mask.sum())


def test_an_instance_is_in_the_picture_where_it_has_a_mask() -> None:
    first, second = settled([row(1, 0, 10), row(2, 20, 20)], 7, RULES)
    assert (first.chosen.object_score, second.chosen.object_score) == (10, -10)
    assert (first.track.hidden, second.track.hidden) == (0, 8)


def test_of_two_tracks_on_one_object_the_younger_or_later_hidden_goes() -> None:
    assert _seen(settled([row(1, 0, 10), row(2, 0, 10), row(3, 20, 30)], 7, RULES)) == [True, False, True]
    assert _seen(settled([row(1, 0, 10, hidden=5), row(2, 0, 10)], 7, RULES)) == [False, True]


def test_what_others_cover_nearly_wholly_is_hidden() -> None:
    rows = settled([row(1, 0, 10), row(2, 3, 30, sure=2.0)], 7, RULES)
    assert _seen(rows) == [True, True]
    rows = settled([row(1, 0, 10), row(2, 2, 30, sure=2.0)], 7, RULES)
    assert _seen(rows) == [False, True] and _area(rows[0]) == 0


def test_objects_that_were_shown_one_by_one_stay_as_they_are() -> None:
    rows = [row(1, 0, 10, label=""), row(2, 0, 10, label=""), row(3, 0, 10)]
    after = settled(rows, 7, RULES)
    assert after[:2] == rows[:2] and after[2].chosen.object_score == 10
    assert settled([], 7, RULES) == []


def test_a_texts_instance_is_compared_without_specks_and_no_other_object_is() -> None:
    logits = np.full((288, 288), -1.0, np.float32)
    logits[:100, :100] = 1.0
    logits[50, 50] = -1.0
    for label, hole in (("dog", np.float32(0.1)), ("", np.float32(-1.0))):
        track = Track(1, label)
        after = cleaned(Row(track, Chosen(logits, 0.9, 0.5, np.zeros(4, np.float32)), False))
        assert after.chosen.logits[50, 50] == hole and after.track == track
