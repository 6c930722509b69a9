"""Levels of masks that answer prompts, that are followed, and that were compared with each other."""

import numpy as np
import pytest
from numpy.typing import NDArray

from service.worker.tracker.levels import levels_of

# Of the logits, the picture and the levels.
SIDE, IMAGE, LARGE = 8, 12, 32


def half(sure: float, *, left: bool = True) -> NDArray[np.float32]:
    """Logits of one half of the picture."""
    logits = np.full((SIDE, SIDE), -sure, np.float32)
    logits[:, : SIDE // 2] = sure
    return logits if left else logits[:, ::-1].copy()


def levels(
    *logits: NDArray[np.float32], exact: tuple[int, ...] = (), settled: tuple[int, ...] = ()
) -> NDArray[np.float32]:
    rows = np.arange(len(logits))
    flags = np.isin(rows, exact), np.isin(rows, settled)
    return levels_of(np.stack(logits), *flags, image_size=IMAGE, side=LARGE)


def test_a_followed_mask_counts_by_how_likely_each_sample_is() -> None:
    (found,) = levels(half(1.0))
    chance = 1 / (1 + np.exp(-1))
    assert found.shape == (LARGE, LARGE) and found.dtype == np.float32
    assert found[:, 0] == pytest.approx(20 * chance - 10, abs=1e-5)
    assert found[:, -1] == pytest.approx(10 - 20 * chance, abs=1e-5)


def test_a_mask_that_answers_a_prompt_is_in_or_out() -> None:
    (found,) = levels(half(0.1), exact=(0,))
    assert (found[:, 0] == 10).all() and (found[:, -1] == -10).all()


def test_a_compared_mask_is_taken_at_the_levels_own_size() -> None:
    step = half(40.0)
    # Between the halves a chance is steep: the picture's few samples blur it, the levels' many do not.
    blurred, sharp = (row[0] for row in levels(step, step, settled=(1,)))
    assert (np.abs(sharp) < 9.9).sum() < (np.abs(blurred) < 9.9).sum()
    alone = levels(step, settled=(0,))
    assert (alone[0, 0] == sharp).all()


def test_masks_that_answer_prompts_share_nothing_and_others_stay() -> None:
    whole, clearer = np.full((SIDE, SIDE), 1.0, np.float32), half(2.0)
    first, second = levels(whole, clearer, exact=(0, 1))
    assert (first[:, 0] == -10).all() and (first[:, -1] == 10).all() and (second[:, 0] == 10).all()
    first, second = levels(whole, clearer, exact=(1,), settled=(0,))
    assert (first == levels(whole, settled=(0,))[0]).all() and (second[:, 0] == 10).all()


def test_nowhere_is_the_lowest_level() -> None:
    nowhere = np.full((SIDE, SIDE), -1024.0, np.float32)
    assert (levels(nowhere, nowhere, settled=(1,)) == -10).all()
