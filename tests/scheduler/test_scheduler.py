"""The decision alone: no event loop, no threads, no time. Each worker is a state that the test moves step by step.

The model is a list of waiting jobs and the states that a user of `Scheduler` can know. Whoever is on the way (the
Director that was called, a worker that was hired or rung) may arrive in any order and as late as the story likes.
"""

from __future__ import annotations

import gc
import weakref
from typing import TYPE_CHECKING, Any

import pytest
from harness.desk import CALLED, CANCELLED, COMING, FAILED, FREE, HIRED, IDLE, LEAVING, PARKED, WORKING, Desk
from harness.effort import examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from director._jobs.model import Model
from director._jobs.options import Options
from director._jobs.state import JobState
from director._scheduler.queue.fair_share import FairShare
from director._scheduler.queue.priority_queue import PriorityQueue
from director.errors import QueueFull

if TYPE_CHECKING:
    from director._jobs.job import ScheduledJob
    from director._scheduler.slots import Slot


class Machine(RuleBasedStateMachine):
    """Any order of arrivals against a plain list."""

    @initialize(counts=st.lists(st.integers(1, 3), min_size=1, max_size=3), bound=st.sampled_from([None, 0, 1, 3]))
    def begin(self, counts: list[int], bound: int | None) -> None:
        self.desk = Desk(counts, bound)
        self.bound = bound
        self.models = [Model(lambda device: device, name=name) for name in "ab"]
        self.waiting: list[ScheduledJob[Any]] = []
        self.slots = self.desk.slots
        self.is_dismissed = False

    # ---- jobs come and go

    @rule(
        priority=st.sampled_from([0, 0, 0, 1, -1]),
        allowed=st.none() | st.frozensets(st.integers(0, 8), min_size=1),
        model=st.none() | st.integers(0, 1),
        patient=st.booleans(),
        many=st.integers(1, 4),
    )
    def admit(self, priority: int, allowed: frozenset[int] | None, model: int | None, patient: bool, many: int) -> None:
        if allowed is not None:
            allowed = frozenset(number % len(self.slots) for number in allowed)
        options = Options(None if model is None else self.models[model], priority, None, None, allowed)
        for _ in range(many):
            if self.is_full(options) and not patient:
                with pytest.raises(QueueFull):
                    self.desk.admit(options)
            else:
                self.waiting.append(self.desk.admit(options, patient))

    @precondition(lambda self: self.waiting)
    @rule(index=st.integers(0, 100), state=st.sampled_from([CANCELLED, FAILED]))
    def withdraw(self, index: int, state: JobState) -> None:
        job = self.waiting.pop(index % len(self.waiting))
        assert self.desk.scheduler.remove(job, state)
        assert not self.desk.scheduler.remove(job, state)

    @precondition(lambda self: len(self.waiting) > 3)
    @rule()
    def withdraw_all(self) -> None:
        assert self.desk.withdraw_all(FAILED) == self.waiting
        self.waiting = []

    # ---- those who are on their way arrive

    @rule(most=st.integers(1, 4))
    def director_looks(self, most: int) -> None:
        idle = [slot for slot in self.slots if slot.state is IDLE]
        hired = self.desk.hire(most)
        assert len(hired) <= most
        assert len(hired) <= len(self.waiting), "more are hired than there are jobs"
        assert all(slot in idle and slot.state is HIRED for slot in hired)

    @rule(indices=st.lists(st.integers(0, 8), min_size=1, max_size=6))
    def workers_move(self, indices: list[int]) -> None:
        """One step of each of these: look for work, leave when it has waited in vain, be reaped."""
        for index in indices:
            slot = self.slots[index % len(self.slots)]
            if slot.state in (*COMING, WORKING):
                self.take(slot)
            elif slot.state is PARKED:
                assert self.desk.scheduler.leave(slot)
                assert slot.state is LEAVING
            elif slot.state is LEAVING:
                self.desk.wake(self.desk.scheduler.mark_idle(slot))
                assert slot.state is IDLE

    def take(self, slot: Slot) -> None:
        expected = self.next_for(slot)
        job = self.desk.take(slot)
        assert job is expected
        if job is None:
            assert slot.state is PARKED, "it looked in vain and was called again at once"
            return
        assert slot.state is WORKING
        assert slot.job is job
        assert job.state is JobState.RUNNING
        self.waiting.remove(job)

    @precondition(lambda self: any(slot.job and slot.job.options.model for slot in self.slots))
    @rule(index=st.integers(0, 8))
    def model_is_loaded(self, index: int) -> None:
        """By one of the jobs that run, for all slots of its place: others may take jobs of it where it had failed."""
        loading = [slot for slot in self.slots if slot.job and slot.job.options.model]
        slot = loading[index % len(loading)]
        assert slot.job is not None
        model = slot.job.options.model
        assert model is not None
        numbers = frozenset(other.number for other in slot.place.slots)
        self.desk.warm[model] = self.desk.warm.get(model, frozenset()) | numbers
        self.desk.broken[model] = self.desk.broken.get(model, frozenset()) - numbers
        self.desk.wake(self.desk.scheduler.wake_for_waiting())

    @precondition(lambda self: any(slot.job and slot.job.options.model for slot in self.slots))
    @rule(index=st.integers(0, 8))
    def model_is_not_loaded(self, index: int) -> None:
        """As `model_is_loaded`, but the loader raises."""
        loading = [slot for slot in self.slots if slot.job and slot.job.options.model]
        slot = loading[index % len(loading)]
        assert slot.job is not None
        model = slot.job.options.model
        assert model is not None
        numbers = frozenset(other.number for other in slot.place.slots)
        if numbers & self.desk.warm.get(model, frozenset()):
            return
        self.desk.broken[model] = self.desk.broken.get(model, frozenset()) | numbers
        hopeless = [job for job in self.waiting if job.options.model is model and not self.able(job.options)]
        assert self.desk.fail_unloadable(model) == hopeless
        self.waiting = [job for job in self.waiting if job not in hopeless]

    @precondition(lambda self: any(self.desk.broken.values()))
    @rule(index=st.integers(0, 1), place=st.integers(0, 2))
    def back_off_is_over(self, index: int, place: int) -> None:
        places = self.desk.places
        numbers = frozenset(slot.number for slot in places[place % len(places)].slots)
        model = self.models[index]
        self.desk.broken[model] = self.desk.broken.get(model, frozenset()) - numbers
        self.desk.wake(self.desk.scheduler.wake_for_waiting())

    @precondition(lambda self: any(slot.state is CALLED for slot in self.slots))
    @rule(index=st.integers(0, 100))
    def worker_that_was_called_cannot_leave(self, index: int) -> None:
        called = [slot for slot in self.slots if slot.state is CALLED]
        assert not self.desk.scheduler.leave(called[index % len(called)])

    @precondition(lambda self: sum(slot.state is PARKED for slot in self.slots) > 2)
    @rule()
    def dismiss(self) -> None:
        for slot in self.desk.scheduler.stop_lingering():
            slot.wake()
        assert not any(slot.state is PARKED for slot in self.slots)
        assert self.desk.scheduler.linger == 0.0

    @rule(late=st.booleans())
    def settle(self, late: bool) -> None:
        """Those who are on their way arrive, the Director perhaps last; then nobody waits for a slot that is free."""
        steps = 0
        while self.desk.director_called or self.desk.on_their_way():
            steps += 1
            assert steps < 100, f"they call each other for ever: {self.slots}"
            coming = self.desk.on_their_way()
            if coming and (late or not self.desk.director_called):
                self.take(coming[0])
            else:
                self.desk.hire()
        for job in self.waiting:
            free = [slot for slot in self.slots if slot.state in FREE and self.is_offered(job.options, slot)]
            assert not free, f"{job} waits while {free} are free and nobody is on the way"

    # ---- what holds at any time

    @invariant()
    def counts_are_right(self) -> None:
        if not hasattr(self, "desk"):
            return
        scheduler = self.desk.scheduler
        assert scheduler.waiting() == len(self.waiting)
        assert sorted(scheduler.running(), key=id) == sorted((s.job for s in self.slots if s.job), key=id)
        for slot in self.slots:
            assert (slot.job is not None) is (slot.state is WORKING)
            assert (slot in slot.place.idle) is (slot.state is IDLE)
            assert (slot in slot.place.parked) is (slot.state is PARKED)
        assert scheduler._free.idle == sum(slot.state is IDLE for slot in self.slots)
        assert scheduler._free.parked == sum(slot.state is PARKED for slot in self.slots)
        assert scheduler.is_idle() is (not self.waiting and all(slot.state is IDLE for slot in self.slots))

    @invariant()
    def no_wake_up_is_lost(self) -> None:
        if not hasattr(self, "desk") or self.desk.director_called or self.desk.on_their_way():
            return
        for job in self.waiting:
            for slot in self.slots:
                is_free = slot.state in FREE and self.is_offered(job.options, slot)
                assert not is_free, f"nobody is on the way to {job}"

    @invariant()
    def who_was_called_was_rung(self) -> None:
        if hasattr(self, "desk"):
            for slot in self.slots:
                assert slot.wake_signal.locked() is (slot.state is not CALLED)

    # ---- the model

    def may(self, options: Options, slot: Slot) -> bool:
        return options.allowed is None or slot.number in options.allowed

    def able(self, options: Options) -> list[Slot]:
        """The slots that have its model, or may still load it."""
        broken = frozenset[int]() if options.model is None else self.desk.broken.get(options.model, frozenset())
        return [slot for slot in self.slots if self.may(options, slot) and slot.number not in broken]

    def is_offered(self, options: Options, slot: Slot) -> bool:
        """It may, and the model did not fail to load there, or so it did everywhere."""
        return self.may(options, slot) and (slot in (able := self.able(options)) or not able)

    def is_full(self, options: Options) -> bool:
        """What free slots will take, or those who are on their way, does not count as waiting."""
        if self.bound is None:
            return False
        free = sum(slot.state in FREE and self.may(options, slot) for slot in self.slots)
        return len(self.waiting) - free - len(self.desk.on_their_way()) >= self.bound

    def suits(self, options: Options, slot: Slot) -> bool:
        """It may, and there is no slot to wait for that has the model loaded while this one has not."""
        if not self.is_offered(options, slot):
            return False
        if options.model is None or slot.number in (warm := self.desk.warm.get(options.model, frozenset())):
            return True
        return not any(
            self.may(options, other) and other.state not in (WORKING, LEAVING)
            for other in self.slots
            if other.number in warm
        )

    def next_for(self, slot: Slot) -> ScheduledJob[Any] | None:
        able = [job for job in self.waiting if self.suits(job.options, slot)]
        return min(able, key=lambda job: (-job.options.priority, job.id), default=None)


