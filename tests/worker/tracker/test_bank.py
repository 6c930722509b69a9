"""What is kept of a track's past, and what a later frame is shown of it."""

from dataclasses import replace

import numpy as np

from model_store.artifact import Memory
from service.worker.tracker.bank import PROMPTED, Kept, Track, half, past_of, span_of

MEMORY = Memory(kind="perceiver", tokens=3, width=2, pointer_width=4, frames=3, pointers=5, mask_size=8)


def _kept(frame: int) -> Kept:
    return Kept(frame, half(np.full((3, 2), frame, np.float32)), half(np.full(4, frame, np.float32)))


def _track(frames: int, prompted: tuple[int, ...] = (0,)) -> Track:
    track = Track(1)
    for frame in range(frames):
        track = track.remember(_kept(frame), frame in prompted, MEMORY)
    return track


def test_a_track_keeps_its_prompts_the_last_frames_and_pointers_of_some_more() -> None:
    track = _track(12)
    assert [kept.frame for kept in track.prompted] == [0]
    # For frame 12: pointers of up to 4 frames ago, memories of up to 2.
    assert [kept.frame for kept in track.followed] == [8, 9, 10, 11]
    assert [kept.memory is not None for kept in track.followed] == [False, False, True, True]


def test_a_track_of_any_length_takes_no_more_room() -> None:
    assert _track(40).nbytes == _track(12).nbytes == 3 * 3 * 2 * 2 + 5 * 4 * 2
    always = _track(40, prompted=tuple(range(40)))
    assert [kept.frame for kept in always.prompted] == list(range(40 - PROMPTED, 40)) and not always.followed


def test_a_track_that_selects_passes_over_frames_that_hardly_show_it() -> None:
    track = Track(1, selects=True)
    for frame in range(6):
        track = track.remember(_kept(frame), not frame, MEMORY)
    for frame in range(6, 30):
        track = track.remember(replace(_kept(frame), poor=True), False, MEMORY)
        # The last frame counts, whatever it shows.
        assert [(kept.frame, age) for kept, age in track.aged(frame + 1)] == [
            (3, 4), (4, 3), (5, 2), (frame, 1),
        ][-4:]  # fmt: skip
    past = past_of([track], 30, span_of(None), MEMORY)
    assert past["memory"][0, :, 0, 0].tolist() == [0, 5, 29] and past["ages"].tolist() == [[0, 2, 1]]
    assert past["pointers"][0, :, 0].tolist() == [0, 3, 4, 5, 29]
    assert np.allclose(past["pointer_ages"][0], np.array([30, 4, 3, 2, 1], np.float32) / 15)
    track = track.remember(_kept(30), False, MEMORY)
    assert [kept.frame for kept, _ in track.aged(31)] == [3, 4, 5, 30]


def test_a_track_that_is_seen_all_the_time_selects_what_others_keep() -> None:
    track = Track(1, selects=True)
    for frame in range(12):
        track = track.remember(_kept(frame), not frame, MEMORY)
    past, usual = (past_of([each], 12, span_of(None), MEMORY) for each in (track, _track(12)))
    assert all(np.array_equal(past[name], usual[name]) for name in usual)


def test_a_frame_is_shown_tracks_of_different_ages_padded() -> None:
    young, old = Track(1).remember(_kept(9), True, MEMORY), _track(10, prompted=(0, 4))
    past = past_of([young, old], 10, span_of(None), MEMORY)
    assert past["memory_valid"].tolist() == [[True, False, False, False], [True] * 4]
    assert past["ages"].tolist() == [[0, 0, 0, 0], [0, 0, 2, 1]]
    assert past["memory"][1, :, 0, 0].tolist() == [0, 4, 8, 9]
    assert past["pointers_valid"].sum(1).tolist() == [1, 6]
    ages = [10, 6, 4, 3, 2, 1]
    assert np.allclose(past["pointer_ages"][1], np.array(ages, np.float32) / 15)
    assert past["pointers"][1, :, 0].tolist() == [10 - age for age in ages]


def test_a_track_without_a_past_is_all_padding() -> None:
    past = past_of([Track(1)], 0, span_of(None), MEMORY)
    assert past["memory"].shape == (1, 1, 3, 2) and past["pointers"].shape == (1, 1, 4)
    assert not past["memory_valid"].any() and not past["pointers_valid"].any()


def test_the_span_of_a_short_video_is_its_own() -> None:
    assert [span_of(total) for total in (None, 1, 2, 8, 16, 1000)] == [15, 1, 1, 7, 15, 15]
