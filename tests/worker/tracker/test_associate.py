"""Detections and tracks of rectangles."""

import numpy as np
import pytest
from numpy.typing import NDArray

from service.worker.tracker.associate import Rules, associate, distinct, hidden_copies, ious, shrunk

RULES = Rules()


def box(x0: int, x1: int, y0: int = 0, y1: int = 10) -> NDArray[np.bool_]:
    mask = np.zeros((20, 40), np.bool_)
    mask[y0:y1, x0:x1] = True
    return mask


def boxes(*spans: tuple[int, int]) -> NDArray[np.bool_]:
    return np.stack([box(*span) for span in spans]) if spans else np.zeros((0, 20, 40), np.bool_)


def test_iou_of_all_pairs() -> None:
    found = ious(boxes((0, 10), (5, 5)), boxes((0, 10), (5, 15), (5, 5)))
    assert found == pytest.approx(np.array([[1, 1 / 3, 0], [0, 0, 0]]))


def test_of_detections_of_one_object_the_best_is_kept() -> None:
    masks = boxes((0, 10), (1, 11), (20, 30), (10, 20))
    assert distinct([0.6, 0.9, 0.7, 0.5], masks, RULES) == [1, 2, 3]
    assert distinct([], boxes(), RULES) == []


def test_where_nothing_is_followed_every_detection_is_new() -> None:
    found = associate(boxes(), [0.55, 0.9], boxes((0, 10), (20, 30)), RULES)
    assert found.new == (0, 1) and found.best == ()


def test_later_a_new_object_must_be_sure_and_elsewhere() -> None:
    tracks = boxes((0, 10))
    found = associate(tracks, [0.9, 0.6, 0.9], boxes((9, 20), (30, 40), (20, 30)), RULES)
    assert found.new == (0, 2)
    assert associate(tracks, [0.9], boxes((7, 17)), RULES).new == ()


def test_a_track_is_found_by_what_is_most_like_it() -> None:
    found = associate(boxes((0, 10), (20, 30)), [0.9, 0.9], boxes((2, 12), (1, 10)), RULES)
    assert found.best == (1, 0) and found.found == (True, False)
    assert found.best_iou == pytest.approx((0.9, 0.0))
    assert found.shared == (False, False)
    nothing = associate(boxes((0, 10)), [], boxes(), RULES)
    assert (nothing.new, nothing.best, nothing.found, nothing.shared) == ((), (-1,), (False,), (False,))


def test_of_tracks_that_one_detection_finds_the_first_has_it() -> None:
    tracks = boxes((0, 10), (2, 12), (20, 30), (1, 11))
    found = associate(tracks, [0.9, 0.9], boxes((1, 11), (20, 30)), RULES)
    assert found.found == (True,) * 4 and found.shared == (False, True, False, True)
    # A track that it is merely the nearest to has no part of it.
    far = associate(boxes((7, 17), (0, 10)), [0.9], boxes((0, 10)), RULES)
    assert far.best == (0, 0) and far.found == (False, True) and far.shared == (False, False)


def test_of_two_tracks_of_one_object_the_one_that_was_hidden_later_is_the_copy() -> None:
    masks = boxes((0, 10), (1, 10), (20, 30))
    assert hidden_copies(masks, [3, -1, -1], RULES) == {0}
    assert hidden_copies(masks, [-1, 3, -1], RULES) == {1}
    # Neither ever was: the younger one, which comes later.
    assert hidden_copies(masks, [-1, -1, -1], RULES) == {1}
    assert hidden_copies(boxes((0, 10), (5, 15)), [-1, -1], RULES) == set()


def test_a_track_of_which_others_leave_little_is_hidden() -> None:
    logits = np.where(boxes((0, 10), (2, 10), (30, 40)), 1.0, -1.0).astype(np.float32)
    logits[1] *= 2
    assert shrunk(logits, RULES).tolist() == [True, False, False]
    assert shrunk(logits[:0], RULES).tolist() == []
