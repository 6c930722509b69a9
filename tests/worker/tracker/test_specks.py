"""Masks with holes and splinters of known sizes, at the size of a full student's logits."""

import numpy as np
from numpy.typing import NDArray

from service.worker.tracker.specks import without_specks


def mask(*parts: tuple[slice, slice, bool], side: int = 288) -> NDArray[np.float32]:
    """A large square, and rectangles of foreground or of background put over it one after another."""
    logits = np.full((side, side), -2.0, np.float32)
    logits[side // 4 : side // 2, side // 4 : side // 2] = 3.0
    for rows, columns, shown in parts:
        logits[rows, columns] = 3.0 if shown else -2.0
    return logits


def test_a_hole_of_up_to_16_cells_is_filled_just_above_0() -> None:
    small, large = (slice(80, 84), slice(80, 84)), (slice(100, 101), slice(80, 97))
    found = without_specks(mask((*small, False), (*large, False)))
    assert (found[small] == np.float32(0.1)).all()
    assert (found[large] == -2).all()


def test_a_splinter_of_up_to_16_cells_falls_just_below_0() -> None:
    small, large = (slice(0, 4), slice(0, 4)), (slice(200, 201), slice(0, 17))
    found = without_specks(mask((*small, True), (*large, True)))
    assert (found[small] == np.float32(-0.1)).all()
    assert (found[large] == 3).all()


def test_cells_that_touch_at_a_corner_are_one_part() -> None:
    row = (slice(200, 201), slice(0, 16), True)
    corner = (slice(201, 202), slice(16, 17), True)
    assert (without_specks(mask(row, corner))[200, :16] == 3).all()
    assert (without_specks(mask(row))[200, :16] == np.float32(-0.1)).all()


def test_a_mask_that_is_small_as_a_whole_stays() -> None:
    logits = np.full((288, 288), -2.0, np.float32)
    logits[10, 10:15], logits[20, 20:24] = 3.0, 3.0
    found = without_specks(logits)
    # Of nine cells four are no more than half; five are.
    assert (found[10, 10:15] == 3).all() and (found[20, 20:24] == np.float32(-0.1)).all()


def test_what_has_no_small_parts_stays_to_the_bit() -> None:
    for logits in (mask(), np.full((288, 288), -1024.0, np.float32), np.ones((288, 288), np.float32)):
        assert (without_specks(logits) == logits).all()
    # Cells of a smaller student's logits are larger: one of 64 x 64 is more than 16 of 288 x 288.
    logits = mask((slice(0, 1), slice(0, 1), True), side=64)
    assert (without_specks(logits) == logits).all()
