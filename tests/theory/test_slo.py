"""Deadlines under load, by the Director's decision on virtual time: see `benchmarks.slo` for the search."""

from __future__ import annotations

import pytest
from benchmarks import slo
from benchmarks.batching import plan

pytestmark = pytest.mark.slow

RATE = 5300  # items a second: 91 % of what would be possible with even arrivals
COUNT = 60_000


def test_the_bound_is_that_of_the_literature() -> None:
    assert slo.optimum() == pytest.approx(5839, abs=0.5)


@pytest.mark.parametrize("max_wait", [0.0, slo.DEADLINE], ids=["at once", "held back"])
def test_99_of_100_are_in_time_at_a_high_rate(max_wait: float) -> None:
    served = slo.played(plan(RATE, COUNT, seed=7), max_wait)
    assert sum(served) >= 0.99 * COUNT


def test_nobody_can_serve_the_rate_of_even_arrivals_when_they_come_at_random() -> None:
    served = slo.played(plan(slo.optimum(), 20_000, seed=7), 0.0)
    assert 0.5 < sum(served) / 20_000 < 0.98


def test_without_the_decision_hardly_any_is() -> None:
    """Greedy batches of all that wait, whatever their deadlines: in overload everybody is late."""
    assert sum(slo.greedy(plan(RATE, COUNT, seed=7))) < 0.5 * COUNT
