"""Counts of waiting jobs, to predict how many are served before a new one. Guarded by `scheduler`'s lock.

An estimate: jobs that several slots may run are divided among these, and tenants are served by their weights.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

    from director._jobs.job import ScheduledJob
    from director._jobs.options import LaneKey


class QueueEstimate:
    """Counts of waiting jobs by lane, priority and tenant."""

    __slots__ = ("_lanes", "_weights")

    def __init__(self, weights: Mapping[Hashable, float]) -> None:
        self._lanes: dict[LaneKey, _Lane] = {}
        self._weights = weights

    def add(self, job: ScheduledJob[Any]) -> None:
        """Count a job."""
        options = job.options
        lane = self._lanes.get(options.lane)
        if lane is None:
            lane = self._lanes[options.lane] = _Lane()
        lane.level(options.priority).change(
            options.account, self._weight(options.account), 1, options.deadline is not None
        )

    def add_fifo(self, count: int) -> None:
        """Count so many jobs without options."""
        self._lanes[None] = lane = _Lane()
        lane.level(0).change(None, self._weight(None), count, False)

    def drop(self, job: ScheduledJob[Any]) -> None:
        """Count a job no longer."""
        options = job.options
        lane = self._lanes[options.lane]
        level = lane.level(options.priority)
        level.change(options.account, self._weight(options.account), -1, options.deadline is not None)
        if not level.total:
            lane.drop(options.priority)
            if not lane.levels:
                del self._lanes[options.lane]

    def ahead_of(self, job: ScheduledJob[Any], slots: frozenset[int]) -> float:
        """About how many jobs that `slots` will run are served before a new one with a deadline."""
        options = job.options
        mine = slots if options.allowed is None else slots & options.allowed
        weight, ahead = self._weight(options.account), 0.0
        for key, lane in self._lanes.items():
            theirs = slots if key is None or key[0] is None else slots & key[0]
            if common := len(mine & theirs):
                ahead += lane.ahead_of(options.priority, options.account, weight) * common / len(theirs)
        return ahead

    def _weight(self, tenant: Hashable) -> float:
        return self._weights.get(tenant, 1.0)


class _Lane:
    """The levels of one lane, by priority."""

    __slots__ = ("_priorities", "levels")

    def __init__(self) -> None:
        self._priorities: list[int] = []  # sorted
        self.levels: list[_Level] = []  # in the same order

    def level(self, priority: int) -> _Level:
        at = bisect_left(self._priorities, priority)
        if at == len(self._priorities) or self._priorities[at] != priority:
            self._priorities.insert(at, priority)
            self.levels.insert(at, _Level())
        return self.levels[at]

    def drop(self, priority: int) -> None:
        at = bisect_left(self._priorities, priority)
        del self._priorities[at], self.levels[at]

    def ahead_of(self, priority: int, tenant: Hashable, weight: float) -> float:
        above = bisect_right(self._priorities, priority)
        ahead = float(sum(level.total for level in self.levels[above:]))
        if above and self._priorities[above - 1] == priority:
            ahead += self.levels[above - 1].ahead_of(tenant, weight)
        return ahead


class _Level:
    """The jobs of one priority."""

    __slots__ = ("_counts", "_weight", "total")

    def __init__(self) -> None:
        self.total = 0
        self._counts: dict[Hashable, tuple[int, int]] = {}  # by tenant: jobs, and those with a deadline
        self._weight = 0.0  # of these tenants

    def change(self, tenant: Hashable, weight: float, by: int, timed: bool) -> None:
        """Count `by` jobs more, or fewer if negative."""
        self.total += by
        jobs, urgent = self._counts.get(tenant, (0, 0))
        if not jobs:
            self._weight += weight
        if jobs + by:
            self._counts[tenant] = (jobs + by, urgent + by * timed)
        else:
            del self._counts[tenant]
            self._weight -= weight

    def ahead_of(self, tenant: Hashable, weight: float) -> float:
        """The tenant's own jobs with a deadline, and the jobs of other tenants served before these and the new one."""
        jobs, urgent = self._counts.get(tenant, (0, 0))
        others = self._weight - (weight if jobs else 0.0)
        return urgent + min(self.total - jobs, (urgent + 1) * others / weight)