TestDispatch = Machine.TestCase
TestDispatch.settings = settings(
    max_examples=examples(150), stateful_step_count=60, suppress_health_check=list(HealthCheck)
)


# ---- single stories


@pytest.fixture
def desk() -> Desk:
    return Desk([1, 1])


def test_a_burst_is_served_by_a_chain_of_calls(desk: Desk) -> None:
    """One parked worker is called for many jobs; each that arrives calls the next."""
    for _ in range(2):
        desk.admit()
    desk.settle()
    for slot in desk.slots:
        assert desk.take(slot) is None
    jobs = [desk.admit() for _ in range(2)]
    assert [slot.state for slot in desk.slots].count(CALLED) == 1
    desk.settle()
    assert {slot.job for slot in desk.slots} == set(jobs)


def test_no_more_are_hired_than_there_are_jobs() -> None:
    desk = Desk([4])
    jobs = [desk.admit() for _ in range(2)]
    assert len(desk.hire(1)) == 1
    assert len(desk.hire(16)) == 1
    assert desk.hire(16) == []
    desk.settle()
    assert {slot.job for slot in desk.slots if slot.job} == set(jobs)


def test_a_job_that_is_withdrawn_does_not_take_the_wake_up_of_another_along() -> None:
    """The Director was called for the first; when it looks, only the other waits, for a worker that is parked."""
    desk = Desk([1, 1, 1])
    first, second, third = (Options(allowed=frozenset({number})) for number in range(3))
    for options in (second, third):
        desk.admit(options)
    desk.settle()
    for slot in desk.slots[1:]:
        desk.take(slot)
    desk.admit(third)
    assert desk.slots[2].state is CALLED
    job = desk.admit(second)  # one is on its way; that one will call the next
    gone = desk.admit(Options(allowed=first.allowed, priority=1))
    desk.take(desk.slots[2])
    desk.scheduler.remove(gone, CANCELLED)
    desk.settle()
    assert desk.slots[1].job is job


