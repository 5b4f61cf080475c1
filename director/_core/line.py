"""Jobs in order of service: priority, then fairness between tenants, then earliest deadline, then arrival.

Guarded by `dispatch`'s lock. A job that has left (taken, cancelled, gone to another line) stays where it stands and is
passed over when it comes to the front, so that leaving is O(1) and every decision O(log n).
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from heapq import heapify, heappop, heappush, heapreplace
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from director._core.states import JobState

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator

    from director._core.job import Job
    from director._core.tenants import Tenants

Front: TypeAlias = "tuple[float, Job[Any]]"  # deadline (a moment) and job
Rank: TypeAlias = "tuple[float, float, int, float, int]"  # -priority, use and turn of the tenant, deadline, number

_QUEUED = JobState.QUEUED
_NEVER = float("inf")
_SWEEP_AT = 64  # entries of jobs that have left, before they are swept out, once they outnumber those who wait


class Home(Protocol):
    """Where a job waits; the job's `_where`."""

    @property
    def upper(self) -> Home | None:
        """A home in whose line the jobs stand too."""

    def left(self, job: Job[Any]) -> None:
        """One of its jobs, QUEUED until now, waits here no more."""


class Backlog:
    """Jobs of one tenant at one priority: earliest deadline first, those without one last."""

    __slots__ = ("jobs", "tenant", "timed")

    def __init__(self, tenant: Hashable, jobs: deque[Job[Any]] | None = None) -> None:
        self.tenant = tenant
        self.jobs: deque[Job[Any]] = deque() if jobs is None else jobs
        self.timed: list[tuple[float, int, Job[Any]]] = []

    def push(self, job: Job[Any], first: bool) -> None:
        """Add a job; `first`: before all that have no deadline."""
        deadline = job._options.deadline
        if deadline is not None:
            heappush(self.timed, (job._submitted + deadline, job.id, job))
        elif first:
            self.jobs.appendleft(job)
        else:
            self.jobs.append(job)

    def front(self, waits: Callable[[Job[Any]], bool], spent: list[Any]) -> Front | None:
        """Deadline (a moment) and job that come first; those that have left are moved to `spent`."""
        timed, jobs = self.timed, self.jobs
        while timed:
            if waits(timed[0][2]):
                return timed[0][0], timed[0][2]
            spent.append(heappop(timed))
        while jobs:
            if waits(jobs[0]):
                return _NEVER, jobs[0]
            spent.append(jobs.popleft())
        return None

    def drop_front(self) -> None:
        """Remove what `front` has returned."""
        if self.timed:
            heappop(self.timed)
        else:
            self.jobs.popleft()

    def sweep(self, waits: Callable[[Job[Any]], bool]) -> None:
        """Remove all jobs that have left."""
        self.timed = [entry for entry in self.timed if waits(entry[2])]
        heapify(self.timed)
        self.jobs = deque(job for job in self.jobs if waits(job))

    def __len__(self) -> int:
        return len(self.timed) + len(self.jobs)

    def __iter__(self) -> Iterator[Job[Any]]:
        yield from (entry[2] for entry in self.timed)
        yield from self.jobs


class Level:
    """Jobs of one priority: a backlog for each tenant, in a heap by what the tenants have used."""

    __slots__ = ("_backlogs", "_numbers", "_tenants", "_turns")

    def __init__(self, tenants: Tenants) -> None:
        self._tenants = tenants
        self._backlogs: dict[Hashable, Backlog] = {}
        self._turns: list[tuple[float, int, int, Backlog]] = []  # counters only grow: corrected at the front
        self._numbers = 0

    def push(self, job: Job[Any], first: bool) -> None:
        """Add a job; `first`: before its tenant's others that have no deadline."""
        backlog = self._backlogs.get(job._options.tenant)
        if backlog is None:
            backlog = Backlog(job._options.tenant)
            self.adopt(backlog)
        backlog.push(job, first)

    def adopt(self, backlog: Backlog) -> None:
        """Add a new tenant's backlog."""
        self._backlogs[backlog.tenant] = backlog
        self._numbers += 1
        heappush(self._turns, (*self._tenants.rank(backlog.tenant), self._numbers, backlog))

    def front(self, waits: Callable[[Job[Any]], bool], spent: list[Any]) -> tuple[Backlog, Front] | None:
        """The backlog whose turn it is, and what is at its front."""
        turns, rank_of = self._turns, self._tenants.rank
        while turns:
            used, turn, number, backlog = turns[0]
            found = backlog.front(waits, spent)
            if found is None:
                heappop(turns)
                del self._backlogs[backlog.tenant]
            elif (rank := rank_of(backlog.tenant)) != (used, turn):
                heapreplace(turns, (*rank, number, backlog))
            else:
                return backlog, found
        return None

    def pop_timed(
        self, tenant: Hashable, most: int, waits: Callable[[Job[Any]], bool], spent: list[Any]
    ) -> list[Job[Any]]:
        """Remove and return up to `most` jobs of a tenant, by their deadlines."""
        backlog = self._backlogs.get(tenant)
        jobs: list[Job[Any]] = []
        while backlog is not None and backlog.timed and len(jobs) < most:
            job = heappop(backlog.timed)[2]
            (jobs if waits(job) else spent).append(job)
        return jobs

    def sweep(self, waits: Callable[[Job[Any]], bool]) -> None:
        """Remove all jobs that have left."""
        for backlog in self._backlogs.values():
            backlog.sweep(waits)
        self._turns = [entry for entry in self._turns if len(entry[3])]
        heapify(self._turns)
        self._backlogs = {entry[3].tenant: entry[3] for entry in self._turns}

    def timed(self) -> int:
        """Entries with a deadline."""
        return sum(len(backlog.timed) for backlog in self._backlogs.values())

    def __len__(self) -> int:
        return sum(map(len, self._backlogs.values()))

    def __iter__(self) -> Iterator[Job[Any]]:
        for backlog in self._backlogs.values():
            yield from backlog


