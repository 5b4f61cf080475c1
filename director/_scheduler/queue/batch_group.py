"""A batch group: waiting jobs of one function with equal keys, which share batches. Guarded by `scheduler`'s lock.

Its jobs are in a queue of their own, and the first of them competes for the group in the lane. A group with `max_wait`
is held, and does not compete, until a batch is due: full, old enough, or with a job that has no more time, to begin or
to end.
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
    from director._scheduler.queue.fair_share import FairShare
    from director._scheduler.queue.priority_queue import Rank

    class GroupLane(Protocol):
        """The lane, as its groups know it."""

        @property
        def upper(self) -> Location | None:
            """As of a `Location`."""

        @property
        def ages(self) -> bool:
            """Whether jobs that have waited long go first."""

        def left(self, job: ScheduledJob[Any]) -> None:
            """As of a `Location`."""

        def note_arrival(self, job: ScheduledJob[Any]) -> None:
            """A slot may take the job from now on."""

        def compete(self, group: BatchGroup, rank: Rank) -> None:
            """A group has a first job of this rank."""

        def grow(self, jobs: int, calls: int) -> None:
            """Slots may take so many more jobs, in so many more calls; or fewer if negative."""

        def remove_group(self, group: BatchGroup) -> None:
            """A group is empty."""


GroupKey: TypeAlias = "tuple[BatchRule, Hashable]"

_NEVER = float("inf")
_LEEWAY = 0.005  # seconds by which a timer, a sleeping thread and a busy loop may be late


class BatchGroup:
    """Jobs that may share a batch."""

    __slots__ = (
        "_calls",
        "_cost",
        "_costs",
        "_deadlines",
        "_discarded",
        "_dues",
        "_tenants",
        "checked_at",
        "entry",
        "key",
        "lane",
        "queue",
        "rule",
        "upper",
        "waiting",
    )

    def __init__(
        self, lane: GroupLane, rule: BatchRule, key: GroupKey, tenants: FairShare, discarded: list[Any]
    ) -> None:
        self.lane = lane
        self.rule = rule
        self.key = key
        self.queue = PriorityQueue(self, tenants, discarded)
        self.waiting = 0
        self.upper: GroupLane | None = None if rule.max_wait else lane  # `None` while held
        self.entry: Rank | None = None  # its rank in the lane's heap, never worse than its real one
        self.checked_at = _NEVER  # the time of its entry in `FlushTimers`
        self._tenants = tenants
        self._discarded = discarded
        self._calls = 0
        self._cost = 0.0  # of all jobs, with `max_cost`
        # With `max_wait` only: what `flush_at` needs.
        self._dues, self._deadlines, self._costs = LazyHeap(), LazyHeap(), LazyHeap()

    def push(self, job: ScheduledJob[Any]) -> None:
        """Add a job."""
        rule, extra = self.rule, job.extras
        assert extra is not None
        job.location = self
        self.queue.push(job)
        self.waiting += 1
        if rule.max_cost is not None:
            self._cost += extra.batch_cost
        if rule.max_wait:
            due = job.submitted_at + rule.max_wait
            if job.options.start_within is not None:
                due = min(due, job.start_by() - _LEEWAY)
            self._dues.push(due, job)
            if job.options.deadline is not None:
                self._deadlines.push(job.deadline_at(), job)
            if rule.padded:
                self._costs.push(-extra.batch_cost, job)
        if self.upper is not None:
            if self.lane.ages:
                self.lane.note_arrival(job)
            self._advance(job)
            self._recount(1)

    def left(self, job: ScheduledJob[Any]) -> None:
        """One of its jobs, QUEUED until now, has left."""
        self.left_together(1, cost_of(job) if self.rule.max_cost is not None else 0.0)

    def left_together(self, jobs: int, cost: float) -> None:
        """So many of its jobs, with this total cost, have left."""
        self.waiting -= jobs
        self._cost -= cost
        if self.upper is not None:
            self._recount(-jobs)
        if self.waiting:
            self.queue.tidy(self.waiting)
            for heap in (self._dues, self._deadlines, self._costs) if self.rule.max_wait else ():
                heap.tidy(self.waiting, self.queue.waits, self._discarded)
        else:
            self.lane.remove_group(self)
            self._clear()

    # ---- held and released

    def flush_at(self, costs: CostModel) -> float:
        """The time at which the group has to be released.

        Args:
            costs: Predict the seconds of a batch with one item more, for the earliest deadline.
        """
        if self._is_full():
            return -_NEVER
        first = self._first(self._dues)
        time = _NEVER if first is None else first
        due = self._first(self._deadlines)
        if due is not None:
            seconds = costs.safe_seconds(self.rule, min(self.waiting + 1, self.rule.max_size))
            time = min(time, due - seconds - _LEEWAY)
        return time

    def release(self) -> None:
        """Let slots take its jobs."""
        self.upper = self.lane
        self.checked_at = _NEVER
        for job in self.queue if self.lane.ages else ():
            self.lane.note_arrival(job)
        front = self.queue.peek()
        assert front is not None, "a group counts jobs that it does not have"
        self.lane.compete(self, front[0])
        self._recount(self.waiting)

    def hold(self) -> None:
        """Hold what is left for a fuller batch."""
        self.upper = self.entry = None
        self.lane.grow(-self.waiting, -self._calls)
        self._calls = 0

    def _advance(self, job: ScheduledJob[Any]) -> None:
        """Compete again if a new job comes before the group's first one."""
        options, entry = job.options, self.entry
        is_new = job.extras is None or not job.extras.failed_attempts
        is_usual = options.deadline is None and is_new and not self._tenants.known
        if is_usual and entry is not None and entry[0] <= -options.priority:
            return  # it comes after all of its priority
        rank = (-options.priority, *self._tenants.rank(options.account), job.deadline_at(), number_of(job))
        if entry is None or rank < entry:
            self.lane.compete(self, rank)

    def _is_full(self) -> bool:
        """Whether the jobs fill a batch."""
        rule = self.rule
        if self.waiting >= rule.max_size:
            return True
        if rule.max_cost is None:
            return False
        if not rule.padded:
            return self._cost >= rule.max_cost
        least = self._first(self._costs)
        return least is not None and -least * (self.waiting + 1) > rule.max_cost

    def _first(self, heap: LazyHeap) -> float | None:
        found = heap.first(self.queue.waits, self._discarded)
        return None if found is None else found[0]

    def _clear(self) -> None:
        """Drop all entries of an empty group, so that references to the group keep nothing else alive."""
        self.checked_at = _NEVER
        self.entry = None
        self.queue.close()
        for heap in (self._dues, self._deadlines, self._costs) if self.rule.max_wait else ():
            heap.clear(self._discarded)

    def _recount(self, jobs: int) -> None:
        calls = -(-self.waiting // self.rule.max_size)
        self.lane.grow(jobs, calls - self._calls)
        self._calls = calls

    def __repr__(self) -> str:
        return f"<Group {self.rule.name} {self.waiting} waiting{'' if self.upper else ', held'}>"


def cost_of(job: ScheduledJob[Any]) -> float:
    """The job's `batch_cost`; 0 without one."""
    return 0.0 if job.extras is None else job.extras.batch_cost


_SWEEP_AT = 64  # entries before outdated ones are removed


class FlushTimers:
    """Times at which held groups may be due. An entry is valid while its time is the group's `checked_at`."""

    __slots__ = ("_discarded", "_numbers", "_sweep_at", "entries")

    def __init__(self, discarded: list[Any]) -> None:
        self.entries: list[tuple[float, int, BatchGroup]] = []
        self._numbers = itertools.count()
        self._discarded = discarded
        self._sweep_at = _SWEEP_AT

    def set(self, group: BatchGroup, time: float) -> None:
        """Check a held group at `time`, unless it is checked before."""
        if time >= group.checked_at:
            return
        group.checked_at = time
        heappush(self.entries, (time, next(self._numbers), group))
        if len(self.entries) > self._sweep_at:
            self._sweep()

    def next_due(self) -> float:
        """The next time at which a held group may be due."""
        entries = self.entries
        while entries:
            time, _, group = entries[0]
            if time == group.checked_at:
                return time
            self._discarded.append(heappop(entries))
        return _NEVER

    def take_due(self, now: float) -> list[BatchGroup]:
        """Remove and return the groups whose time has come."""
        groups = []
        while self.next_due() <= now:
            group = heappop(self.entries)[2]
            group.checked_at = _NEVER
            groups.append(group)
        return groups

    def clear(self) -> None:
        """Remove all."""
        if self.entries:
            self._discarded.append(self.entries)
            self.entries = []

    def _sweep(self) -> None:
        self._discarded.append(self.entries)
        self.entries = [entry for entry in self.entries if entry[0] == entry[2].checked_at]
        heapify(self.entries)
        self._sweep_at = max(_SWEEP_AT, 2 * len(self.entries))
