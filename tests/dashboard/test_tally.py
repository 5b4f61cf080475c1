"""Counts by the second, and percentiles out of histograms."""

from __future__ import annotations

import random

import pytest

from director.dashboard._tally import OTHER, SECONDS, Recent, Tally, largest, note, quantiles


def idle() -> tuple[int, int, int]:
    return 0, 0, 0


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
    weights = iter([(5, 2, 0), (0, 1, 0)])
    tally = Tally(10.0, lambda: next(weights))
    tally.at(13.0)
    tally.at(14.0)
    assert [(second.queued, second.running) for second in tally.last(4, 14.0)] == [(5, 2), (5, 2), (5, 2), (0, 1)]


def test_rates_and_percentiles_are_of_the_ten_whole_seconds_before() -> None:
    tally = Tally(0.0, idle)
    assert tally.recent(0.9) == Recent()
    for second in range(30):
        tally.at(second).ends["succeeded"] += second
        note(0.001 * (second + 1), tally.at(second).waits)
    recent = tally.recent(30.0)
    assert recent.succeeded == sum(range(20, 30)) / 10
    assert recent.waited == (pytest.approx(0.025, rel=0.05), pytest.approx(0.030, rel=0.05))
    assert recent.ran is None
    assert tally.last(1, 30.0)[0].recent is recent, "the latest point of a chart has the same"
    assert tally.last(30, 30.0)[0].recent.succeeded == 0.0, "in the beginning there are fewer seconds"
    assert tally.last(30, 30.0)[3].recent.succeeded == (0 + 1 + 2 + 3) / 4


def test_what_was_before_a_long_rest_is_not_recent() -> None:
    tally = Tally(0.0, idle)
    tally.at(0.5).ends["succeeded"] += 7
    assert [second.recent.succeeded for second in tally.last(SECONDS, 1e6)] == [0.0] * (SECONDS - 1)


def test_the_last_minute_has_the_current_second() -> None:
    tally = Tally(0.0, idle)
    tally.at(0.0).groups_of("detect", None)
    assert [second.at for second in tally.minute(0.5)[0]] == [0]
    assert tally.minute(0.5)[1] == 1.0, "no rate is of less than a second"
    seconds, span = tally.minute(90.5)
    assert (seconds[0].at, seconds[-1].at, span) == (31, 90, 59.5)
    assert not tally._seconds[0].functions, "what is older is forgotten"


def test_functions_and_tenants_beyond_the_first_fifty_of_a_second_are_one_group() -> None:
    second = Tally(0.0, idle).at(0.0)
    for number in range(10_000):
        for group in second.groups_of(f"function {number}", f"tenant {number}"):
            group.ends["succeeded"] += 1
    for groups in (second.functions, second.tenants):
        assert len(groups) == 51
        assert groups[OTHER].jobs == 10_000 - 50
        told = largest([groups, groups], 20)
        assert len(told) == 21
        assert list(told)[-1] == OTHER
        assert sum(group.jobs for group in told.values()) == 20_000


def test_the_largest_groups_are_those_with_the_most_jobs() -> None:
    tally = Tally(0.0, idle)
    for second in range(3):
        for name, jobs in (("a", 1), ("b", 5), (f"c{second}", 3)):
            (group,) = tally.at(second).groups_of(name, None)
            group.ends["failed"] += jobs
    told = largest([second.functions for second in tally.minute(3.0)[0]], 2)
    assert {name: group.ends["failed"] for name, group in told.items()} == {"b": 15, "a": 3, OTHER: 9}


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
        note(seconds, histogram)
    assert quantiles([histogram], share) == [pytest.approx(waits[round(share * 5000) - 1], rel=0.05)]


def test_percentiles_of_nothing_and_of_no_time() -> None:
    assert quantiles([{}, {}], 0.5) is None
    histogram: dict[int, int] = {}
    note(0.0, histogram)
    assert quantiles([histogram], 0.5, 0.99) == [0.0, 0.0]


def test_a_histogram_does_not_grow_with_the_jobs() -> None:
    histogram: dict[int, int] = {}
    for number in range(100_000):
        note(number / 1000, histogram)
    assert len(histogram) < 160
