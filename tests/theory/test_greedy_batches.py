"""The Director's batches on virtual time against the greedy policy, simulated by itself in a dozen lines."""

from __future__ import annotations

import pytest
from benchmarks import lines
from benchmarks.batching import EACH, FIXED, MOST, PEAK, SLOTS, plan
from harness.play import Play

from director._jobs.options import BatchRule, Options


def seconds(size: int) -> float:
    return FIXED + EACH * size


def stays_of_director(moments: list[float], max_wait: float = 0.0) -> tuple[list[float], Play]:
    play = Play([1] * SLOTS, lambda jobs, _: seconds(len(jobs)))
    jobs = play.arrive(moments, Options(batch_rule=BatchRule("f", max_size=MOST, max_wait=max_wait)))
    return [(job.finished_at or 0.0) - job.submitted_at for job in jobs], play


@pytest.mark.parametrize("load", [0.3, 0.5, 0.8, 0.95])
def test_batches_are_formed_when_a_slot_is_free_and_never_later(load: float) -> None:
    moments = plan(load * PEAK, 20_000, seed=1)
    expected, sizes = lines.batches(moments, seconds, SLOTS, MOST)
    stays, play = stays_of_director(moments)
    assert stays == pytest.approx(expected, abs=1e-9)
    assert sorted(map(len, play.calls)) == sorted(sizes)


def test_a_saturated_model_gets_full_batches_only() -> None:
    _, play = stays_of_director([0.0] * 100 * MOST)
    alone = [1] * SLOTS  # the first ones: nobody waits while a slot is free
    assert sorted(map(len, play.calls)) == [*alone, MOST - SLOTS, *[MOST] * 99]


def test_waiting_for_company_costs_no_more_than_max_wait() -> None:
    """At little load: alone, an item would take 5.2 ms."""
    moments = plan(0.05 * PEAK, 5_000, seed=1)
    waiting, play = stays_of_director(moments, max_wait=0.005)
    at_once, _ = stays_of_director(moments)
    assert len(play.calls) < 0.8 * len(moments)
    assert max(wait - none for wait, none in zip(waiting, at_once, strict=True)) <= 0.005 + MOST * EACH
    assert min(waiting) > seconds(1)
