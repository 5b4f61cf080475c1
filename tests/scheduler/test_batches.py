"""Batches as the decision forms them, on virtual time: no threads, no loop, and every moment is exact."""

from __future__ import annotations

import random

import pytest
from harness.play import Play

from director import Director
from director._jobs.options import BatchRule, Options
from director._scheduler.costs import LinearCost
from director.testing import TestClock


def test_a_group_that_two_looks_are_due_for_is_let_go_once() -> None:
    """The timer may come late, and then the look that was planned first and an earlier one are both due."""
    play = Play([1], lambda jobs, _: 1.0)
    rule = BatchRule("f", max_size=4, max_wait=1.0)
    play.submit(Options())
    patient = play.submit(Options(batch_rule=rule))  # to be looked at in 1 s
    pressed = play.submit(Options(batch_rule=rule, deadline=0.5))  # in half a second
    play.now = 2.0
    play.scheduler.flush_due()
    assert play.scheduler.waiting() == 2
    play.run()
    assert play.calls[1:] == [[patient]]
    assert play.late == [pressed]
    assert play.scheduler.waiting() == 0


async def test_the_earliest_look_counts_whoever_asks_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rings are called outside of the lock: the thread that wants the later look may be the later one to say so."""
    clock, looks = TestClock(), []
    async with Director("simulated:1", clock=clock) as director:
        runtime = director._runtime
        assert runtime is not None
        monkeypatch.setattr(runtime.scheduler, "flush_due", lambda: looks.append(clock.time()))
        for moment in (5.0, 3.0, 4.0):
            runtime._flush_timer.set(moment)
        clock.advance(10.0)
    assert looks == [3.0]


# ---- what calls cost


@pytest.mark.parametrize("sizes", [[1] * 20 + [2, 16, 5], [16, 1], [3, 3, 4] * 5])
def test_calls_on_a_line_need_no_margin_whatever_was_seen_first(sizes: list[int]) -> None:
    """While all calls are of one size the line is a guess; what that gets wrong must not be remembered."""
    line = LinearCost()
    for size in sizes:
        line.add(size, 0.005 + 0.001 * size)
    assert line.fit() == pytest.approx((0.005, 0.001))
    assert line.margin == pytest.approx(0.0, abs=1e-8)


def test_calls_that_stray_need_a_margin_of_two_deviations() -> None:
    line, dice = LinearCost(), random.Random(1)
    for _ in range(1000):
        size = dice.randint(1, 16)
        line.add(size, 0.005 + 0.001 * size + dice.gauss(0, 0.0005))
    assert line.fit() == pytest.approx((0.005, 0.001), rel=0.1)
    assert line.margin == pytest.approx(0.001, rel=0.2)


def test_of_one_size_a_line_goes_through_nothing() -> None:
    """More items are then expected to take in proportion: a batch that is too small is better than one too late."""
    line = LinearCost()
    assert (line.seconds(8), line.margin) == (0.0, 0.0)
    for seconds in (0.9, 1.1):
        line.add(4, seconds)
    assert line.fit() == pytest.approx((0.0, 0.25), rel=0.01)
    assert line.margin == pytest.approx(0.2, rel=0.01)
