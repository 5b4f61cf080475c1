"""A group: waiting jobs of one function with equal keys, which share batches. Guarded by `dispatch`'s lock.

Its jobs stand in two lines: the group's own, from which a batch is filled, and the lane's, in which they compete with
all others. A group with `max_wait` is held out of the lane's line until a batch is ripe: full, old enough, or pressed
by a deadline.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, TypeAlias

from director._core.line import Line
from director._core.states import JobState

if TYPE_CHECKING:
    from collections.abc import Hashable

    from director._core.batch_rule import BatchRule
    from director._core.job import Job
    from director._core.lane import Lane
    from director._core.tenants import Tenants

GroupKey: TypeAlias = "tuple[BatchRule, Hashable]"

_QUEUED = JobState.QUEUED
_NEVER = float("inf")


class Group:
    """Jobs that may share a batch.

    Args:
        lane: Where they compete with others.
        rule: The function's.
        key: The lane's for it: rule and batch key.
        tenants: Tell what each has used.
        spent: Takes what is passed over.
    """

    __slots__ = ("_arrivals", "_calls", "_cost", "_due", "key", "lane", "line", "live", "looked_at", "rule", "upper")

    def __init__(self, lane: Lane, rule: BatchRule, key: GroupKey, tenants: Tenants, spent: list[Any]) -> None:
        self.lane = lane
        self.rule = rule
        self.key = key
        self.line = Line(self, tenants, spent)
        self.live = 0
        self.upper: Lane | None = None if rule.max_wait else lane  # None: held
        self._calls = 0
        self._cost = 0.0  # of all jobs, with `max_cost`
        self._due = _NEVER  # the tightest deadline since it is held
        self.looked_at = _NEVER  # the next moment at which somebody will look whether it is ripe
        self._arrivals: deque[Job[Any]] = deque()  # with `max_wait`

    def push(self, job: Job[Any], first: bool) -> None:
        """Add a job."""
        job._where = self
        self.line.push(job, first)
        self.live += 1
        if self.rule.max_cost is not None:
            self._cost += job._extra.cost  # type: ignore[union-attr]
        if self.rule.max_wait:
            self._trim()
            self._arrivals.append(job)
            if (deadline := job._options.deadline) is not None:
                self._due = min(self._due, job._submitted + deadline)
        if self.upper is not None:
            self.upper.line.push(job, first)
            self._recount(1)

    def left(self, job: Job[Any]) -> None:
        """One of its jobs, QUEUED until now, waits here no more."""
        self.live -= 1
        if self.rule.max_cost is not None:
            self._cost -= job._extra.cost  # type: ignore[union-attr]
        if self.upper is not None:
            self._recount(-1)
        if self.live:
            self.line.tidy(self.live)
        else:
            self.lane.dissolve(self)

    # ---- held and released

    def ripe_at(self, seconds: float) -> float:
        """The moment from which its jobs wait no longer for company.

        Args:
            seconds: What a batch of one more than is there would take; 0 if unknown.
        """
        rule = self.rule
        if self.live >= rule.max_size or (rule.max_cost is not None and self._cost >= rule.max_cost):
            return -_NEVER
        self._trim()
        oldest = self._arrivals[0]._submitted if self._arrivals else -_NEVER
        return min(oldest + rule.max_wait, self._due - seconds)

    def release(self) -> None:
        """Let its jobs be taken."""
        self.upper = self.lane
        for job in self.line:
            self.lane.line.push(job)
        self._recount(self.live)

    def hold(self) -> None:
        """Keep what is left for a fuller batch."""
        self.upper = None
        self.lane.grow(-self.live, -self._calls)
        self._calls = 0

    def recount_due(self) -> None:
        """Look up the tightest deadline of those that are left."""
        self._due = min((job._deadline_at() for job in self.line), default=_NEVER)

    def _trim(self) -> None:
        """Forget the oldest arrivals that wait here no more."""
        arrivals = self._arrivals
        while arrivals and not (arrivals[0]._stage is _QUEUED and arrivals[0]._where is self):
            arrivals.popleft()

    def _recount(self, jobs: int) -> None:
        calls = -(-self.live // self.rule.max_size)
        self.lane.grow(jobs, calls - self._calls)
        self._calls = calls

    def __repr__(self) -> str:
        return f"<Group {self.rule.name} {self.live} waiting{'' if self.upper else ', held'}>"