class Line:
    """All jobs of a home, by priority and then as each level has it.

    Args:
        home: Whose jobs they are; a job that waits elsewhere by now is passed over.
        tenants: Tell what each has used.
        spent: Takes what is passed over, to be let go of outside of the lock.
        aged: Seconds of waiting that put a job before all others; `None`: no such thing.
    """

    __slots__ = ("_aged", "_arrivals", "_entries", "_home", "_levels", "_priorities", "_spent", "_tenants")

    def __init__(self, home: Home, tenants: Tenants, spent: list[Any], aged: float | None = None) -> None:
        self._home = home
        self._tenants = tenants
        self._spent = spent
        self._aged = aged
        self._arrivals: deque[Job[Any]] = deque()  # only with `aged`
        self._levels: dict[int, Level] = {}
        self._priorities: list[int] = []  # negated: served from the front
        self._entries = 0  # and those passed over since the last sweep: too high means swept too early

    def push(self, job: Job[Any], first: bool = False) -> None:
        """Add a job; `first`: before its equals."""
        self._level(job._options.priority).push(job, first)
        self._entries += 1
        if self._aged is not None:
            self._arrivals.append(job)

    def adopt(self, jobs: deque[Job[Any]]) -> None:
        """Take over jobs without priority, tenant or deadline as they stand; the line must be empty."""
        self._level(0).adopt(Backlog(None, jobs))
        self._entries += len(jobs)
        if self._aged is not None:
            self._arrivals.extend(jobs)

    def front(self, now: float) -> tuple[Rank, Job[Any]] | None:
        """The job that is served next and its rank against other lines' fronts, smaller first.

        Args:
            now: The moment, for those that have aged; any number without `aged`.
        """
        if (old := self._oldest(now)) is not None:
            return (-_NEVER, 0.0, 0, 0.0, old.id), old
        while self._priorities:
            negated = self._priorities[0]
            if (found := self._levels[-negated].front(self._waits, self._spent)) is not None:
                backlog, (due, job) = found
                return (negated, *self._tenants.rank(backlog.tenant), due, job.id), job
            self._drop_top()
        return None

    def pop(self, now: float) -> Job[Any] | None:
        """Remove and return the job that is served next."""
        if (old := self._oldest(now)) is not None:
            self._arrivals.popleft()  # its other entry is passed over in its turn
            return old
        while self._priorities:
            if (found := self._levels[-self._priorities[0]].front(self._waits, self._spent)) is not None:
                backlog, (_, job) = found
                backlog.drop_front()
                self._entries -= 1
                return job
            self._drop_top()
        return None

    def pop_timed(self, like: Job[Any], most: int) -> list[Job[Any]]:
        """Remove and return up to `most` jobs with the priority and tenant of `like`, by their deadlines."""
        level = self._levels.get(like._options.priority)
        jobs = [] if level is None else level.pop_timed(like._options.tenant, most, self._waits, self._spent)
        self._entries -= len(jobs)
        return jobs

    def tidy(self, live: int) -> None:
        """Sweep when those that have left are many more than the `live` ones."""
        if self._entries <= _SWEEP_AT + 2 * live:
            return
        self._spent.append([list(level) for level in self._levels.values()])
        for level in self._levels.values():
            level.sweep(self._waits)
        self._levels = {priority: level for priority, level in self._levels.items() if len(level)}
        self._priorities = sorted(-priority for priority in self._levels)
        self._entries = sum(map(len, self._levels.values()))
        self._arrivals = deque(job for job in self._arrivals if self._waits(job))

    def ahead_of(self, priority: int) -> int:
        """About how many jobs a new one with a deadline would find ahead: higher ones, and equals with a deadline."""
        return sum(
            len(level) if other > priority else level.timed()
            for other, level in self._levels.items()
            if other >= priority
        )

    def __iter__(self) -> Iterator[Job[Any]]:
        for level in self._levels.values():
            yield from filter(self._waits, level)

    def _waits(self, job: Job[Any]) -> bool:
        where = job._where
        return job._stage is _QUEUED and (where is self._home or where.upper is self._home)  # type: ignore[union-attr]

    def _oldest(self, now: float) -> Job[Any] | None:
        """The job that has waited longest, if that is long enough."""
        arrivals = self._arrivals
        while arrivals:
            if self._waits(arrivals[0]):
                assert self._aged is not None
                return arrivals[0] if now - arrivals[0]._submitted >= self._aged else None
            self._spent.append(arrivals.popleft())
        return None

    def _level(self, priority: int) -> Level:
        level = self._levels.get(priority)
        if level is None:
            level = self._levels[priority] = Level(self._tenants)
            insort(self._priorities, -priority)
        return level

    def _drop_top(self) -> None:
        del self._levels[-self._priorities.pop(0)]
