"""Jobs in order of service: priority, then fairness between tenants, then earliest deadline, then arrival.

Guarded by `scheduler`'s lock. A job that has left (taken, cancelled, gone to another line) stays where it stands and is
passed over when it comes to the front, so that leaving is O(1) and every decision O(log n).
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from heapq import heapify, heappop, heappush, heapreplace
from typing import TYPE_CHECKING, Any, TypeAlias

from director._jobs.state import JobState

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator

    from director._jobs.job import Location, ScheduledJob
    from director._scheduler.fair_share import FairShare

Front: TypeAlias = "tuple[float, int, ScheduledJob[Any]]"  # deadline (a moment), number and job
Rank: TypeAlias = "tuple[float, float, int, float, int]"  # -priority, use and turn of the tenant, deadline, number
Ranked: TypeAlias = "tuple[Rank, ScheduledJob[Any]]"

_QUEUED = JobState.QUEUED
_NEVER = float("inf")
_BEFORE = 2**62
_NOBODY: Any = object()  # the home of no job
_SWEEP_AT = 64  # entries of jobs that have left, before they are swept out, once they outnumber those who wait


class TenantQueue:
    """Jobs of one tenant at one priority: earliest deadline first, those without one last and by their numbers."""

    __slots__ = ("heap", "jobs", "tenant")

    def __init__(self, tenant: Hashable, jobs: deque[ScheduledJob[Any]] | None = None) -> None:
        self.tenant = tenant
        self.jobs: deque[ScheduledJob[Any]] = (
            deque() if jobs is None else jobs
        )  # those that come in their turn: nearly all
        self.heap: list[Front] = []  # with a deadline, or out of turn

    def push(self, job: ScheduledJob[Any]) -> None:
        """Add a job; it may be there already."""
        extra, jobs = job.extras, self.jobs
        in_turn = extra is None or not extra.failed_attempts
        if in_turn and job.options.deadline is None and (not jobs or job.id > jobs[-1].id):
            jobs.append(job)
        else:
            heappush(self.heap, (job.deadline_at(), number_of(job), job))

    def peek(self, waits: Callable[[ScheduledJob[Any]], bool], spent: list[Any]) -> Front | None:
        """What comes first; those that have left are moved to `spent`."""
        heap, jobs = self.heap, self.jobs
        while heap and not waits(heap[0][2]):
            spent.append(heappop(heap))
        while jobs and not waits(jobs[0]):
            spent.append(jobs.popleft())
        if not jobs:
            return heap[0] if heap else None
        first = (_NEVER, number_of(jobs[0]), jobs[0])
        return first if not heap or first < heap[0] else heap[0]

    def drop(self, front: Front) -> None:
        """Remove what `front` has returned."""
        if self.heap and self.heap[0] is front:
            heappop(self.heap)
        else:
            self.jobs.popleft()

    def pop_run(
        self, most: int, home: Location, waits: Callable[[ScheduledJob[Any]], bool], spent: list[Any]
    ) -> list[ScheduledJob[Any]]:
        """Remove and return up to `most` jobs as they come, unless some stand in the heap."""
        jobs = self.jobs
        run: list[ScheduledJob[Any]] = []
        while jobs and len(run) < most and not self.heap:
            job = jobs.popleft()
            if (job.state is _QUEUED and job.location is home) or waits(job):  # the usual case without a call
                run.append(job)
            else:
                spent.append(job)
        return run

    def pop_timed(
        self, most: int, waits: Callable[[ScheduledJob[Any]], bool], spent: list[Any]
    ) -> list[ScheduledJob[Any]]:
        """Remove and return up to `most` jobs with a deadline, the earliest first."""
        heap = self.heap
        jobs: list[ScheduledJob[Any]] = []
        while heap and heap[0][0] < _NEVER and len(jobs) < most:
            job = heappop(heap)[2]
            (jobs if waits(job) else spent).append(job)
        return list(dict.fromkeys(jobs))  # one that is tried again may stand there twice

    def sweep(self, waits: Callable[[ScheduledJob[Any]], bool]) -> None:
        """Remove all jobs that have left."""
        self.heap = [entry for entry in self.heap if waits(entry[2])]
        heapify(self.heap)
        self.jobs = deque(job for job in self.jobs if waits(job))

    def __len__(self) -> int:
        return len(self.heap) + len(self.jobs)

    def __iter__(self) -> Iterator[ScheduledJob[Any]]:
        yield from (entry[2] for entry in self.heap)
        yield from self.jobs


class PriorityLevel:
    """Jobs of one priority: a backlog for each tenant, in a heap by what the tenants have used."""

    __slots__ = ("_backlogs", "_numbers", "_tenants", "_turns")

    def __init__(self, tenants: FairShare) -> None:
        self._tenants = tenants
        self._backlogs: dict[Hashable, TenantQueue] = {}
        self._turns: list[tuple[float, int, int, TenantQueue]] = []  # counters only grow: corrected at the front
        self._numbers = 0

    def push(self, job: ScheduledJob[Any]) -> None:
        """Add a job."""
        backlog = self._backlogs.get(job.options.account)
        if backlog is None:
            backlog = TenantQueue(job.options.account)
            self.adopt(backlog)
        backlog.push(job)

    def adopt(self, backlog: TenantQueue) -> None:
        """Add a new tenant's backlog."""
        self._backlogs[backlog.tenant] = backlog
        self._numbers += 1
        heappush(self._turns, (*self._tenants.rank(backlog.tenant), self._numbers, backlog))

    def peek(self, waits: Callable[[ScheduledJob[Any]], bool], spent: list[Any]) -> tuple[TenantQueue, Front] | None:
        """The backlog whose turn it is, and what is at its front."""
        turns, rank_of = self._turns, self._tenants.rank
        while turns:
            used, turn, number, backlog = turns[0]
            found = backlog.peek(waits, spent)
            if found is None:
                heappop(turns)
                del self._backlogs[backlog.tenant]
            elif (rank := rank_of(backlog.tenant)) != (used, turn):
                heapreplace(turns, (*rank, number, backlog))
            else:
                return backlog, found
        return None

    def backlog(self, tenant: Hashable) -> TenantQueue | None:
        """The jobs of a tenant."""
        return self._backlogs.get(tenant)

    def sweep(self, waits: Callable[[ScheduledJob[Any]], bool]) -> None:
        """Remove all jobs that have left."""
        for backlog in self._backlogs.values():
            backlog.sweep(waits)
        self._turns = [entry for entry in self._turns if len(entry[3])]
        heapify(self._turns)
        self._backlogs = {entry[3].tenant: entry[3] for entry in self._turns}

    def __len__(self) -> int:
        return sum(map(len, self._backlogs.values()))

    def __iter__(self) -> Iterator[ScheduledJob[Any]]:
        for backlog in self._backlogs.values():
            yield from backlog


