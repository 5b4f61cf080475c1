"""Jobs in order of service: priority, then fairness between tenants, then earliest deadline, then arrival.

Guarded by `scheduler`'s lock. The entry of a job that has left (taken, cancelled, moved) is passed over when it comes
to the front, so that leaving is O(1) and every decision O(log n).
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
    from director._scheduler.queue.fair_share import FairShare

Entry: TypeAlias = "tuple[float, int, ScheduledJob[Any]]"  # deadline (a time), number, job
Rank: TypeAlias = "tuple[float, float, int, float, int]"  # -priority, tenant's usage and last start, deadline, number
Ranked: TypeAlias = "tuple[Rank, ScheduledJob[Any]]"

_QUEUED = JobState.QUEUED
_NEVER = float("inf")
_BEFORE = 2**62
_NO_LOCATION: Any = object()  # the location of no job
_SWEEP_AT = 64  # entries of jobs that have left, before they are removed, once they outnumber those that wait


class TenantQueue:
    """Jobs of one tenant at one priority: earliest deadline first, those without one last and by their numbers."""

    __slots__ = ("heap", "jobs", "tenant")

    def __init__(self, tenant: Hashable, jobs: deque[ScheduledJob[Any]] | None = None) -> None:
        self.tenant = tenant
        self.jobs: deque[ScheduledJob[Any]] = deque() if jobs is None else jobs  # nearly all, in order of arrival
        self.heap: list[Entry] = []  # with a deadline or `start_within`, or not in order of arrival

    def push(self, job: ScheduledJob[Any]) -> None:
        """Add a job; it may be there already."""
        extra, jobs = job.extras, self.jobs
        options, is_fifo = job.options, extra is None or not extra.failed_attempts
        is_fifo = is_fifo and options.deadline is None and options.start_within is None
        if is_fifo and (not jobs or job.id > jobs[-1].id):
            jobs.append(job)
        else:
            heappush(self.heap, (job.deadline_at(), number_of(job), job))

    def peek(self, waits: Callable[[ScheduledJob[Any]], bool], discarded: list[Any]) -> Entry | None:
        """The first entry; those of jobs that have left go to `discarded`."""
        heap, jobs = self.heap, self.jobs
        while heap and not waits(heap[0][2]):
            discarded.append(heappop(heap))
        while jobs and not waits(jobs[0]):
            discarded.append(jobs.popleft())
        if not jobs:
            return heap[0] if heap else None
        first = (_NEVER, number_of(jobs[0]), jobs[0])
        return first if not heap or first < heap[0] else heap[0]

    def drop(self, entry: Entry) -> None:
        """Remove what `peek` has returned."""
        if self.heap and self.heap[0] is entry:
            heappop(self.heap)
        else:
            self.jobs.popleft()

    def pop_run(
        self, most: int, location: Location, waits: Callable[[ScheduledJob[Any]], bool], discarded: list[Any]
    ) -> list[ScheduledJob[Any]]:
        """Remove and return up to `most` jobs in order; none while the heap has any, whose time may be up."""
        jobs = self.jobs
        run: list[ScheduledJob[Any]] = []
        while jobs and len(run) < most and not self.heap:
            job = jobs.popleft()
            if (job.state is _QUEUED and job.location is location) or waits(job):  # the usual case without a call
                run.append(job)
            else:
                discarded.append(job)
        return run

    def pop_timed(
        self, most: int, waits: Callable[[ScheduledJob[Any]], bool], discarded: list[Any]
    ) -> list[ScheduledJob[Any]]:
        """Remove and return up to `most` jobs with a deadline, the earliest first."""
        heap = self.heap
        jobs: list[ScheduledJob[Any]] = []
        while heap and heap[0][0] < _NEVER and len(jobs) < most:
            job = heappop(heap)[2]
            (jobs if waits(job) else discarded).append(job)
        return list(dict.fromkeys(jobs))  # a retried job may be there twice

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
    """Jobs of one priority: a queue for each tenant, in a heap by what the tenants have used."""

    __slots__ = ("_by_usage", "_numbers", "_queues", "_tenants")

    def __init__(self, tenants: FairShare) -> None:
        self._tenants = tenants
        self._queues: dict[Hashable, TenantQueue] = {}
        self._by_usage: list[tuple[float, int, int, TenantQueue]] = []  # counters only grow: corrected at the top
        self._numbers = 0

    def push(self, job: ScheduledJob[Any]) -> None:
        """Add a job."""
        queue = self._queues.get(job.options.account)
        if queue is None:
            queue = TenantQueue(job.options.account)
            self.adopt(queue)
        queue.push(job)

    def adopt(self, queue: TenantQueue) -> None:
        """Add a new tenant's queue."""
        self._queues[queue.tenant] = queue
        self._numbers += 1
        heappush(self._by_usage, (*self._tenants.rank(queue.tenant), self._numbers, queue))

    def peek(
        self, waits: Callable[[ScheduledJob[Any]], bool], discarded: list[Any]
    ) -> tuple[TenantQueue, Entry] | None:
        """The queue of the tenant that is served next, and its first entry."""
        by_usage, rank_of = self._by_usage, self._tenants.rank
        while by_usage:
            used, last_start, number, queue = by_usage[0]
            found = queue.peek(waits, discarded)
            if found is None:
                heappop(by_usage)
                del self._queues[queue.tenant]
            elif (rank := rank_of(queue.tenant)) != (used, last_start):
                heapreplace(by_usage, (*rank, number, queue))
            else:
                return queue, found
        return None

    def queue(self, tenant: Hashable) -> TenantQueue | None:
        """The jobs of a tenant."""
        return self._queues.get(tenant)

    def sweep(self, waits: Callable[[ScheduledJob[Any]], bool]) -> None:
        """Remove all jobs that have left."""
        for queue in self._queues.values():
            queue.sweep(waits)
        self._by_usage = [entry for entry in self._by_usage if len(entry[3])]
        heapify(self._by_usage)
        self._queues = {entry[3].tenant: entry[3] for entry in self._by_usage}

    def __len__(self) -> int:
        return sum(map(len, self._queues.values()))

    def __iter__(self) -> Iterator[ScheduledJob[Any]]:
        for queue in self._queues.values():
            yield from queue


