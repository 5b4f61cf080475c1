"""Groups compete by the job at their front: what long random stories have found."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.desk import Desk

from director._jobs.options import BatchRule, Options
from director._scheduler.policy import SchedulingPolicy

if TYPE_CHECKING:
    from director._jobs.job import ScheduledJob
    from director._scheduler.slots import Slot


def taken_slot(desk: Desk) -> Slot:
    """A slot at work, so that what comes next waits."""
    desk.admit()
    desk.settle()
    return desk.slots[0]


def next_call(desk: Desk, slot: Slot) -> list[ScheduledJob[object]]:
    desk.end(slot)
    desk.take(slot)
    return slot.current_jobs()


def test_who_shares_a_call_with_an_aged_item_comes_by_priority() -> None:
    desk, rule = Desk([1], policy=SchedulingPolicy(ageing=10.0)), BatchRule("f", max_size=2)
    slot = taken_slot(desk)
    aged = desk.admit(Options(batch_rule=rule))
    desk.advance(5.0)
    desk.admit(Options(batch_rule=rule))
    urgent = desk.admit(Options(batch_rule=rule, priority=1))
    desk.advance(6.0)
    assert next_call(desk, slot) == [aged, urgent]


def test_between_new_tenants_the_first_comer_is_first_and_deadlines_hold_within_each() -> None:
    desk, rule = Desk([1]), BatchRule("f", max_size=1)
    slot = taken_slot(desk)
    of_a = desk.admit(Options(batch_rule=rule, tenant="a"))
    sooner = desk.admit(Options(batch_rule=rule, tenant="b", deadline=100.0))
    later = desk.admit(Options(tenant="b", deadline=200.0))
    order = [next_call(desk, slot)[0] for _ in range(3)]
    assert order == [of_a, sooner, later]


def test_a_better_item_lifts_its_whole_group() -> None:
    desk, rule = Desk([1]), BatchRule("f", max_size=4)
    slot = taken_slot(desk)
    lone = desk.admit(Options(deadline=50.0))
    usual = desk.admit(Options(batch_rule=rule))
    pressing = desk.admit(Options(batch_rule=rule, deadline=10.0))
    assert next_call(desk, slot) == [pressing, usual]
    assert next_call(desk, slot) == [lone]


def test_a_group_that_has_lost_its_best_item_falls_back() -> None:
    desk, rule = Desk([1]), BatchRule("f", max_size=4)
    slot = taken_slot(desk)
    usual = desk.admit(Options(batch_rule=rule))
    pressing = desk.admit(Options(batch_rule=rule, priority=1))
    lone = desk.admit(Options(deadline=50.0))
    assert desk.scheduler.remove(pressing, pressing.state.CANCELLED)
    assert next_call(desk, slot) == [lone]
    assert next_call(desk, slot) == [usual]
