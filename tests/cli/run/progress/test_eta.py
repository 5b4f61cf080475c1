"""When a run will be over."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from director import Director
from director.cli._run.progress.meter import Eta, Meter, Reading, time_left
from director.cli._run.progress.tally import Tally, Times

if TYPE_CHECKING:
    from collections.abc import Callable


def reading(remaining: float | None) -> Reading:
    return Reading(1.0, 1, 0, 2, 1.0, remaining, ())


def after(tally: Tally, items: int, seconds: float = 1.0, size: int = 0) -> None:
    for _ in range(items):
        tally.taken += 1
        tally.count(None, "cpu:0", seconds, size=size)


def test_a_steady_rate() -> None:
    eta, tally = Eta(), Tally({"cpu:0": 1}, total=100)
    eta.sample(0.0, tally)
    for second in range(1, 11):
        after(tally, 2)
        eta.sample(float(second), tally)
    assert eta.read(tally) == pytest.approx(40.0)


def test_only_the_last_minute_counts() -> None:
    eta, tally = Eta(), Tally({"cpu:0": 1}, total=1000)
    for second in range(100):  # a slow start: models, caches
        eta.sample(float(second), tally)
    for second in range(100, 200):
        after(tally, 5)
        eta.sample(float(second), tally)
    assert eta.read(tally) == pytest.approx(100.0, rel=0.02)


def test_what_an_earlier_run_has_done_is_no_part_of_the_rate() -> None:
    eta, tally = Eta(), Tally({"cpu:0": 1}, total=1000)
    tally.counts.ok = 900
    eta.sample(0.0, tally)
    after(tally, 10)
    eta.sample(10.0, tally)
    assert eta.read(tally) == pytest.approx(90.0)


def test_items_of_minutes_have_a_rate_between_two_ends() -> None:
    """Two slots, five minutes an item: nothing ends in the last minute, and the running calls have an age."""
    age = 0.0
    eta, tally = Eta(lambda: [(age, 0), (age, 0)]), Tally({"cpu:0": 2}, total=10)
    after(tally, 2, 300.0)
    for second in range(0, 120):
        age = float(second)
        eta.sample(300.0 + second, tally)
    assert eta.read(tally) == pytest.approx(4 * 300 - 119, rel=0.01)


def run_files(sizes: list[int], seconds: Callable[[int], float], done: int, *, known: bool = True) -> float | None:
    """One slot has done the first of some files; what is said of the rest."""
    tally = Tally({"cpu:0": 1}, total=len(sizes), total_bytes=sum(sizes) if known else None)
    eta, now = Eta(), 0.0
    eta.sample(now, tally)
    for size in sizes[:done]:
        now += seconds(size)
        after(tally, 1, seconds(size), size)
    eta.sample(now, tally)
    return eta.read(tally)


SMALL_FIRST = [1000 + number for number in range(20)] + [50_000] * 20


def test_larger_files_take_longer_where_they_did_so_far() -> None:
    left = run_files(SMALL_FIRST, lambda size: 0.001 * size, done=20)
    assert left == pytest.approx(20 * 50.0, rel=0.01)


def test_a_part_of_the_time_may_be_that_of_each_item() -> None:
    left = run_files(SMALL_FIRST, lambda size: 2.0 + 0.001 * size, done=20)
    assert left == pytest.approx(20 * 52.0, rel=0.01)


@pytest.mark.parametrize("seconds", [lambda size: 0.5, lambda size: 1.0 / size])
def test_sizes_that_make_no_difference_don_t_count(seconds: Callable[[int], float]) -> None:
    spent = sum(map(seconds, SMALL_FIRST[:20]))
    assert run_files(SMALL_FIRST, seconds, done=20) == pytest.approx(spent)


def test_without_all_sizes_items_count() -> None:
    spent = sum(0.001 * size for size in SMALL_FIRST[:20])
    assert run_files(SMALL_FIRST, lambda size: 0.001 * size, done=20, known=False) == pytest.approx(spent)


def test_a_large_file_that_runs_counts_by_its_age_and_size() -> None:
    """It is one of 21 items, and half of the bytes: three quarters of it are done."""
    tally = Tally({"cpu:0": 1}, total=21, total_bytes=20_190 + 20_000)
    eta = Eta(lambda: [(15.0, 20_000)] if tally.done else [])
    eta.sample(0.0, tally)
    for number in range(20):
        after(tally, 1, 0.001 * (1000 + number), 1000 + number)
    eta.sample(20.19 + 15.0, tally)
    assert eta.read(tally) == pytest.approx(5.0, rel=0.01)


def test_files_of_an_earlier_run_are_no_part_of_it() -> None:
    tally = Tally({"cpu:0": 1}, total=120, total_bytes=1_000_000 + sum(SMALL_FIRST))
    tally.counts.ok, tally.counts.bytes_left_out = 80, 1_000_000
    eta = Eta()
    eta.sample(0.0, tally)
    for size in SMALL_FIRST[:20]:
        after(tally, 1, 0.001 * size, size)
    eta.sample(0.001 * sum(SMALL_FIRST[:20]), tally)
    assert eta.read(tally) == pytest.approx(20 * 50.0, rel=0.01)


def test_nothing_is_said_of_what_is_not_known() -> None:
    eta, endless = Eta(), Tally({"cpu:0": 1})
    eta.sample(0.0, endless)
    after(endless, 5)
    eta.sample(1.0, endless)
    assert eta.read(endless) is None
    fresh, tally = Eta(), Tally({"cpu:0": 1}, total=5)
    fresh.sample(0.0, tally)
    fresh.sample(1.0, tally)
    assert fresh.read(tally) is None


def test_how_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    monkeypatch.setattr(time, "time", lambda: 1_700_000_000.0)  # Tuesday, 22:13:20
    said = [time_left(reading(seconds)) for seconds in (None, 0.2, 59.4, 760.0, 7200.0, 200_000.0)]
    assert said == [
        None,
        "0:00:00 left",
        "0:00:59 left",
        "0:12:40 left (~22:26)",
        "2:00:00 left (~00:13)",
        "55:33:20 left (~Fri 05:46)",
    ]


async def test_a_clock_that_is_set_back_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Director("cpu:1") as director:
        tally = Tally({"cpu:0": 1}, total=10)
        meter = Meter(director, tally)
        meter.sample()
        monkeypatch.setattr(time, "time", lambda: 0.0)
        after(tally, 5)
        meter.sample()
        shown = meter.read()
    assert shown.elapsed >= 0
    assert shown.remaining is not None
    assert shown.remaining >= 0


def test_quantiles_are_5_percent_exact() -> None:
    times = Times()
    assert times.quantile(0.5) == 0.0
    for number in range(1, 1001):
        times.add(number / 1000)
    assert times.quantile(0.5) == pytest.approx(0.5, rel=0.05)
    assert times.quantile(0.99) == pytest.approx(0.99, rel=0.05)
    times.add(0.0)
    assert times.quantile(0.0001) < 1e-9
