"""Groups compete by the job at their front: what long random stories have found."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.desk import CANCELLED, Desk

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


def looked_at(desk: Desk) -> None:
    """Every lane tells its first job, which it keeps for the next look."""
    desk.wake(desk.scheduler.wake_for_waiting())
    assert len(desk.scheduler._queue.in_order(desk.now)) > 1


def test_a_lane_competes_by_its_first_job_again_when_that_has_left_or_a_better_one_comes() -> None:
    desk, here = Desk([1]), frozenset({0})
    slot = taken_slot(desk)
    cancelled = desk.admit(Options(allowed=here))
    other = desk.admit()
    later = desk.admit(Options(allowed=here))
    looked_at(desk)
    assert desk.scheduler.remove(cancelled, CANCELLED)
    assert next_call(desk, slot) == [other]
    last = desk.admit(Options())
    looked_at(desk)
    urgent = desk.admit(Options(priority=1))
    assert [next_call(desk, slot) for _ in range(3)] == [[urgent], [later], [last]]


def test_so_does_a_lane_of_groups() -> None:
    desk, rule, here = Desk([1]), BatchRule("f", max_size=2), frozenset({0})
    slot = taken_slot(desk)
    cancelled = desk.admit(Options(allowed=here, batch_rule=rule))
    other = desk.admit()
    later = desk.admit(Options(allowed=here, batch_rule=rule))
    looked_at(desk)
    assert desk.scheduler.remove(cancelled, CANCELLED)
    assert next_call(desk, slot) == [other]
    last = desk.admit()
    looked_at(desk)
    urgent = desk.admit(Options(priority=1, batch_rule=rule))
    assert [next_call(desk, slot) for _ in range(3)] == [[urgent], [later], [last]]
