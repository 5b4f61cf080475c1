"""Fairness between tenants, and that nobody starves: the decision on virtual time, where device seconds are exact."""

from __future__ import annotations

import itertools
import random
import sys
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from harness.effort import examples
from harness.play import Play
from hypothesis import given, settings
from hypothesis import strategies as st

from director._jobs.options import BatchRule, Options
from director._scheduler.policy import SchedulingPolicy

if TYPE_CHECKING:
    from collections.abc import Hashable

    from director._jobs.job import ScheduledJob
    from director._scheduler.slots import Slot

LONGEST = 20.0  # s of a call, in all stories


@dataclass(frozen=True)
class Service:
    """Device time that a tenant got, within one call."""

    tenant: Hashable
    began: float
    until: float
    share: float  # of the call

    def within(self, since: float, now: float) -> float:
        return self.share * max(0.0, min(self.until, now) - max(self.began, since))


class Market(Play):
    """A play in which a job lasts as long as its cargo says, a batch as its longest, and tenants are watched."""

    def __init__(self, slots: int, weights: dict[Hashable, float], ageing: float | None = None) -> None:
        super().__init__([slots], self._begin, SchedulingPolicy(weights=weights, ageing=ageing))
        self.slots = slots
        self.weights = weights
        self.services: list[Service] = []
        self.starts: list[ScheduledJob[Any]] = []
        self.waiting: Counter[Hashable] = Counter()
        self.since: dict[Hashable, float] = {}  # tenants that have had work waiting, without a break
        self.gap = 0.0  # the worst unfairness seen, as a share of what is allowed

    def arrive_for(self, tenant: Hashable, seconds: float, **options: Any) -> ScheduledJob[Any]:
        self.waiting[tenant] += 1
        self.since.setdefault(tenant, self.now)
        return self.submit(Options(tenant=tenant, **options), seconds)

    def used(self, tenant: Hashable, since: float = 0.0) -> float:
        """Device seconds of a tenant divided by its weight."""
        total = sum(service.within(since, self.now) for service in self.services if service.tenant == tenant)
        return total / self.weights.get(tenant, 1.0)

    def _begin(self, jobs: list[ScheduledJob[Any]], _slot: Slot) -> float:
        self._compare()
        seconds = max(job.payload[0] for job in jobs)
        for job in jobs:
            tenant = job.options.tenant
            self.starts.append(job)
            self.services.append(Service(tenant, self.now, self.now + seconds, 1 / len(jobs)))
            self.waiting[tenant] -= 1
            if not self.waiting[tenant]:
                del self.since[tenant]
        return float(seconds)

    def _compare(self) -> None:
        """Any two tenants with work waiting all the time must have got the same, by weight, up to a few calls.

        Up to one on each slot and two more of each: one that made the start unequal, and one that nobody can divide.
        """
        for one, other in itertools.combinations(self.since, 2):
            since = max(self.since[one], self.since[other])
            gap = abs(self.used(one, since) - self.used(other, since))
            allowed = (self.slots + 2) * LONGEST * (1 / self.weights.get(one, 1) + 1 / self.weights.get(other, 1))
            self.gap = max(self.gap, gap / allowed)


# ---- shares


@settings(max_examples=examples(200), deadline=None)
@given(
    st.integers(1, 3),
    st.fixed_dictionaries({}, optional={name: st.sampled_from([1, 2, 5, 0.5]) for name in "abc"}),
    st.lists(
        st.tuples(st.integers(0, 30), st.sampled_from(["a", "b", "c", None]), st.integers(1, 20), st.integers(1, 12)),
        max_size=40,
    ),
    st.sets(st.sampled_from(["a", "b", "c", None])),
)
def test_no_tenant_falls_behind_while_it_has_work(
    slots: int,
    weights: dict[Hashable, float],
    arrivals: list[tuple[int, str | None, int, int]],
    in_batches: set[str | None],
) -> None:
    """Whatever comes, in jobs or in batches: bursts of long jobs, of short ones, rests in between."""
    market = Market(slots, weights)
    rule = BatchRule("f", max_size=4)
    for gap, tenant, seconds, many in arrivals:
        market.run(until=market.now + gap)
        for _ in range(many):
            market.arrive_for(tenant, float(seconds), batch_rule=rule if tenant in in_batches else None)
    market.run()
    assert not +market.waiting
    assert market.gap <= 1.0