def test_a_worker_that_does_not_suit_is_not_called_again(desk: Desk) -> None:
    """Else it spins on its core, with the GIL, for as long as the event loop is busy."""
    warm, cold = desk.slots
    desk.admit(Options(allowed=frozenset({1})))
    desk.settle()
    assert desk.take(cold) is None
    assert (warm.state, cold.state) == (IDLE, PARKED)
    model = Model(lambda device: device)
    desk.warm[model] = frozenset({0})
    desk.admit(Options(model))
    desk.admit(Options(model))
    assert desk.director_called  # and it comes late: until then the loop is busy
    calls = 0
    while cold.state is CALLED and calls < 100:
        calls += 1
        desk.take(cold)
    assert calls <= 1


def test_a_withdrawn_job_is_let_go() -> None:
    """A tombstone must not keep thousands of jobs alive behind one that waits for long."""
    desk = Desk([1])
    first = desk.admit()
    jobs = [desk.admit() for _ in range(1000)]
    alive = weakref.WeakSet(jobs)
    for job in jobs:
        desk.scheduler.remove(job, CANCELLED)
    del jobs, job
    gc.collect()
    assert len(alive) < 150
    assert desk.scheduler.waiting() == 1
    desk.hire()
    assert desk.take(desk.slots[0]) is first


