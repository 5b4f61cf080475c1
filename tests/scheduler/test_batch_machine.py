"""The decision in many random stories of batches, tenants, deadlines, tries and age, against a naive one.

As in test_scheduler.py nobody but the test moves, and whoever is on the way may arrive in any order. Here the clock
moves too.
"""

from __future__ import annotations

import gc
import sys
import weakref
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from harness.desk import CANCELLED, COMING, FAILED, FREE, IDLE, LEAVING, PARKED, QUEUED, RUNNING, WORKING, Desk
from harness.effort import examples
from harness.naive import Naive, check_lanes, check_tenants
from harness.props import KNOWN, Name, Noise, Wish, functions, wishes
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from director._jobs.job import JobExtras, ScheduledJob
from director._jobs.options import Options
from director._scheduler.policy import SchedulingPolicy
from director._untrusted.keys import Interner
from director.errors import QueueFull

if TYPE_CHECKING:
    from harness.naive import GroupKey

    from director._jobs.options import BatchRule
    from director._jobs.state import JobState
    from director._scheduler.slots import Slot

pytestmark = pytest.mark.timeout(300)  # a story that fails is made shorter, which takes its time


class Machine(RuleBasedStateMachine):
    @initialize(
        counts=st.lists(st.integers(1, 2), min_size=1, max_size=3),
        max_queue=st.sampled_from([None, None, 0, 4]),
        per_tenant=st.sampled_from([None, None, 2, {"a": 1}, {"b": 1}]),
        weights=st.sampled_from([{}, {"a": 2.0}, {"b": 2.0}]),
        ageing=st.sampled_from([None, None, 3.0]),
        predict=st.booleans(),
        chosen=st.lists(st.integers(0, 9), min_size=1, max_size=3),
    )
    def begin(
        self,
        counts: list[int],
        max_queue: int | None,
        per_tenant: Any,
        weights: dict[str, float],
        ageing: float | None,
        predict: bool,
        chosen: list[int],
    ) -> None:
        gc.collect()
        gc.disable()  # it lets go of anything at any moment, under the lock too; checked is what we let go of
        self.noise, self.interner = Noise(), Interner()
        if isinstance(per_tenant, dict):
            per_tenant = {self.account(self.noise.tenant(name)): bound for name, bound in per_tenant.items()}
        named = {self.account(self.noise.tenant(name)): weight for name, weight in weights.items()}
        self.policy = SchedulingPolicy(max_queue, per_tenant, named, predict, ageing)
        self.desk = self.noise.desk = Desk(counts, policy=self.policy)
        self.slots = self.desk.slots
        self.functions = functions()
        self.chosen = [self.functions[number] for number in chosen]  # few, so that many meet in a batch
        for function in self.functions[-3:]:
            for place in self.desk.places:
                for size in (1, 2, 3, 4):
                    self.desk.scheduler._accounting.costs.add(function, place, size, KNOWN * size)
        self.naive = Naive(self.desk, self.policy)
        self.ended: weakref.WeakSet[ScheduledJob[Any]] = weakref.WeakSet()
        self.accepted = self.over = 0

    # ---- jobs come and go

    @rule(wishes=st.lists(wishes(), min_size=1, max_size=8), patient=st.booleans())
    def admit(self, wishes: list[Wish], patient: bool) -> None:
        for wish in wishes:
            batch = None if wish.function is None else self.chosen[wish.function % len(self.chosen)]
            tenant = self.noise.tenant(wish.tenant)
            options = wish.options(batch, len(self.slots), tenant, self.account(tenant))
            for _ in range(wish.many):
                self.admit_one(options, None if batch is None else self.extra(batch, wish), patient)

    def account(self, tenant: Any) -> Any:
        return self.interner.key_of(tenant)

    def extra(self, batch: BatchRule, wish: Wish) -> JobExtras:
        key = batch.interner.key_of(Name(self.noise, wish.key))
        return JobExtras(key, 0.0 if batch.cost is None else wish.cost)

    def admit_one(self, options: Options, extra: JobExtras | None, patient: bool) -> None:
        bound = False if patient else self.naive.is_full(options)
        if bound is not False:
            with pytest.raises(QueueFull) as caught:
                self.desk.admit(options, patient, self.noise.function(), extra)
            assert caught.value.tenant is (None if bound is True else bound)
            return
        if self.policy.predict:  # nothing is measured of slots here, so nobody is refused
            assert not any(slot.pace() for slot in self.slots)
        job = self.desk.admit(options, patient, self.noise.function(), extra)
        self.accepted += 1
        self.naive.waiting.append(job)
        self.naive.look_at([self.naive.group_of(job)])

    @precondition(lambda self: self.naive.waiting or self.naive.paused)
    @rule(index=st.integers(0, 100), many=st.integers(1, 3), state=st.sampled_from([CANCELLED, FAILED]))
    def withdraw(self, index: int, many: int, state: JobState) -> None:
        for _ in range(many):
            if jobs := [*self.naive.waiting, *self.naive.paused]:
                job = jobs[index % len(jobs)]
                assert self.desk.scheduler.remove(job, state)
                assert not self.desk.scheduler.remove(job, state)
                self.note_end(job)

    @precondition(lambda self: len(self.naive.waiting) > 6)
    @rule(often=st.integers(0, 5))
    def withdraw_all(self, often: int) -> None:
        if often:
            return  # it ends every story of a crowd
        everybody = [*self.naive.waiting, *self.naive.paused]
        assert self.desk.withdraw_all(CANCELLED) == sorted(everybody, key=lambda job: job.id)
        for job in everybody:
            self.note_end(job)

    def note_end(self, job: ScheduledJob[Any]) -> None:
        """It is over, from waiting or from running."""
        for jobs in (self.naive.waiting, self.naive.paused):
            if job in jobs:
                jobs.remove(job)
        job.drop_inputs()
        self.ended.add(job)
        self.over += 1
        self.naive.forget_empty()

    # ---- those who are on their way arrive

    @rule(most=st.integers(1, 4))
    def director_looks(self, most: int) -> None:
        hired = self.desk.hire(most)
        lanes = {job.options.lane for job in self.naive.waiting}
        calls = sum(self.naive.calls_in(lane, self.is_takeable) for lane in lanes)
        assert len(hired) <= calls, "more are hired than there are calls"

    def is_takeable(self, job: ScheduledJob[Any]) -> bool:
        return not self.naive.is_held(job)

    @rule(
        indices=st.lists(st.integers(0, 5), min_size=1, max_size=6),
        seconds=st.sampled_from([0.0, 0.5, 1.0]),
        again=st.booleans(),
    )
    def workers_move(self, indices: list[int], seconds: float, again: bool) -> None:
        """One step of each of these: end a call and look for more work, leave, be reaped."""
        for index in indices:
            slot = self.slots[index % len(self.slots)]
            if slot.state is WORKING:
                self.end(slot, seconds, again)
                self.take(slot)
            elif slot.state in COMING:
                self.take(slot)
            elif slot.state is PARKED:
                assert self.desk.scheduler.leave(slot)
            elif slot.state is LEAVING:
                self.desk.wake(self.desk.scheduler.mark_idle(slot))
                assert slot.state is IDLE

    @precondition(lambda self: self.naive.waiting)
    @rule(rounds=st.integers(1, 6), seconds=st.sampled_from([0.0, 0.5, 1.0]), again=st.booleans())
    def work(self, rounds: int, seconds: float, again: bool) -> None:
        """Everybody who works or comes does one call after the other."""
        for slot in self.slots * rounds:
            if slot.state is WORKING:
                self.end(slot, seconds, again)
                self.take(slot)
            elif slot.state in COMING:
                self.take(slot)

    def end(self, slot: Slot, seconds: float, again: bool) -> None:
        """The call ends; some of its jobs are to be tried again."""
        if slot.usage is not None:
            slot.usage.is_typical = False  # what is known shall stay as it is
        jobs = slot.batch or [slot.job]
        slot.busy_seconds += seconds
        for number, job in enumerate(jobs):
            assert job is not None
            if job.state is not RUNNING:
                continue
            if again and number % 2 == 0 and self.desk.now < job.deadline_at():
                self.set_aside(job)
            else:
                job.transition(FAILED)
                self.note_end(job)

    def set_aside(self, job: ScheduledJob[Any]) -> None:
        assert self.desk.scheduler.hold_for_retry(job)
        extra = job.extras = job.extras or JobExtras()
        extra.failed_attempts += 1
        job.options = replace(job.options, allowed=None)
        self.naive.paused.append(job)

    @precondition(lambda self: self.naive.paused)
    @rule(index=st.integers(0, 20))
    def try_again(self, index: int) -> None:
        job = self.naive.paused.pop(index % len(self.naive.paused))
        self.naive.waiting.append(job)
        self.desk.try_again(job)
        self.naive.look_at([self.naive.group_of(job)])

    def take(self, slot: Slot) -> None:
        """The worker looks for its next call, which must be the right one."""
        self.desk.scheduler._selection.settle(slot, 0.0)  # as it does: what tenants have used tells whose turn
        first, before = self.naive.first_for(slot), self.naive.able(slot)
        self.ranks = {job: self.naive.rank(job) for job in before}
        self.naive.note_order()
        job = self.desk.take(slot)
        late, slot.missed_deadline = slot.missed_deadline, []
        for each in late:
            self.check_late(each)
        batch = [] if job is None else slot.batch or [job]
        self.check_batch(batch)
        self.naive.take(batch, [each for each in late if each in self.naive.waiting])
        for each in late:
            self.note_end(each)
        if first is None:
            assert job is None
            assert not late
        elif not late and not self.is_pressed(first, before):
            assert batch
            assert self.is_equal(batch[0], first, before)
        assert slot.state is (PARKED if job is None else WORKING)

    def is_equal(self, job: ScheduledJob[Any], first: ScheduledJob[Any], waiting: list[ScheduledJob[Any]]) -> bool:
        """Whether it is the first, or that of a tenant who has used as much: who of these is served first is open."""
        if job is first or job.options.account == first.options.account:
            return job is first
        return self.ranks[job][:3] == self.ranks[first][:3] and not any(
            self.ranks[other] < self.ranks[job] for other in waiting if other.options.account == job.options.account
        )

    def check_late(self, job: ScheduledJob[Any]) -> None:
        assert job.state is FAILED
        assert job.options.batch_rule in self.functions[-3:]
        assert self.desk.now + KNOWN > job.deadline_at() - 1e-9, "it could have been served"

    def is_pressed(self, first: ScheduledJob[Any], waiting: list[ScheduledJob[Any]]) -> bool:
        """Whether deadlines have a say in who begins the batch."""
        rule = first.options.batch_rule
        if rule not in self.functions[-3:] or first.options.deadline is None:
            return False
        mates = [job for job in waiting if self.naive.group_of(job) == self.naive.group_of(first)]
        return self.desk.now + KNOWN * min(len(mates), rule.max_size) > first.deadline_at() - 1e-9

    def check_batch(self, batch: list[ScheduledJob[Any]]) -> None:
        if not batch:
            return
        assert all(job.state is RUNNING for job in batch)
        assert all(job in self.naive.waiting for job in batch)
        assert len(set(batch)) == len(batch)
        keys = {self.naive.group_of(job) for job in batch}
        assert len(keys) == 1, "a batch mixes what must not be mixed"
        (key,) = keys
        if key is None:
            assert len(batch) == 1
            return
        assert len(batch) == 1 or self.naive.fits(batch, key[1])
        if key[1] not in self.functions[-3:]:
            self.check_mates(batch, key)
        elif len(batch) > 1:
            ends = self.desk.now + KNOWN * len(batch)
            assert all(ends <= job.deadline_at() + 1e-9 for job in batch), "one more endangers a deadline"

    def check_mates(self, batch: list[ScheduledJob[Any]], key: GroupKey) -> None:
        """Each is the next in line, or of a tenant who has used as much as the next; and the next one does not fit."""
        mates = self.naive.mates_of(batch[0])
        if len({job.options.account for job in mates}) <= 1:
            assert batch == self.naive.batch_of(batch[0], mates)
            return
        if key[1].window > 1:
            return
        order = self.naive.order
        for job in batch[1:]:
            assert order[job][:3] == order[mates[0]][:3], "it has overtaken somebody"
            assert job is next(mate for mate in mates if mate.options.account == job.options.account)
            mates.remove(job)
        ends = [mate for mate in mates if order[mate][:3] == order[mates[0]][:3]]
        assert not ends or any(not self.naive.fits([*batch, mate], key[1]) for mate in ends), "there was room"

    # ---- time

    @rule(seconds=st.sampled_from([0.25, 0.5, 1.0, 3.0]))
    def advance(self, seconds: float) -> None:
        self.desk.advance(seconds)
        for job in [*self.naive.waiting, *self.naive.paused]:
            if job.deadline_at() <= self.desk.now:
                assert self.desk.scheduler.remove(job, FAILED)
                self.note_end(job)
        self.naive.look_at_all()

    @precondition(lambda self: sum(slot.state is PARKED for slot in self.slots) > 1)
    @rule(often=st.integers(0, 5))
    def dismiss(self, often: int) -> None:
        if often:
            return  # it ends every story of groups that are held
        for slot in self.desk.scheduler.stop_lingering():
            slot.wake()
        self.naive.holds = False
        self.naive.look_at_all()

    @rule()
    def settle(self) -> None:
        """Everybody on his way arrives; then nobody waits for a slot that is free."""
        steps = 0
        while self.desk.director_called or self.desk.on_their_way():
            steps += 1
            assert steps < 200, f"they call each other for ever: {self.slots}"
            if coming := self.desk.on_their_way():
                self.take(coming[0])
            else:
                self.desk.hire()
        self.no_wake_up_is_lost()

    # ---- what holds at any time

    @invariant()
    def counts_are_right(self) -> None:
        if not hasattr(self, "desk"):
            return
        scheduler, naive = self.desk.scheduler, self.naive
        queue = scheduler._queue
        assert scheduler.waiting() == len(naive.waiting) + len(naive.paused)
        assert all(job.state is QUEUED for job in [*naive.waiting, *naive.paused])
        assert sorted(queue, key=id) == sorted([*naive.waiting, *naive.paused], key=id)
        if queue.has_lanes:
            check_lanes(queue, naive)
            check_tenants(queue, naive, self.slots)
        running = sum(job.state is RUNNING for slot in self.slots if slot.job for job in slot.batch or [slot.job])
        assert self.accepted == scheduler.waiting() + running + self.over, "a job has ended twice, or not at all"

    @invariant()
    def nobody_is_held_who_is_ripe(self) -> None:
        if hasattr(self, "desk"):
            for job in self.naive.waiting:
                assert not self.naive.is_held(job) or not self.naive.is_ripe(self.naive.group_of(job))  # type: ignore[arg-type]

    @invariant()
    def no_wake_up_is_lost(self) -> None:
        if not hasattr(self, "desk") or self.desk.director_called or self.desk.on_their_way():
            return
        for job in filter(self.is_takeable, self.naive.waiting):
            for slot in self.slots:
                is_free = slot.state in FREE and self.naive.may(job.options, slot)
                assert not is_free, f"nobody is on the way to {job}"

    @invariant()
    def nothing_of_the_users_is_asked_or_let_go_under_the_lock(self) -> None:
        if hasattr(self, "desk"):
            assert not self.noise.is_under_lock

    @invariant()
    def equal_tenants_have_one_account(self) -> None:
        if hasattr(self, "desk"):
            jobs = [*self.naive.waiting, *self.naive.paused]
            assert len({job.options.account for job in jobs if type(job.tenant) is Name}) <= 1

    @invariant()
    def little_is_kept_alive(self) -> None:
        if hasattr(self, "desk"):
            assert len(self.ended) <= 400 + 4 * self.accepted - 4 * self.over

    def teardown(self) -> None:
        try:
            if hasattr(self, "desk") and sys.exc_info()[0] is None:  # else its traceback holds what it holds
                self.finish()
        finally:
            gc.enable()

    def finish(self) -> None:
        """Serve what is left; then nothing must be kept alive."""
        for job in self.desk.withdraw_all(CANCELLED):
            self.note_end(job)
        for slot in self.slots:
            if slot.state is LEAVING:
                self.desk.wake(self.desk.scheduler.mark_idle(slot))
        self.admit_one(Options(), None, patient=True)  # whoever takes it clears away what is behind
        self.settle()
        for slot in self.slots:
            if slot.state is WORKING:
                self.end(slot, 0.0, again=False)
                self.take(slot)
        job = None
        gc.collect()
        assert not self.ended
        assert self.desk.scheduler.waiting() == 0
        assert not self.noise.is_under_lock


TestBatches = Machine.TestCase
TestBatches.settings = settings(
    max_examples=examples(50), stateful_step_count=50, suppress_health_check=list(HealthCheck)
)