@pytest.mark.parametrize("slots", [1, 4])
def test_shares_follow_the_weights_whatever_jobs_last(slots: int) -> None:
    """A tenant of long jobs, one of short ones and one of both get device time as 1 : 2 : 3."""
    market = Market(slots, {"b": 2, "c": 3})
    dice = random.Random(1)
    for _ in range(600):
        market.arrive_for("a", 20.0)
        market.arrive_for("b", 1.0)
        market.arrive_for("b", 1.0)
        market.arrive_for("c", dice.choice([1.0, 20.0]))
    market.run(until=500.0)
    used = [market.used(tenant) for tenant in "abc"]
    assert used == pytest.approx([slots * 500.0 / 6] * 3, rel=0.2)
    assert market.gap <= 1.0


def test_a_batch_costs_its_tenants_one_call_together() -> None:
    market = Market(1, {})
    rule = BatchRule("f", max_size=4)
    for _ in range(400):
        market.arrive_for("batches", 10.0, batch_rule=rule)
        market.arrive_for("singles", 10.0)
    market.run(until=1000.0)
    assert market.used("batches") == pytest.approx(market.used("singles"), rel=0.1)


def test_jobs_of_one_tenant_do_not_delay_another() -> None:
    """A thousand that were there before, and still the newcomer's first job is next."""
    market = Market(1, {})
    for _ in range(1000):
        market.arrive_for("crowd", 1.0)
    market.run(until=10.5)
    job = market.arrive_for("newcomer", 1.0)
    market.run(until=20.0)
    assert job.waited is not None
    assert job.waited <= 2.0


def test_a_rest_earns_no_credit() -> None:
    market = Market(1, {})
    for _ in range(100):
        market.arrive_for("busy", 1.0)
    market.arrive_for("resting", 1.0)
    market.run(until=50.0)
    for _ in range(50):
        market.arrive_for("resting", 1.0)
    market.run(until=60.0)
    since = [job.options.tenant for job in market.starts if (job.started_at or 0.0) >= 50.0]
    assert abs(since.count("busy") - since.count("resting")) <= 2


def test_having_used_idle_devices_is_no_fault() -> None:
    market = Market(1, {})
    for _ in range(500):
        market.arrive_for("early", 1.0)
    market.run(until=400.5)
    for _ in range(50):
        market.arrive_for("late", 1.0)
    market.run(until=420.0)
    since = [job.options.tenant for job in market.starts if (job.started_at or 0.0) >= 400.5]
    assert abs(since.count("early") - since.count("late")) <= 2


def test_after_a_rest_of_all_everybody_is_equal() -> None:
    market = Market(1, {})
    for _ in range(100):
        market.arrive_for("early", 1.0)
    market.run()
    for _ in range(50):
        market.arrive_for("new", 1.0)
        market.arrive_for("early", 1.0)
    market.run(until=market.now + 20.0)
    since = [job.options.tenant for job in market.starts[100:]]
    assert abs(since.count("early") - since.count("new")) <= 2


def test_one_who_always_has_a_single_job_gets_no_more_for_it() -> None:
    """A caller that awaits each result before the next job rests between them, and is not new each time."""
    market = Market(1, {})

    def again() -> None:
        job = market.arrive_for("one at a time", 20.0)
        market.at(market.now, lambda: next_after(job))

    def next_after(job: ScheduledJob[Any]) -> None:
        if job.finished_at is None:
            market.at(market.now + 0.25, lambda: next_after(job))
        else:
            again()

    again()
    for _ in range(1000):
        market.arrive_for("many", 1.0)
    market.run(until=400.0)
    assert market.used("one at a time") == pytest.approx(market.used("many"), rel=0.15)