@pytest.mark.parametrize("how", ["served", "swept", "their lane is dropped", "their priority is forgotten"])
def test_user_code_never_runs_under_the_lock(how: str) -> None:
    """What a function holds may have a `__del__`, a job that nobody asked has one: either may call the Director."""
    desk = Desk([1])
    locked: list[bool] = []

    class Resource:
        def __del__(self) -> None:
            locked.append(desk.scheduler._is_deciding)

        def use(self, device: Any) -> None: ...

    def bury(count: int, options: Options = Options()) -> None:  # noqa: B008 - frozen
        for job in [desk.admit(options, fn=Resource().use) for _ in range(count)]:
            desk.scheduler.remove(job, CANCELLED)

    if how == "served":
        desk.admit()
        bury(30)
        desk.admit()
    elif how == "swept":
        bury(200)
        desk.admit()
    elif how == "their lane is dropped":
        bury(30, Options(allowed=frozenset({0})))
        desk.admit()
    else:
        bury(30)
        desk.admit(Options(priority=1))
    desk.hire()
    while desk.take(desk.slots[0]) is not None:
        pass
    gc.collect()
    desk.admit()
    assert len(locked) >= 30
    assert not any(locked)


# ---- a line alone


class Lines:
    """A `Line` and its home, and the jobs that wait in it as a plain list."""

    upper = None

    def __init__(self) -> None:
        self.spent: list[Any] = []
        self.tenants = FairShare({})
        self.line = PriorityQueue(self, self.tenants, self.spent)
        self.desk = Desk([1])
        self.jobs: list[ScheduledJob[Any]] = []

    def left(self, job: ScheduledJob[Any]) -> None: ...

    def push(self, options: Options) -> None:
        job = self.desk.job(options)
        job.location = self
        self.jobs.append(job)
        self.line.push(job)

    def withdraw(self, job: ScheduledJob[Any]) -> None:
        self.jobs.remove(job)
        job.transition(CANCELLED)
        self.line.tidy(len(self.jobs))

    def pop(self) -> ScheduledJob[Any] | None:
        job = self.line.pop()
        if job is not None:
            self.jobs.remove(job)
        return job

    def in_order(self) -> list[ScheduledJob[Any]]:
        return sorted(self.jobs, key=lambda job: (-job.options.priority, job.deadline_at(), job.id))


@settings(max_examples=examples(200))
@given(
    moves=st.lists(
        st.tuples(
            st.sampled_from(["push", "push", "withdraw", "pop", "front"]),
            st.integers(-3, 3),
            st.none() | st.sampled_from([1.0, 2.0, 3.0]),
            st.integers(0, 10**6),
        ),
        max_size=300,
    )
)
def test_a_line_is_a_sorted_list(moves: list[tuple[str, int, float | None, int]]) -> None:
    lines = Lines()
    for move, priority, deadline, index in moves:
        if move == "push":
            lines.push(Options(priority=priority, deadline=deadline))
        elif lines.jobs and move == "withdraw":
            lines.withdraw(lines.jobs[index % len(lines.jobs)])
        elif lines.jobs and move == "pop":
            expected = lines.in_order()[0]
            assert lines.pop() is expected
        elif lines.jobs and move == "front":
            front = lines.line.peek()
            assert front is not None
            assert front[1] is lines.in_order()[0]
        assert sorted(lines.line, key=id) == sorted(lines.jobs, key=id)


def test_many_withdrawals_among_priorities_keep_the_order() -> None:
    """Past the sweep, which the random moves seldom reach."""
    lines = Lines()
    for number in range(1000):
        lines.push(Options(priority=number % 7))
    for job in lines.jobs[:500] + lines.jobs[500::3]:
        lines.withdraw(job)
    expected = lines.in_order()
    assert [lines.pop() for _ in expected] == expected
    assert lines.pop() is None


def test_a_priority_of_its_own_for_each_job_does_not_pile_up() -> None:
    lines = Lines()
    for number in range(1000):
        lines.push(Options(priority=number))
        lines.push(Options(priority=-number))
        lines.pop()
        lines.pop()
    assert len(lines.line._priorities) < 10


def test_a_tenant_of_its_own_for_each_job_does_not_pile_up() -> None:
    lines = Lines()
    for number in range(3000):
        tenant = lines.tenants.of(number)
        lines.tenants.enqueue(tenant)
        lines.push(Options(tenant=number))
        lines.pop()
        tenant.waiting -= 1
        lines.tenants.finish(tenant, lines.tenants.start(tenant), 0.0)
    assert len(lines.tenants) < 1100
    assert len(lines.line._levels) <= 1
