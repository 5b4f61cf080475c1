"""What is remembered of tenants: counts that hold, however many there were, and no credit for standing in line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.desk import Desk

from director._jobs.options import Options

if TYPE_CHECKING:
    from director._jobs.job import ScheduledJob

MANY = 3000  # tenants; enough for those who rest to be forgotten


def test_a_tenant_that_comes_when_others_are_forgotten_is_remembered() -> None:
    desk = Desk([1])
    (slot,) = desk.slots
    tenants = desk.scheduler._queue.tenants
    for number in range(MANY):
        desk.admit(Options(tenant=number))
        known = tenants.get(number)
        assert known is not None
        assert (known.waiting, known.running) == (1, 0)
        desk.settle()
        if slot.job is None:
            desk.take(slot)
        assert (known.waiting, known.running) == (0, 1)
        desk.end(slot, 1.0)
        desk.take(slot)
        assert (known.waiting, known.running) == (0, 0)
    assert len(tenants) < MANY / 2


def test_tenants_do_not_pile_up_behind_one_that_waits_and_is_never_served() -> None:
    desk = Desk([1])
    (slot,) = desk.slots
    desk.admit(Options(tenant="patient", priority=-1))
    desk.admit(Options(tenant="first"))
    desk.settle()
    for number in range(MANY):
        desk.end(slot, 1.0)
        desk.admit(Options(tenant=number))
        job = desk.take(slot)
        assert job is not None
        assert job.options.tenant == number
    tenants = desk.scheduler._queue.tenants
    assert len(tenants) < MANY / 2
    assert len(tenants._active) < MANY / 2


def test_those_who_have_used_most_are_remembered_longest() -> None:
    desk = Desk([1])
    (slot,) = desk.slots
    desk.admit(Options(tenant="patient", priority=-1))
    desk.admit(Options(tenant="greedy"))
    desk.settle()
    desk.end(slot, 1000.0)
    for number in range(MANY):
        desk.admit(Options(tenant=number))
        desk.take(slot)
        desk.end(slot, 1.0)
    desk.admit(Options(tenant="greedy"))
    newcomer = desk.admit(Options(tenant="newcomer"))
    assert desk.take(slot) is newcomer


def test_one_that_waits_and_is_never_served_gives_no_credit_to_those_who_come() -> None:
    """Else they would be given all that the others have used since, and those would starve meanwhile."""
    desk = Desk([1])
    (slot,) = desk.slots
    desk.admit(Options(tenant="patient", priority=-1))
    jobs = [desk.admit(Options(tenant="steady")) for _ in range(200)]
    desk.settle()
    for _ in range(100):
        desk.end(slot, 1.0)
        desk.take(slot)
    jobs += [desk.admit(Options(tenant="newcomer")) for _ in range(200)]
    served: list[ScheduledJob[object] | None] = []
    for _ in range(50):
        desk.end(slot, 1.0)
        served.append(desk.take(slot))
    assert 20 <= sum(job is not None and job.options.tenant == "steady" for job in served) <= 30


def test_who_rests_for_a_moment_between_two_jobs_has_his_share_all_the_same() -> None:
    """Two tenants, one with a line of jobs, one that submits the next when the last is over."""
    desk = Desk([1])
    (slot,) = desk.slots
    for _ in range(300):
        desk.admit(Options(tenant="line"))
    desk.admit(Options(tenant="turn"))
    desk.settle()
    seconds = {"line": 0.0, "turn": 0.0}
    for _ in range(200):
        assert slot.job is not None
        tenant = slot.job.options.tenant
        assert isinstance(tenant, str)
        seconds[tenant] += 1.0
        desk.end(slot, 1.0)
        if tenant == "turn":
            desk.admit(Options(tenant="turn"))  # before its slot has looked for the next one
        desk.take(slot)
    assert abs(seconds["line"] - seconds["turn"]) <= 2
