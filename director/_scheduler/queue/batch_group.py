"""A group: waiting jobs of one function with equal keys, which share batches. Guarded by `scheduler`'s lock.

Its jobs stand in a line of their own, and the one at the front of it competes for the group in the lane. A group with
`max_wait` is held out of the competition until a batch is ripe: full, old enough, or pressed by a deadline.
"""

from __future__ import annotations

import itertools
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from director._scheduler.queue.lazy_heap import LazyHeap
from director._scheduler.queue.priority_queue import PriorityQueue, number_of

if TYPE_CHECKING:
    from collections.abc import Hashable

    from director._jobs.job import Location, ScheduledJob
    from director._jobs.options import BatchRule
    from director._scheduler.costs import CostModel
    from director._scheduler.fair_share import FairShare
    from director._scheduler.queue.priority_queue import Rank

GroupKey: TypeAlias = "tuple[BatchRule, Hashable]"

_NEVER = float("inf")
_LEEWAY = 0.005  # seconds by which a timer, a sleeping thread and a busy loop may be late


class GroupLane(Protocol):
    """What a group asks of the lane in which it competes."""

    @property
    def upper(self) -> Location | None:
        """As of a `Location`."""

    @property
    def ages(self) -> bool:
        """Whether jobs grow old here."""

    def left(self, job: ScheduledJob[Any]) -> None:
        """As of a `Location`."""

    def note_arrival(self, job: ScheduledJob[Any]) -> None:
        """A slot may take it from now on."""

    def compete(self, group: BatchGroup, rank: Rank) -> None:
        """The job at the front of a group has this rank."""

    def grow(self, jobs: int, calls: int) -> None:
        """So many more can be taken, or fewer."""

    def dissolve(self, group: BatchGroup) -> None:
        """A group is empty."""


