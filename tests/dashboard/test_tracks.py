"""The track of a slot: calls as stretches, short ones joined, changes told once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from director.dashboard._tracks import Track, make_tracks

BEGIN, END, ITEMS, BUSY, FAILED, LEFT, JOB, NAME = range(8)


def call(track: Track, job: int, begin: float, end: float, *, failed: bool = False, name: str = "f") -> int:
    return track.add(begin, end, job, name, failed)


def rows(track: Track) -> list[list[object]]:
    return track.rows(-1.0)[1]


def test_long_calls_stand_alone() -> None:
    track = Track(10)
    call(track, 1, 1.0, 2.0)
    call(track, 2, 2.0, 2.5, failed=True, name="g")
    assert rows(track) == [[1.0, 2.0, 1, 1.0, 0, False, 1, "f"], [2.0, 2.5, 1, 0.5, 1, False, 2, "g"]]


def test_short_calls_that_follow_each_other_are_joined() -> None:
    track = Track(10)
    for number in range(4):
        call(track, number, 1 + number * 0.02, 1.01 + number * 0.02, failed=number == 2)
    assert rows(track) == [[1.0, 1.07, 4, pytest.approx(0.04), 1, False, 3, "f"]]


def test_a_run_of_several_functions_has_no_name() -> None:
    track = Track(10)
    call(track, 1, 1.0, 1.01)
    call(track, 2, 1.01, 1.02, name="g")
    assert rows(track)[0][NAME] is None


@pytest.mark.parametrize(
    ("first", "second"),
    [((1.0, 1.01), (1.2, 1.21)), ((1.0, 1.2), (1.2, 1.21)), ((1.0, 1.01), (1.01, 1.2))],
    ids=["a rest between", "long before", "long after"],
)
def test_what_is_not_joined(first: tuple[float, float], second: tuple[float, float]) -> None:
    track = Track(10)
    call(track, 1, *first)
    call(track, 2, *second)
    assert [row[ITEMS] for row in rows(track)] == [1, 1]


def test_a_run_ends_after_a_quarter_of_a_second() -> None:
    track = Track(100)
    for number in range(100):
        call(track, number, number * 0.01, number * 0.01 + 0.01)
    assert sum(int(row[ITEMS]) for row in rows(track)) == 100  # type: ignore[call-overload]
    assert 4 <= len(rows(track)) <= 6
    assert track.busy(0.0, 1.0) == pytest.approx(1.0)


def test_the_jobs_of_a_batch_are_one_stretch() -> None:
    track = Track(10)
    assert [call(track, job, 1.0, 1.5, failed=job == 2) for job in (1, 2, 3)] == [1, 2, 3]
    assert rows(track) == [[1.0, 1.5, 3, 0.5, 1, False, 1, "f"]]
    assert call(track, 4, 1.5, 1.6) == 1


def test_the_jobs_of_short_batches_are_counted_in_their_run() -> None:
    track = Track(10)
    sizes = [call(track, job, 1.0 + job // 2 * 0.01, 1.01 + job // 2 * 0.01) for job in range(6)]
    assert sizes == [1, 2, 1, 2, 1, 2]
    assert rows(track) == [[1.0, 1.03, 6, pytest.approx(0.03), 0, False, 4, "f"]]


def test_a_call_that_its_caller_has_left_lasts_until_it_has_ended() -> None:
    track = Track(10)
    track.leave(1.0, 1, "f", True)
    assert rows(track) == [[1.0, None, 1, 0.0, 1, True, 1, "f"]]
    assert track.busy(0.0, 3.0) == 2.0
    track.end(1.0, 4.0)
    assert rows(track) == [[1.0, 4.0, 1, 3.0, 1, True, 1, "f"]]
    track.end(1.0, 9.0)
    track.end(0.5, 9.0)
    assert rows(track)[0][END] == 4.0, "it has ended already"


def test_one_caller_of_a_batch_leaves() -> None:
    track = Track(10)
    track.leave(1.0, 1, "f", False)
    assert call(track, 2, 1.0, 3.0) == 2
    track.end(1.0, 3.0)
    assert rows(track) == [[1.0, 3.0, 2, 2.0, 0, True, 1, "f"]]
    track.leave(4.0, 3, "f", False)
    track.leave(4.0, 4, "f", True)
    assert rows(track)[1] == [4.0, None, 2, 0.0, 1, True, 3, "f"]


def test_busy_seconds_are_those_within_the_time_asked_for() -> None:
    track = Track(10)
    call(track, 1, 0.0, 4.0)
    track.leave(5.0, 2, "f", False)
    assert track.busy(3.0, 7.0) == 1.0 + 2.0
    assert track.busy(8.0, 8.0) == 0.0


def test_only_the_latest_are_kept() -> None:
    track = Track(3)
    for number in range(5):
        call(track, number, float(number), number + 0.5)
    assert track.rows(-1.0)[0] == 2
    assert [row[JOB] for row in rows(track)] == [2, 3, 4]


def test_rows_since_a_moment_keep_their_numbers() -> None:
    track = Track(10)
    for number in range(5):
        call(track, number, float(number), number + 0.5)
    first, kept = track.rows(2.7)
    assert first == 3
    assert [row[JOB] for row in kept] == [3, 4]


def test_the_longest_tracks_of_many_slots_are_shorter() -> None:
    assert sum(track._length for track in make_tracks(4000)) <= 80_000


Step = st.tuples(st.sampled_from(["add", "mate", "leave", "end", "look"]), st.floats(0.001, 0.2))


@given(st.lists(Step, max_size=80))
def test_changes_put_together_are_what_is_there(steps: list[tuple[str, float]]) -> None:
    """A viewer that replaces from the number on what it is told has the same stretches as the track."""
    track, now, began, open_call = Track(20), 0.0, 0.0, False
    seen: dict[int, list[object]] = {}
    for job, (step, passed) in enumerate(steps):
        if step == "look":
            follow(seen, track)
        elif step == "mate" and began:
            track.add(began, now, job, "f", False)
            open_call = False
        elif step == "end":
            now += passed
            track.end(began, now)
            open_call = False
        elif not open_call:
            began, now = now, now + passed
            open_call = step == "leave"
            track.leave(began, job, "f", True) if open_call else track.add(began, now, job, "f", False)
    follow(seen, track)
    first, there = track.rows(-1.0)
    assert [seen[number] for number in range(first, first + len(there))] == there
    assert max(seen, default=-1) == first + len(there) - 1


def follow(seen: dict[int, list[object]], track: Track) -> None:
    change = track.changes()
    if change is None:
        return
    start, told = change
    for number in [number for number in seen if number >= start]:
        del seen[number]
    seen.update(enumerate(told, start=start))
