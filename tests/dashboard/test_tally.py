"""Counts by the second, and percentiles out of histograms."""

from __future__ import annotations

import random

import pytest

from director.dashboard._tally import SECONDS, Tally, note, quantiles


def idle() -> tuple[int, int]:
    return 0, 0


def test_a_second_is_the_same_until_it_is_over() -> None:
    tally = Tally(10.4, idle)
    first = tally.at(10.9)
    assert tally.at(10.99) is first
    assert tally.at(11.0) is not first
    assert tally.at(10.95) is tally.at(11.5), "a step back belongs to the latest"


def test_only_whole_seconds_are_told() -> None:
    tally = Tally(10.0, idle)
    tally.at(10.5).rejected += 1
    assert tally.last(5, 10.9) == []
    assert [second.rejected for second in tally.last(5, 11.0)] == [1]


def test_seconds_in_which_nothing_happened_are_there_too() -> None:
    tally = Tally(10.0, idle)
    tally.at(10.0).ends["succeeded"] += 7
    assert [second.ends["succeeded"] for second in tally.last(4, 14.2)] == [7, 0, 0, 0]
    assert [second.at for second in tally.last(2, 14.2)] == [12, 13]


def test_the_queue_is_weighed_at_the_end_of_each_second() -> None:
    weights = iter([(5, 2), (0, 1)])
    tally = Tally(10.0, lambda: next(weights))
    tally.at(13.0)
    tally.at(14.0)
    assert [(second.queued, second.running) for second in tally.last(4, 14.0)] == [(5, 2), (5, 2), (5, 2), (0, 1)]


def test_memory_is_bounded_after_a_long_rest() -> None:
    tally = Tally(0.0, idle)
    tally.at(1e6)
    assert len(tally.last(10**6, 1e6)) == SECONDS - 1


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_a_percentile_is_off_by_five_percent_at_most(share: float) -> None:
    dice = random.Random(1)
    waits = sorted(dice.lognormvariate(-3, 2) for _ in range(5000))
    histogram: dict[int, int] = {}
    for seconds in waits:
        note(histogram, seconds)
    assert quantiles([histogram], share) == [pytest.approx(waits[round(share * 5000) - 1], rel=0.05)]


def test_percentiles_of_nothing_and_of_no_time() -> None:
    assert quantiles([{}, {}], 0.5) is None
    histogram: dict[int, int] = {}
    note(histogram, 0.0)
    assert quantiles([histogram], 0.5, 0.99) == [0.0, 0.0]


def test_a_histogram_does_not_grow_with_the_jobs() -> None:
    histogram: dict[int, int] = {}
    for number in range(100_000):
        note(histogram, number / 1000)
    assert len(histogram) < 160
