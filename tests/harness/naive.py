"""What the decision ought to be, worked out naively from a list of all jobs; for the machines of the tests.

Only the tenants' counters and the costs that were learned are asked of the real thing.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from harness.desk import FREE

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable

    from director._jobs.job import ScheduledJob
    from director._jobs.options import BatchRule, Options
    from director._scheduler.policy import SchedulingPolicy
    from director._scheduler.queue.ready_queue import ReadyQueue
    from director._scheduler.slots import Slot
    from harness.desk import Desk

    GroupKey = tuple[Any, BatchRule, Hashable]

LEEWAY = 0.005  # seconds before the last moment at which a deadline presses


class Naive:
    """Jobs that wait, and the groups among them that may be taken.

    Args:
        desk: The real thing; its slots, its clock and what it has learned are read.
        policy: What it was told.
    """

    def __init__(self, desk: Desk, policy: SchedulingPolicy) -> None:
        self.desk = desk
        self.policy = policy
        self.waiting: list[ScheduledJob[Any]] = []
        self.paused: list[ScheduledJob[Any]] = []
        self.released: set[GroupKey] = set()
        self.holds = True
        self.order: dict[ScheduledJob[Any], tuple[Any, ...]] = {}

    # ---- groups

    @staticmethod
    def group_of(job: ScheduledJob[Any]) -> GroupKey | None:
        """Jobs with the same may share a batch."""
        rule = job.options.batch_rule
        assert rule is None or job.extras is not None
        return None if rule is None else (job.options.lane, rule, job.extras.batch_key)  # type: ignore[union-attr]

    def members(self, key: GroupKey) -> list[ScheduledJob[Any]]:
        return [job for job in self.waiting if self.group_of(job) == key]

    def is_held(self, job: ScheduledJob[Any]) -> bool:
        key = self.group_of(job)
        return key is not None and key[1].max_wait > 0 and key not in self.released

    def is_ripe(self, key: GroupKey) -> bool:
        jobs, rule = self.members(key), key[1]
        if len(jobs) >= rule.max_size or not self.holds or self.is_dear(jobs, rule):
            return True
        if min(job.submitted_at for job in jobs) + rule.max_wait <= self.desk.now:
            return True
        due = min(job.deadline_at() for job in jobs)
        if due == math.inf:
            return False
        seconds = self.desk.scheduler._accounting.costs.safe_seconds(rule, min(len(jobs) + 1, rule.max_size))
        return due - seconds - LEEWAY <= self.desk.now

    @staticmethod
    def is_dear(jobs: list[ScheduledJob[Any]], rule: BatchRule) -> bool:
        costs = [cost_of(job) for job in jobs]
        if rule.max_cost is None:
            return False
        return max(costs) * (len(costs) + 1) > rule.max_cost if rule.padded else sum(costs) >= rule.max_cost

    def look_at(self, keys: Iterable[GroupKey | None]) -> None:
        """Let go of those among these groups that are ripe."""
        self.released |= {key for key in keys if key is not None and self.members(key) and self.is_ripe(key)}

    def look_at_all(self) -> None:
        self.look_at({self.group_of(job) for job in self.waiting})

    def forget_empty(self) -> None:
        self.released = {key for key in self.released if self.members(key)}

    # ---- the order of service

    def rank(self, job: ScheduledJob[Any]) -> tuple[Any, ...]:
        """Smaller goes first."""
        ageing = self.policy.ageing
        if ageing is not None and self.desk.now - job.submitted_at >= ageing:
            return (-math.inf, job.submitted_at, job.id)
        return self.rank_in_group(job)

    def rank_in_group(self, job: ScheduledJob[Any]) -> tuple[Any, ...]:
        """The same, for those of whom nobody is old."""
        options = job.options
        used = self.desk.scheduler._queue.tenants.rank(options.account)
        again = job.extras is not None and job.extras.failed_attempts > 0
        return (-options.priority, *used, job.deadline_at(), not again, job.id)

    def may(self, options: Options, slot: Slot) -> bool:
        return options.allowed is None or slot.number in options.allowed

    def able(self, slot: Slot) -> list[ScheduledJob[Any]]:
        """Jobs that a slot may take."""
        return [job for job in self.waiting if self.may(job.options, slot) and not self.is_held(job)]

    def first_for(self, slot: Slot) -> ScheduledJob[Any] | None:
        return min(self.able(slot), key=self.rank, default=None)

    def note_order(self) -> None:
        """Before a job is taken: tenants are charged with what is."""
        self.order = {job: self.rank_in_group(job) for job in self.waiting}

    def mates_of(self, first: ScheduledJob[Any]) -> list[ScheduledJob[Any]]:
        """Those who may share a batch with it, in the order that was noted."""
        key = self.group_of(first)
        assert key is not None
        return sorted((job for job in self.members(key) if job is not first), key=lambda job: self.order[job])

    def batch_of(self, first: ScheduledJob[Any], mates: list[ScheduledJob[Any]]) -> list[ScheduledJob[Any]]:
        """The call that `first` begins, if nothing is known of what calls cost."""
        rule, batch = first.options.batch_rule, [first]
        assert rule is not None
        if rule.window > 1:
            ahead = mates[: rule.window * rule.max_size - 1]
            near = sorted(ahead, key=lambda job: abs(cost_of(job) - cost_of(first)))
            for job in near:
                if self.fits([*batch, job], rule):
                    batch.append(job)
            return batch
        for job in mates:
            if not self.fits([*batch, job], rule):
                break
            batch.append(job)
        return batch

    @staticmethod
    def fits(jobs: list[ScheduledJob[Any]], rule: BatchRule) -> bool:
        if len(jobs) > rule.max_size:
            return False
        costs = [cost_of(job) for job in jobs]
        total = max(costs) * len(costs) if rule.padded else sum(costs)
        return rule.max_cost is None or total <= rule.max_cost

    def take(self, batch: list[ScheduledJob[Any]], late: list[ScheduledJob[Any]]) -> None:
        """These have been taken, and those been found too late."""
        for job in [*batch, *late]:
            self.waiting.remove(job)
        key = self.group_of(batch[0]) if batch else None
        if key is not None and key[1].max_wait and len(self.members(key)) < key[1].max_size:
            self.released.discard(key)
            self.look_at([key])
        self.forget_empty()

    # ---- counts

    def is_full(self, options: Options) -> Hashable | bool:
        """Whether one more is refused; by which bound: True for that of all, else its tenant."""
        free = sum(slot.state in FREE and self.may(options, slot) for slot in self.desk.slots)
        about_to_run = free + len(self.desk.on_their_way())
        everybody = [*self.waiting, *self.paused]
        if self.policy.max_queue is not None and len(everybody) - about_to_run >= self.policy.max_queue:
            return True
        bound = self.policy.bound_of(options.account)
        own = sum(job.options.account == options.account for job in everybody)
        return options.tenant if bound is not None and own - about_to_run >= bound else False

    def calls_in(self, lane: Any, live: Callable[[ScheduledJob[Any]], bool]) -> int:
        """Calls that the jobs of a lane would make, if every batch were full."""
        jobs = [job for job in self.waiting if job.options.lane == lane and live(job)]
        groups = {self.group_of(job) for job in jobs} - {None}
        singles = sum(self.group_of(job) is None for job in jobs)
        return singles + sum(math.ceil(len(self.members(key)) / key[1].max_size) for key in groups if key is not None)


def cost_of(job: ScheduledJob[Any]) -> float:
    return 0.0 if job.extras is None else job.extras.batch_cost


def check_lanes(queue: ReadyQueue, naive: Naive) -> None:
    """The real lanes and groups are those of the naive list, with the same counts."""
    assert queue._lanes.keys() >= {job.options.lane for job in naive.waiting}
    for key, lane in queue._lanes.items():
        jobs = [job for job in naive.waiting if job.options.lane == key]
        assert lane.waiting == sum(not naive.is_held(job) for job in jobs)
        assert lane.calls == naive.calls_in(key, lambda job: not naive.is_held(job))
        assert {(key, *group.key) for group in lane._groups.values()} == {naive.group_of(job) for job in jobs} - {None}
        for group in lane._groups.values():
            members = naive.members((key, *group.key))
            assert group.waiting == len(members)
            assert (group.upper is None) is naive.is_held(members[0])
            assert group.checked_at == math.inf or group.upper is None
        front = lane._front  # kept from a former look
        assert front is None or queue.tenants.known or front == lane._first()
        lane.peek(-math.inf)  # it is kept for the next look


def check_tenants(queue: ReadyQueue, naive: Naive, slots: list[Slot]) -> None:
    """What tenants have waiting and running is what there is."""
    charged = [slot.usage.tenants for slot in slots if slot.usage is not None]
    everybody = [*naive.waiting, *naive.paused]
    for name, tenant in queue.tenants.known.items():
        assert tenant.waiting == sum(job.options.account == name for job in everybody)
        assert tenant.running == sum(each is tenant for charges in charged for each, _ in charges)