class BatchGroup:
    """Jobs that may share a batch.

    Args:
        lane: Where they compete with others.
        rule: The function's.
        key: The lane's for it: rule and batch key.
        tenants: Tell what each has used.
        spent: Takes what is passed over.
    """

    __slots__ = (
        "_arrivals",
        "_calls",
        "_cost",
        "_dearest",
        "_dues",
        "_spent",
        "_tenants",
        "checked_at",
        "entry",
        "key",
        "lane",
        "line",
        "live",
        "rule",
        "upper",
    )

    def __init__(self, lane: GroupLane, rule: BatchRule, key: GroupKey, tenants: FairShare, spent: list[Any]) -> None:
        self.lane = lane
        self.rule = rule
        self.key = key
        self.line = PriorityQueue(self, tenants, spent)
        self.live = 0
        self.upper: GroupLane | None = None if rule.max_wait else lane  # None: held
        self.entry: Rank | None = None  # its rank in the lane, at best; the lane corrects it
        self.checked_at = _NEVER  # the next moment at which somebody will look whether it is ripe
        self._tenants = tenants
        self._spent = spent
        self._calls = 0
        self._cost = 0.0  # of all jobs, with `max_cost`
        # With `max_wait` only: what is needed to tell when it will be ripe.
        self._arrivals, self._dues, self._dearest = LazyHeap(), LazyHeap(), LazyHeap()

    def push(self, job: ScheduledJob[Any]) -> None:
        """Add a job."""
        rule, extra = self.rule, job.extras
        assert extra is not None
        job.location = self
        self.line.push(job)
        self.live += 1
        if rule.max_cost is not None:
            self._cost += extra.batch_cost
        if rule.max_wait:
            self._arrivals.push(job.submitted_at, job)
            if job.options.deadline is not None:
                self._dues.push(job.deadline_at(), job)
            if rule.padded:
                self._dearest.push(-extra.batch_cost, job)
        if self.upper is not None:
            if self.lane.ages:
                self.lane.note_arrival(job)
            self._advance(job)
            self._recount(1)

    def left(self, job: ScheduledJob[Any]) -> None:
        """One of its jobs, QUEUED until now, waits here no more."""
        self.left_together(1, cost_of(job) if self.rule.max_cost is not None else 0.0)

    def left_together(self, jobs: int, cost: float) -> None:
        """So many of its jobs, which cost so much, wait here no more."""
        self.live -= jobs
        self._cost -= cost
        if self.upper is not None:
            self._recount(-jobs)
        if self.live:
            self.line.tidy(self.live)
            for heap in (self._arrivals, self._dues, self._dearest) if self.rule.max_wait else ():
                heap.tidy(self.live, self.line.waits, self._spent)
        else:
            self.lane.dissolve(self)
            self._clear()

    # ---- held and released

    def flush_at(self, costs: CostModel) -> float:
        """The moment from which its jobs wait no longer for company.

        Args:
            costs: Tell what a batch of one more than is there would take, and so when a deadline presses.
        """
        if self._is_full():
            return -_NEVER
        oldest = self._first(self._arrivals)
        moment = _NEVER if oldest is None else oldest + self.rule.max_wait
        due = self._first(self._dues)
        if due is not None:
            seconds = costs.safe_seconds(self.rule, min(self.live + 1, self.rule.max_size))
            moment = min(moment, due - seconds - _LEEWAY)
        return moment

    def release(self) -> None:
        """Let its jobs be taken."""
        self.upper = self.lane
        self.checked_at = _NEVER
        for job in self.line if self.lane.ages else ():
            self.lane.note_arrival(job)
        front = self.line.peek()
        assert front is not None, "a group counts jobs that it does not have"
        self.lane.compete(self, front[0])
        self._recount(self.live)

    def hold(self) -> None:
        """Keep what is left for a fuller batch."""
        self.upper = self.entry = None
        self.lane.grow(-self.live, -self._calls)
        self._calls = 0

    def _advance(self, job: ScheduledJob[Any]) -> None:
        """A new job may be better than the one at the front."""
        options, standing = job.options, self.entry
        is_usual = options.deadline is None and not self._tenants.known
        if is_usual and standing is not None and standing[0] <= -options.priority and not _tries(job):
            return  # it stands behind all of its priority
        rank = (-options.priority, *self._tenants.rank(options.account), job.deadline_at(), number_of(job))
        if standing is None or rank < standing:
            self.lane.compete(self, rank)

    def _is_full(self) -> bool:
        """There are enough for a batch that takes no more."""
        rule = self.rule
        if self.live >= rule.max_size:
            return True
        if rule.max_cost is None:
            return False
        if not rule.padded:
            return self._cost >= rule.max_cost
        least = self._first(self._dearest)
        return least is not None and -least * (self.live + 1) > rule.max_cost

    def _first(self, heap: LazyHeap) -> float | None:
        found = heap.first(self.line.waits, self._spent)
        return None if found is None else found[0]

    def _clear(self) -> None:
        """Let go of those that have left, when it is empty; who still holds the group holds nothing else."""
        self.checked_at = _NEVER
        self.entry = None
        self.line.close()
        for heap in (self._arrivals, self._dues, self._dearest) if self.rule.max_wait else ():
            heap.clear(self._spent)

    def _recount(self, jobs: int) -> None:
        calls = -(-self.live // self.rule.max_size)
        self.lane.grow(jobs, calls - self._calls)
        self._calls = calls

    def __repr__(self) -> str:
        return f"<Group {self.rule.name} {self.live} waiting{'' if self.upper else ', held'}>"


def _tries(job: ScheduledJob[Any]) -> int:
    return 0 if job.extras is None else job.extras.failed_attempts


def cost_of(job: ScheduledJob[Any]) -> float:
    """What its function's `batch_cost` said of it."""
    return 0.0 if job.extras is None else job.extras.batch_cost


_SWEEP_AT = 64  # entries, before those that mean nothing any more are swept out


class FlushTimers:
    """Moments at which held groups may be ripe: an entry means something while it is the group's `looked_at`.

    Args:
        spent: Takes the others, to be let go of outside of the lock.
    """

    __slots__ = ("_numbers", "_spent", "_sweep_at", "entries")

    def __init__(self, spent: list[Any]) -> None:
        self.entries: list[tuple[float, int, BatchGroup]] = []
        self._numbers = itertools.count()
        self._spent = spent
        self._sweep_at = _SWEEP_AT

    def set(self, group: BatchGroup, moment: float) -> None:
        """Look at a held group at `moment`, if nobody does before."""
        if moment >= group.checked_at:
            return
        group.checked_at = moment
        heappush(self.entries, (moment, next(self._numbers), group))
        if len(self.entries) > self._sweep_at:
            self._sweep()

    def next_due(self) -> float:
        """The next moment at which a held group may be ripe."""
        entries = self.entries
        while entries:
            moment, _, group = entries[0]
            if moment == group.checked_at:
                return moment
            self._spent.append(heappop(entries))
        return _NEVER

    def take_due(self, now: float) -> list[BatchGroup]:
        """Take out the groups to be looked at."""
        groups = []
        while self.next_due() <= now:
            group = heappop(self.entries)[2]
            group.checked_at = _NEVER
            groups.append(group)
        return groups

    def clear(self) -> None:
        """Look at nothing more."""
        if self.entries:
            self._spent.append(self.entries)
            self.entries = []

    def _sweep(self) -> None:
        self._spent.append(self.entries)
        self.entries = [entry for entry in self.entries if entry[0] == entry[2].checked_at]
        heapify(self.entries)
        self._sweep_at = max(_SWEEP_AT, 2 * len(self.entries))
