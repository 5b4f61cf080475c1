"""Random stories of batches on virtual time, against models that are slow and plain."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from harness.effort import examples
from harness.play import Play
from hypothesis import given, settings
from hypothesis import strategies as st

from director._jobs.options import BatchRule, Options
from director._jobs.state import JobState

if TYPE_CHECKING:
    from director._jobs.job import ScheduledJob
    from director._scheduler.slots import Slot

FIXED, EACH = 5.0, 1.0
LONG_AGO = 16 * (FIXED + EACH)  # s without a call, after which what was learned is put to the test again


def seconds(size: int) -> float:
    return FIXED + EACH * size


class Story(Play):
    """A play that knows at each start of a call what waits."""

    def __init__(self, slots: list[int]) -> None:
        super().__init__(slots, self._begin)
        self.waiting: list[ScheduledJob[Any]] = []
        admit = self.scheduler.admit

        def noted(job: ScheduledJob[Any], wait_for_room: bool) -> Any:
            self.waiting.append(job)
            return admit(job, wait_for_room)

        self.scheduler.admit = noted  # type: ignore[method-assign]

    def _begin(self, jobs: list[ScheduledJob[Any]], _slot: Slot) -> float:
        self.started(jobs)
        for job in [*jobs, *self.late]:
            if job in self.waiting:
                self.waiting.remove(job)
        return seconds(len(jobs))

    def started(self, jobs: list[ScheduledJob[Any]]) -> None:
        """A call starts; `waiting` still has its jobs."""

    def cancel(self, job: ScheduledJob[Any]) -> bool:
        if gone := super().cancel(job):
            self.waiting.remove(job)
        return gone


# ---- who shares a call


@dataclass(frozen=True)
class Item:
    key: int = 0
    cost: float = 1.0
    priority: int = 0
    rule: int = 0


rules = st.builds(
    BatchRule,
    name=st.just("f"),
    max_size=st.integers(1, 5),
    max_cost=st.none() | st.integers(1, 12),
    padded=st.booleans(),
)
items = st.builds(
    Item, key=st.integers(0, 2), cost=st.integers(0, 8), priority=st.sampled_from([0, 0, 0, 1]), rule=st.integers(0, 1)
)
steps = st.lists(st.tuples(st.integers(0, 12), st.lists(items, max_size=6), st.integers(0, 20)), max_size=25)


class Greedy(Story):
    """Checks each call against the list of what waits."""

    def started(self, jobs: list[ScheduledJob[Any]]) -> None:
        assert jobs == self.expected(), f"at {self.now}"

    def expected(self) -> list[ScheduledJob[Any]]:
        first, *others = sorted(self.waiting, key=lambda job: (-job.options.priority, job.id))
        rule = first.options.batch_rule
        if rule is None:
            return [first]
        batch = [first]
        for other in others:
            if other.options.batch_rule is rule and other.extras.batch_key == first.extras.batch_key:  # type: ignore[union-attr]
                if not self.fits([*batch, other], rule):
                    break
                batch.append(other)
        return batch

    def fits(self, batch: list[ScheduledJob[Any]], rule: BatchRule) -> bool:
        costs = [job.extras.batch_cost for job in batch]  # type: ignore[union-attr]
        total = max(costs) * len(costs) if rule.padded else sum(costs)
        return len(batch) <= rule.max_size and (rule.max_cost is None or total <= rule.max_cost)


@settings(max_examples=examples(300), deadline=None)
@given(st.lists(rules, min_size=2, max_size=2), st.integers(1, 3), steps)
def test_a_call_gets_who_should_share_it(
    rules: list[BatchRule], slots: int, steps: list[tuple[int, list[Item], int]]
) -> None:
    """Sizes, keys, functions, budgets, order and priorities at once, with cancellations in between."""
    play = Greedy([slots])
    jobs: list[ScheduledJob[Any]] = []
    for pause, arriving, cancelled in steps:
        play.run(until=play.now + pause)
        for item in arriving:
            batch = rules[item.rule] if item.key < 2 else None  # the third kind is single
            jobs.append(play.submit(Options(priority=item.priority, batch_rule=batch), key=item.key, cost=item.cost))
        if jobs:
            job = jobs[cancelled % len(jobs)]
            waits = job.state is JobState.QUEUED
            assert play.cancel(job) is waits
    play.run()
    assert not play.waiting
    assert play.scheduler.waiting() == 0
    ran = [job for call in play.calls for job in call]
    assert len(ran) == len(set(ran))
    assert set(ran) == {job for job in jobs if job.state is not JobState.CANCELLED}


class Windowed(Story):
    """Checks the batches of a function with a window."""

    def started(self, jobs: list[ScheduledJob[Any]]) -> None:
        rule = jobs[0].options.batch_rule
        assert rule is not None
        assert jobs[0] is self.waiting[0], "the oldest always goes"
        ahead = self.waiting[: rule.window * rule.max_size]
        assert set(jobs) <= set(ahead)
        assert len(jobs) == min(len(self.waiting), rule.max_size)
        strangeness = [abs(job.extras.batch_cost - jobs[0].extras.batch_cost) for job in ahead]  # type: ignore[union-attr]
        taken = [abs(job.extras.batch_cost - jobs[0].extras.batch_cost) for job in jobs]  # type: ignore[union-attr]
        assert sorted(taken) == sorted(strangeness)[: len(jobs)], "the most alike"


@settings(max_examples=examples(150), deadline=None)
@given(
    st.builds(BatchRule, name=st.just("f"), max_size=st.integers(1, 4), window=st.integers(2, 4)),
    st.lists(st.tuples(st.integers(0, 8), st.lists(st.integers(0, 9), max_size=12)), max_size=15),
)
def test_a_window_takes_the_most_alike_and_always_the_oldest(
    rule: BatchRule, steps: list[tuple[int, list[int]]]
) -> None:
    play = Windowed([1])
    count = 0
    for pause, costs in steps:
        play.run(until=play.now + pause)
        for cost in costs:
            play.submit(Options(batch_rule=rule), cost=cost)
            count += 1
    play.run()
    assert sum(map(len, play.calls)) == count


# ---- waiting for company


@dataclass
class Held:
    """What a group of one key should do when a slot is always free."""

    rule: BatchRule
    arrivals: list[float] = field(default_factory=list)

    def calls(self) -> list[tuple[float, int]]:
        """Moments and sizes: a batch goes when it is full, or when its oldest item has waited long enough."""
        calls, batch = [], []
        for arrival in [*self.arrivals, None]:
            if batch and (arrival is None or arrival >= batch[0] + self.rule.max_wait):
                calls.append((batch[0] + self.rule.max_wait, len(batch)))
                batch = []
            if arrival is None:
                break
            batch.append(arrival)
            if len(batch) == self.rule.max_size:
                calls.append((arrival, len(batch)))
                batch = []
        return calls


@settings(max_examples=examples(200), deadline=None)
@given(
    st.builds(BatchRule, name=st.just("f"), max_size=st.integers(1, 5), max_wait=st.sampled_from([0.5, 3.0, 10.0])),
    st.lists(st.tuples(st.integers(1, 40), st.integers(0, 2)), max_size=40),
)
def test_a_held_batch_goes_when_it_is_full_or_old_enough(rule: BatchRule, arrivals: list[tuple[int, int]]) -> None:
    """Gaps are in tenths of a second and a bit, so that no arrival meets the end of a wait."""
    play = Play([200], lambda jobs, _: seconds(len(jobs)))
    groups = {key: Held(rule) for key in range(3)}
    moment = 0.0
    for gap, key in arrivals:
        moment += gap * 0.1037
        groups[key].arrivals.append(moment)
        play.at(moment, lambda key=key: play.submit(Options(batch_rule=rule), key=key))  # type: ignore[misc]
    play.run()
    for key, group in groups.items():
        calls = [call for call in play.calls if call[0].extras.batch_key == key]  # type: ignore[union-attr]
        began = sorted((call[0].started_at, len(call)) for call in calls)
        expected = group.calls()
        assert [size for _, size in began] == [size for _, size in expected]
        assert all(abs(at - should) < 1e-9 for (at, _), (should, _) in zip(began, expected, strict=True))


# ---- deadlines, when it is known what calls cost


def teach(play: Play, rule: BatchRule) -> None:
    """Let it see calls of two sizes on each device."""
    for slot in play.scheduler.slots:
        for size in (1, rule.max_size):
            for _ in range(size):
                play.submit(Options(batch_rule=rule, allowed=frozenset({slot.number})))
            play.run()
    assert len(play.scheduler.costs()) == len(play.scheduler.slots)


@settings(max_examples=examples(200), deadline=None)
@given(
    st.integers(1, 3),
    st.integers(1, 8),
    st.sampled_from([0.0, 4.0, 30.0]),
    st.lists(st.tuples(st.integers(0, 40), st.sampled_from([None, 5.9, 7, 9, 14, 14, 25, 60])), max_size=60),
)
def test_who_is_started_is_in_time_and_who_is_failed_was_hopeless(
    slots: int, most: int, max_wait: float, arrivals: list[tuple[int, float | None]]
) -> None:
    """Calls take exactly what was learned, so the only excuse is that it was learned long ago on that device."""
    last_call: dict[Slot, float] = {}
    tried_anyway: set[ScheduledJob[Any]] = set()

    def begin(jobs: list[ScheduledJob[Any]], slot: Slot) -> float:
        if play.now - last_call.get(slot, play.now) > LONG_AGO - 1e-6:  # what was learned is that exact
            tried_anyway.update(jobs)
        last_call[slot] = play.now
        return seconds(len(jobs))

    play = Play([1] * slots, begin)
    rule = BatchRule("f", max_size=most, max_wait=max_wait)
    teach(play, rule)
    moment, jobs = play.now, []
    for gap, deadline in arrivals:
        moment += gap * 0.1037
        play.run(until=moment)
        jobs.append(play.submit(Options(batch_rule=rule, deadline=deadline)))
    play.run()
    assert len(jobs) == sum(job.finished_at is not None for job in jobs)
    for job in jobs:
        assert job.finished_at is not None
        if job in play.late:
            assert job.finished_at + seconds(1) > job.deadline_at() - 1e-6, "it could still have made it"
        else:
            in_time = job.finished_at <= job.deadline_at() + 1e-6
            assert in_time or job in tried_anyway, "it was started too late"


@settings(max_examples=examples(100), deadline=None)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=40), st.integers(1, 6))
def test_loose_deadlines_are_served_by_their_order_and_nobody_is_left_out(gaps: list[int], most: int) -> None:
    play = Greedy([1])
    play.expected = lambda: sorted(play.waiting, key=job_due)[:most]  # type: ignore[method-assign]
    rule = BatchRule("f", max_size=most)
    moment = 0.0
    for number, gap in enumerate(gaps):
        moment += gap * 0.1037
        play.run(until=moment)
        play.submit(Options(batch_rule=rule, deadline=1e6 + 1000 * ((7 * number) % 11)))
    play.run()
    assert sum(map(len, play.calls)) == len(gaps)
    assert not play.late


def job_due(job: ScheduledJob[Any]) -> tuple[float, int]:
    return job.deadline_at(), job.id


# ---- many of them


def test_a_decision_costs_no_more_among_very_many_keys() -> None:
    """Counted in calls of functions, which repeat exactly, for groups of two jobs each."""
    few, many = (calls_of_a_decision(groups) for groups in (10, 1000))
    assert many < 1.5 * few


def calls_of_a_decision(groups: int) -> float:
    import sys

    play = Play([1], lambda jobs, _: seconds(len(jobs)))
    rule = BatchRule("f", max_size=4)
    play.submit(Options())
    for key in itertools.chain(range(groups), range(groups)):
        play.submit(Options(batch_rule=rule), key=key)
    count = 0

    def note(_frame: Any, event: str, _arg: Any) -> None:
        nonlocal count
        count += event == "call"

    (slot,) = play.scheduler.slots
    sys.setprofile(note)
    for _ in range(10):
        play.scheduler.next_work(slot)
    sys.setprofile(None)
    return count / 10
