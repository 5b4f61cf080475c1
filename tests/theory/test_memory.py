"""Models that come and go, by the Director's decision on virtual time: see `benchmarks.memory`."""

from __future__ import annotations

import pytest
from benchmarks import memory
from benchmarks.memory import MODELS, UNEQUAL, instead, zipf

from director._scheduler.memory import memory as decision
from director._scheduler.memory.ledger import DeviceMemory

EQUAL = [1.5] * MODELS


def test_that_no_model_waits_for_ever_costs_little_against_pure_affinity() -> None:
    found = zipf(0.7, EQUAL, 4_000, seed=3)
    with instead(DeviceMemory, "has_worked_enough", memory.by_affinity):
        affine = zipf(0.7, EQUAL, 4_000, seed=3)
    assert found.mean < 1.15 * affine.mean
    assert found.rarest_p99 < 40
    assert found.last < 3 * found.mean, "the queue grows without end"


def test_in_order_of_arrival_the_queue_grows_without_end() -> None:
    with instead(DeviceMemory, "has_worked_enough", memory.in_order_of_arrival):
        found = zipf(0.2, EQUAL, 2_000, seed=3)
    assert found.last > 1.5 * found.mean > 100


def test_what_is_dear_to_load_stays_longer_than_what_was_used_last() -> None:
    own = zipf(0.1, UNEQUAL, 4_000, seed=3)
    with instead(decision, "note_use", memory.by_last_use):
        lru = zipf(0.1, UNEQUAL, 4_000, seed=3)
    assert own.mean < 0.85 * lru.mean


@pytest.mark.slow
def test_more_requests_are_in_time_on_alpaserves_machines_than_with_the_published_static_placement() -> None:
    assert memory.goodput(5, 0.22) >= 0.907


def test_no_ledger_exceeds_its_budget() -> None:
    assert memory.many(2_000) == 0