def test_priority_goes_before_fairness_and_fairness_before_deadlines() -> None:
    market = Market(1, {})
    market.arrive_for("a", 1.0)
    market.arrive_for("a", 1.0, deadline=100.0)
    market.arrive_for("b", 1.0)
    market.arrive_for("a", 1.0, priority=1)
    market.arrive_for("b", 1.0, deadline=200.0)
    market.run()
    order = [(job.options.tenant, job.options.priority, job.options.deadline) for job in market.starts]
    assert order == [("a", 0, None), ("a", 1, None), ("b", 0, 200.0), ("b", 0, None), ("a", 0, 100.0)]


def test_jobs_without_a_tenant_are_one() -> None:
    market = Market(1, {None: 3})
    for _ in range(100):
        market.arrive_for(None, 1.0)
        market.arrive_for("a", 1.0)
    market.run(until=80.0)
    started = Counter(job.options.tenant for job in market.starts)
    assert started[None] == pytest.approx(60, abs=2)


# ---- nobody starves


@settings(max_examples=examples(150), deadline=None)
@given(
    st.integers(1, 3),
    st.sampled_from([10.0, 50.0]),
    st.lists(st.tuples(st.integers(0, 30), st.integers(-2, 2), st.sampled_from(["a", "b", None])), max_size=80),
)
def test_who_has_waited_long_enough_goes_before_all_who_came_later(
    slots: int, ageing: float, arrivals: list[tuple[int, int, str | None]]
) -> None:
    market = Market(slots, {"a": 5}, ageing=ageing)
    waiting: list[ScheduledJob[Any]] = []
    begin = market._seconds

    def checked(jobs: list[ScheduledJob[Any]], slot: Slot) -> float:
        (job,) = jobs
        now, oldest = market.now, min([*waiting, job], key=lambda each: each.id)
        assert job is oldest or now - oldest.submitted_at < ageing, f"{oldest} is overtaken by {job}"
        if job in waiting:
            waiting.remove(job)
        return begin(jobs, slot)

    market._seconds = checked
    for gap, priority, tenant in arrivals:
        market.run(until=market.now + gap / 10)
        job = market.arrive_for(tenant, 5.0, priority=priority)
        if job.started_at is None:
            waiting.append(job)
    market.run()
    assert len(market.starts) == len(arrivals)


@pytest.mark.parametrize("ageing", [None, 30.0])
def test_a_low_priority_under_lasting_overload(ageing: float | None) -> None:
    """Without ageing it waits for as long as there is something higher; with it, hardly longer than that."""
    market = Market(1, {}, ageing=ageing)
    market.arrive_for(None, 1.0)
    low = market.arrive_for(None, 1.0, priority=-1)
    for second in range(200):
        market.at(float(second), lambda: [market.arrive_for(None, 0.75, priority=1) for _ in range(2)])
    market.run(until=200.0)
    if ageing is None:
        assert low.started_at is None
    else:
        assert low.waited is not None
        assert ageing <= low.waited <= ageing + 20.0  # those that came before it and have aged as well


# ---- many of them


@pytest.mark.parametrize("options", [{}, {"batch_rule": BatchRule("f", max_size=2)}], ids=["jobs", "batches"])
def test_a_decision_costs_no_more_among_very_many_tenants(options: dict[str, Any]) -> None:
    """Counted in calls of functions, which repeat exactly."""
    few, many = (calls_of_a_decision(tenants, options) for tenants in (10, 10_000))
    assert many < 1.5 * few


def calls_of_a_decision(tenants: int, options: dict[str, Any]) -> float:
    play = Play([1], lambda jobs, _: 1.0)
    play.submit(Options())
    for tenant in itertools.chain(range(tenants), range(tenants)):
        play.submit(Options(tenant=tenant, **options))
    count = 0

    def note(_frame: Any, event: str, _arg: Any) -> None:
        nonlocal count
        count += event == "call"

    (slot,) = play.scheduler.slots
    sys.setprofile(note)
    for _ in range(10):
        slot.busy_seconds += 1.0
        play.scheduler.next_work(slot)
    sys.setprofile(None)
    return count / 10