class PriorityQueue:
    """All jobs of a home, by priority and then as each level has it.

    Args:
        home: Whose jobs they are; a job that waits elsewhere by now is passed over.
        tenants: Tell what each has used.
        spent: Takes what is passed over, to be let go of outside of the lock.
    """

    __slots__ = ("_entries", "_home", "_levels", "_priorities", "_spent", "_tenants")

    def __init__(self, home: Location, tenants: FairShare, spent: list[Any]) -> None:
        self._home = home
        self._tenants = tenants
        self._spent = spent
        self._levels: dict[int, PriorityLevel] = {}
        self._priorities: list[int] = []  # negated: served from the front
        self._entries = 0  # and those passed over since the last sweep: too high means swept too early

    def push(self, job: ScheduledJob[Any]) -> None:
        """Add a job; it may be there already."""
        level = self._levels.get(job.options.priority)
        (self._level(job.options.priority) if level is None else level).push(job)
        self._entries += 1

    def adopt(self, jobs: deque[ScheduledJob[Any]]) -> None:
        """Take over jobs without priority, tenant or deadline as they stand; into an empty line."""
        self._level(0).adopt(TenantQueue(None, jobs))
        self._entries += len(jobs)

    def peek(self) -> Ranked | None:
        """The job that is served next, and its rank against other lines' fronts, smaller first."""
        if (found := self._front()) is None:
            return None
        backlog, (due, number, job) = found
        return (-job.options.priority, *self._tenants.rank(backlog.tenant), due, number), job

    def first(self) -> ScheduledJob[Any] | None:
        """The job that is served next."""
        found = self._front()
        return None if found is None else found[1][2]

    def pop(self) -> ScheduledJob[Any] | None:
        """Remove and return the job that is served next."""
        if (found := self._front()) is None:
            return None
        backlog, front = found
        backlog.drop(front)
        self._entries -= 1
        return front[2]

    def pop_run(self, first: ScheduledJob[Any], most: int) -> list[ScheduledJob[Any]]:
        """Remove and return up to `most` jobs in order of service, `first` at their head, from one tenant's backlog.

        Only if that is simple, else none: its turn has come (it is not an aged one), and nobody there has a deadline.
        """
        found = self._front()
        if found is None or found[1][2] is not first:
            return []
        backlog = found[0]
        before = len(backlog.jobs)
        run = backlog.pop_run(most, self._home, self.waits, self._spent)
        self._entries -= before - len(backlog.jobs)
        return run

    def pop_timed(self, like: ScheduledJob[Any], most: int) -> list[ScheduledJob[Any]]:
        """Remove and return up to `most` jobs with the priority and tenant of `like`, by their deadlines."""
        level = self._levels.get(like.options.priority)
        backlog = None if level is None else level.backlog(like.options.account)
        if backlog is None:
            return []
        before = len(backlog.heap)
        jobs = backlog.pop_timed(most, self.waits, self._spent)
        self._entries -= before - len(backlog.heap)
        return jobs

    def tidy(self, live: int) -> None:
        """Sweep when those that have left are many more than the `live` ones."""
        if self._entries <= _SWEEP_AT + 2 * live:
            return
        self._spent.append([list(level) for level in self._levels.values()])
        for level in self._levels.values():
            level.sweep(self.waits)
        self._levels = {priority: level for priority, level in self._levels.items() if len(level)}
        self._priorities = sorted(-priority for priority in self._levels)
        self._entries = sum(map(len, self._levels.values()))

    def clear(self) -> None:
        """Remove all, when none waits any more."""
        self._spent.append(self._levels)
        self._levels, self._priorities, self._entries = {}, [], 0

    def close(self) -> None:
        """Remove all, for good: nothing will wait here any more, and home and line need not keep each other alive."""
        self.clear()
        self._home = _NOBODY

    def __iter__(self) -> Iterator[ScheduledJob[Any]]:
        for level in self._levels.values():
            yield from filter(self.waits, level)

    def waits(self, job: ScheduledJob[Any]) -> bool:
        """Whether it still waits here."""
        where = job.location
        return job.state is _QUEUED and (where is self._home or where.upper is self._home)  # type: ignore[union-attr]

    def _front(self) -> tuple[TenantQueue, Front] | None:
        while self._priorities:
            if (found := self._levels[-self._priorities[0]].peek(self.waits, self._spent)) is not None:
                return found
            del self._levels[-self._priorities.pop(0)]
        return None

    def _level(self, priority: int) -> PriorityLevel:
        level = self._levels.get(priority)
        if level is None:
            level = self._levels[priority] = PriorityLevel(self._tenants)
            insort(self._priorities, -priority)
        return level


def number_of(job: ScheduledJob[Any]) -> int:
    """Its place among its equals: those that are tried again come before all, the others as they were submitted."""
    extra = job.extras
    return job.id if extra is None or not extra.failed_attempts else job.id - _BEFORE