class PriorityQueue:
    """All jobs of a lane or batch group, by priority and then as each level orders them.

    Args:
        location: The lane or group; the entry of a job that has another location by now is passed over.
        tenants: The usage of each tenant.
        discarded: Takes entries that are passed over, to be dropped without the lock.
    """

    __slots__ = ("_discarded", "_entries", "_levels", "_location", "_priorities", "_tenants")

    def __init__(self, location: Location, tenants: FairShare, discarded: list[Any]) -> None:
        self._location = location
        self._tenants = tenants
        self._discarded = discarded
        self._levels: dict[int, PriorityLevel] = {}
        self._priorities: list[int] = []  # negated: the highest first
        self._entries = 0  # an upper bound: entries passed over are counted until the next sweep

    def push(self, job: ScheduledJob[Any]) -> None:
        """Add a job; it may be there already."""
        level = self._levels.get(job.options.priority)
        (self._level(job.options.priority) if level is None else level).push(job)
        self._entries += 1

    def adopt(self, jobs: deque[ScheduledJob[Any]]) -> None:
        """Take over a deque of jobs without priority, tenant or deadline; into an empty queue."""
        self._level(0).adopt(TenantQueue(None, jobs))
        self._entries += len(jobs)

    def peek(self) -> Ranked | None:
        """The job that is served next, and its rank against those of other queues, smaller first."""
        if (found := self._first_entry()) is None:
            return None
        queue, (due, number, job) = found
        return (-job.options.priority, *self._tenants.rank(queue.tenant), due, number), job

    def first(self) -> ScheduledJob[Any] | None:
        """The job that is served next."""
        found = self._first_entry()
        return None if found is None else found[1][2]

    def pop(self) -> ScheduledJob[Any] | None:
        """Remove and return the job that is served next."""
        if (found := self._first_entry()) is None:
            return None
        queue, entry = found
        queue.drop(entry)
        self._entries -= 1
        return entry[2]

    def pop_run(self, first: ScheduledJob[Any], most: int) -> list[ScheduledJob[Any]]:
        """Remove and return up to `most` jobs of one tenant in order of service, beginning with `first`.

        None unless that is simple: `first` comes first (it is not an aged job), and no job there has a deadline.
        """
        found = self._first_entry()
        if found is None or found[1][2] is not first:
            return []
        queue = found[0]
        before = len(queue.jobs)
        run = queue.pop_run(most, self._location, self.waits, self._discarded)
        self._entries -= before - len(queue.jobs)
        return run

    def pop_timed(self, like: ScheduledJob[Any], most: int) -> list[ScheduledJob[Any]]:
        """Remove and return up to `most` jobs with the priority and tenant of `like`, by their deadlines."""
        level = self._levels.get(like.options.priority)
        queue = None if level is None else level.queue(like.options.account)
        if queue is None:
            return []
        before = len(queue.heap)
        jobs = queue.pop_timed(most, self.waits, self._discarded)
        self._entries -= before - len(queue.heap)
        return jobs

    def tidy(self, waiting: int) -> None:
        """Remove the entries of jobs that have left when they are many more than the `waiting` ones."""
        if self._entries <= _SWEEP_AT + 2 * waiting:
            return
        self._discarded.append([list(level) for level in self._levels.values()])
        for level in self._levels.values():
            level.sweep(self.waits)
        self._levels = {priority: level for priority, level in self._levels.items() if len(level)}
        self._priorities = sorted(-priority for priority in self._levels)
        self._entries = sum(map(len, self._levels.values()))

    def clear(self) -> None:
        """Remove all; none waits any more."""
        self._discarded.append(self._levels)
        self._levels, self._priorities, self._entries = {}, [], 0

    def close(self) -> None:
        """Remove all for good, and break the reference cycle with the location."""
        self.clear()
        self._location = _NO_LOCATION

    def __iter__(self) -> Iterator[ScheduledJob[Any]]:
        for level in self._levels.values():
            yield from filter(self.waits, level)

    def waits(self, job: ScheduledJob[Any]) -> bool:
        """Whether the job still waits here."""
        where = job.location
        return job.state is _QUEUED and (where is self._location or where.upper is self._location)  # type: ignore[union-attr]

    def _first_entry(self) -> tuple[TenantQueue, Entry] | None:
        while self._priorities:
            if (found := self._levels[-self._priorities[0]].peek(self.waits, self._discarded)) is not None:
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
    """Sort key among equal jobs: retried jobs first, then by submission."""
    extra = job.extras
    return job.id if extra is None or not extra.failed_attempts else job.id - _BEFORE
