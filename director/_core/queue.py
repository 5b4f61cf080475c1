"""The ready queue: jobs that wait, in order of service. Guarded by `dispatch`'s lock; knows nothing of threads.

A lane holds the jobs that the same slots can serve (same allowed slots, same model). Within a lane, and between the
heads of lanes, higher priority goes first, then arrival. A cancelled job stays in its lane as a tombstone until it
reaches the head or the lane is swept, so that cancelling is O(1).
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from typing import TYPE_CHECKING, Any

from director._core.states import JobState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from director._core.job import Job
    from director._core.slot import Slot
    from director._options import LaneKey

_QUEUED = JobState.QUEUED
_SWEEP_AT = 64  # tombstones a lane may hold before it is swept, once they outnumber the living


class Lane:
    """Waiting jobs that the same slots can serve, by priority and arrival."""

    __slots__ = ("_by_priority", "_dead", "_jobs", "_priorities", "_spent", "_top", "allowed", "key", "live", "model")

    def __init__(self, key: LaneKey, spent: list[Any] | None = None) -> None:
        self.key = key
        self._spent = (
            [] if spent is None else spent
        )  # tombstones taken out; whoever holds the lock lets go of them when it is free
        self.allowed, self.model = key if key is not None else (None, None)
        self.live = 0
        self._dead = 0
        self._top = 0  # the highest priority in the lane, and its jobs
        self._jobs: deque[Job[Any]] = deque()
        self._priorities = [0]  # all of them, negated: served from the front
        self._by_priority = {0: self._jobs}

    def push(self, job: Job[Any]) -> None:
        """Add a job at the end of its priority."""
        priority = job._options.priority
        jobs = self._jobs if priority == self._top else self._of(priority)
        jobs.append(job)
        job._where = self
        self.live += 1

    def pop(self) -> Job[Any] | None:
        """Remove and return the job that is served next, if there is one."""
        if not self.live:
            return None
        self.live -= 1
        while True:
            jobs = self._jobs
            while jobs:
                job = jobs.popleft()
                if job._stage is _QUEUED:
                    return job
                self._spent.append(job)
                self._dead -= 1
            self._drop_top()

    def rank(self) -> tuple[int, int]:
        """Order of service of the head against other lanes' heads: smaller first. The lane must not be empty."""
        while True:
            jobs = self._jobs
            while jobs:
                if jobs[0]._stage is _QUEUED:
                    return (-self._top, jobs[0].id)
                self._spent.append(jobs.popleft())
                self._dead -= 1
            self._drop_top()

    def _of(self, priority: int) -> deque[Job[Any]]:
        jobs = self._by_priority.get(priority)
        if jobs is None:
            jobs = self._by_priority[priority] = deque()
            insort(self._priorities, -priority)
            self._set_top()
            if not self.live:  # or a priority of its own for each job would pile up
                self._forget_all_but(priority)
        return jobs

    def _drop_top(self) -> None:
        del self._by_priority[-self._priorities.pop(0)]
        self._set_top()

    def _forget_all_but(self, priority: int) -> None:
        self._spent.append(self._by_priority)
        self._by_priority = {priority: self._by_priority[priority]}
        self._priorities = [-priority]
        self._dead = 0
        self._set_top()

    def _set_top(self) -> None:
        self._top = -self._priorities[0]
        self._jobs = self._by_priority[self._top]

    def bury(self) -> None:
        """Count one of its jobs, which has just left the state QUEUED, as a tombstone."""
        self.live -= 1
        self._dead += 1
        if self._dead > _SWEEP_AT and self._dead > self.live:
            self._spent.append(dict(self._by_priority))
            for priority, jobs in self._by_priority.items():
                self._by_priority[priority] = deque(job for job in jobs if job._stage is _QUEUED)
            self._dead = 0
            self._set_top()

    def __iter__(self) -> Iterator[Job[Any]]:
        for negated in self._priorities:
            yield from (job for job in self._by_priority[-negated] if job._stage is _QUEUED)

    def __repr__(self) -> str:
        return f"<Lane {self.key} {self.live} waiting>"


class ReadyQueue:
    """All waiting jobs, in lanes: the plain one, which any slot serves, and others while there is something in them."""

    __slots__ = ("others", "plain", "spent")

    def __init__(self) -> None:
        self.spent: list[Any] = []
        self.plain = Lane(None, self.spent)
        self.others: dict[LaneKey, Lane] = {}

    def live(self) -> int:
        """Jobs that wait."""
        return self.plain.live + sum(lane.live for lane in self.others.values())

    def lane(self, key: LaneKey) -> Lane:
        """The lane of jobs with that key."""
        if key is None:
            return self.plain
        lane = self.others.get(key)
        if lane is None:
            lane = self.others[key] = Lane(key, self.spent)
        return lane

    def pop(self, suits: Callable[[Lane, Slot], bool], slot: Slot) -> Job[Any] | None:
        """Remove and return the next job for `slot`, from the lanes that `suits` accepts."""
        lane = min((lane for lane in self.lanes() if suits(lane, slot)), key=Lane.rank, default=None)
        return None if lane is None else lane.pop()

    def lanes(self) -> list[Lane]:
        """Lanes with waiting jobs, in no order."""
        if not self.others:
            return [self.plain] if self.plain.live else []
        for key in [key for key, lane in self.others.items() if not lane.live]:
            del self.others[key]
        return [lane for lane in (self.plain, *self.others.values()) if lane.live]

    def in_order(self) -> list[Lane]:
        """Lanes with waiting jobs, the one served next first."""
        lanes = self.lanes()
        if len(lanes) > 1:
            lanes.sort(key=Lane.rank)
        return lanes

    def __iter__(self) -> Iterator[Job[Any]]:
        for lane in self.lanes():
            yield from lane
