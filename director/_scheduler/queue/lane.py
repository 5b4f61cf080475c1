"""A lane: waiting jobs that the same slots can serve, single ones and groups that share batches.

Guarded by `scheduler`'s lock. `waiting` and `calls` are updated by the groups at each change.

Single jobs are in one queue. A group competes with them and with other groups by its first job, so that each of its
jobs is in one queue only. The rank of its valid heap entry is never worse than its real one: a job that improves the
rank adds an entry, and a rank that got worse (the first job left, its tenant was served) is corrected at the top.
"""

from __future__ import annotations

import itertools
from heapq import heapify, heappop, heappush, heapreplace
from typing import TYPE_CHECKING, Any

from director._scheduler.queue.batch_group import BatchGroup
from director._scheduler.queue.lazy_heap import LazyHeap
from director._scheduler.queue.priority_queue import PriorityQueue

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Hashable, Iterator

    from director._jobs.job import Location, ScheduledJob
    from director._jobs.model import Model
    from director._jobs.options import BatchRule, LaneKey
    from director._scheduler.memory.replica import KnownModel
    from director._scheduler.queue.fair_share import FairShare
    from director._scheduler.queue.priority_queue import Rank, Ranked

_NEVER = float("inf")
_SWEEP_AT = 64  # outdated entries before they are removed


class Lane:
    """Jobs with the same allowed slots, the same model and the same memory of a call.

    Args:
        key: Allowed slots, identity of the model and memory; `None` for any slot, no model and no memory.
        model: The model, of which the lane keeps what is kept.
        tenants: The usage of each tenant.
        discarded: Takes entries that are passed over, to be dropped without the lock.
        ageing: Seconds of waiting that put a job before all others, or `None`.
    """

    __slots__ = (
        "_ageing",
        "_arrivals",
        "_discarded",
        "_front",
        "_group_heap",
        "_groups",
        "_numbers",
        "_queue",
        "_singles",
        "_tenants",
        "allowed",
        "calls",
        "is_managed",
        "key",
        "known",
        "memory",
        "model",
        "waiting",
    )

    upper: Location | None = None

    def __init__(
        self, key: LaneKey, model: Model[Any] | None, tenants: FairShare, discarded: list[Any], ageing: float | None
    ) -> None:
        self.key = key
        self.allowed = None if key is None else key[0]
        self.model = None if model is None else model._kept()
        self.memory = 0 if key is None else key[2]
        self.known: KnownModel | None = None  # of a model that is accounted for
        self.is_managed = False  # its jobs need memory that is accounted for
        self.waiting = 0  # jobs that a slot may take
        self.calls = 0  # calls that these would make, if every batch were full
        self._tenants = tenants
        self._discarded = discarded
        self._ageing = ageing
        self._arrivals = LazyHeap()  # of all that a slot may take; only with `ageing`
        self._front: Ranked | None = None  # what `_first` has returned, if nothing has changed since
        self._queue = PriorityQueue(self, tenants, discarded)
        self._singles = 0
        self._groups: dict[tuple[BatchRule, Hashable], BatchGroup] = {}
        self._group_heap: list[
            tuple[Rank, int, BatchGroup]
        ] = []  # an entry means something while it is the group's `standing`
        self._numbers = itertools.count()

    def push(self, job: ScheduledJob[Any]) -> BatchGroup | None:
        """Add a job; returns the group in which it waits, if it can share a batch."""
        rule = job.options.batch_rule
        if rule is None:
            self._front = None
            job.location = self
            self._queue.push(job)
            self._singles += 1
            self.waiting += 1
            self.calls += 1
            if self._ageing is not None:
                self.note_arrival(job)
            return None
        assert job.extras is not None
        key = (rule, job.extras.batch_key)
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = BatchGroup(self, rule, key, self._tenants, self._discarded)
        group.push(job)
        return group

    def adopt(self, jobs: deque[ScheduledJob[Any]], waiting: int) -> None:
        """Take over a deque of jobs without options, `waiting` of which wait; into an empty lane, without `ageing`."""
        self._queue.adopt(jobs)
        self._singles += waiting
        self.grow(waiting, waiting)

    def left(self, job: ScheduledJob[Any]) -> None:
        """A single job, QUEUED until now, has left."""
        self._front = None
        self._singles -= 1
        if self._singles:
            self._queue.tidy(self._singles)
        else:  # only entries of jobs that have left
            self._queue.clear()
        self.waiting -= 1
        self.calls -= 1
        if self._ageing is not None or not self.waiting:
            self._tidy()

    # ---- the order of service

    def peek(self, now: float) -> Ranked | None:
        """The job that is served next and its rank against those of other lanes, smaller first."""
        if self._ageing is not None and (old := self._oldest(now)) is not None:
            return (-_NEVER, 0.0, 0, old.submitted_at, old.id), old
        if self._front is None or self._tenants.known:  # what tenants have used changes with every call
            self._front = self._first()
        return self._front

    def pop(self, now: float) -> ScheduledJob[Any] | None:
        """The job that is served next. A single one is removed; the caller removes one of a group."""
        if self._ageing is None:
            if not self._group_heap:
                return self._queue.pop()
            if not self._singles and len(self._groups) == 1:
                return next(iter(self._groups.values())).queue.first()  # it competes with no other: no rank
        found = self.peek(now)
        return None if found is None else found[1]

    def compete(self, group: BatchGroup, rank: Rank) -> None:
        """A group has a first job of this rank: it is new here, or its rank has improved."""
        group.entry = rank
        heap = self._group_heap
        heappush(heap, (rank, next(self._numbers), group))
        if len(heap) > _SWEEP_AT + 2 * len(self._groups):
            self._discarded.append(heap)
            self._group_heap = [entry for entry in heap if entry[0] is entry[2].entry]
            heapify(self._group_heap)

    def note_arrival(self, job: ScheduledJob[Any]) -> None:
        """A slot may take the job from now on; only with `ageing`."""
        self._arrivals.push(job.submitted_at, job)

    @property
    def highest(self) -> int:
        """The highest priority of what waits here."""
        front = self.peek(-_NEVER)
        return 0 if front is None else -int(front[0][0])

    @property
    def ages(self) -> bool:
        """Whether jobs that have waited long go first."""
        return self._ageing is not None

    # ---- groups

    def grow(self, jobs: int, calls: int) -> None:
        """Slots may take so many more jobs of groups, in so many more calls; or fewer if negative."""
        self._front = None
        self.waiting += jobs
        self.calls += calls
        if jobs < 0 and (self._ageing is not None or not self.waiting):
            self._tidy()

    def remove_group(self, group: BatchGroup) -> None:
        """A group is empty."""
        del self._groups[group.key]
        self._discarded.append(group)

    def held(self) -> list[BatchGroup]:
        """Groups that are held."""
        return [group for group in self._groups.values() if group.upper is None]

    def close(self) -> None:
        """Break the reference cycle of an empty lane that is given up: else only the garbage collector frees it."""
        self._queue.close()

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits here."""
        return not self.waiting and not self._groups

    def __iter__(self) -> Iterator[ScheduledJob[Any]]:
        yield from self._queue
        for group in self._groups.values():
            yield from group.queue

    def __repr__(self) -> str:
        return f"<Lane {self.key} {self.waiting} waiting>"

    def _tidy(self) -> None:
        """Remove entries of jobs and groups that have left."""
        if self._ageing is not None:
            self._arrivals.tidy(self.waiting, self._queue.waits, self._discarded)
        if not self.waiting and self._group_heap:
            self._discarded.append(self._group_heap)
            self._group_heap = []

    def _first(self) -> Ranked | None:
        """The job that is served next, if none has waited too long."""
        single = self._queue.peek() if self._singles else None
        grouped = self._peek_groups() if self._group_heap else None
        if single is None or grouped is None:
            return single or grouped
        return min(single, grouped, key=lambda ranked: ranked[0])

    def _peek_groups(self) -> Ranked | None:
        heap = self._group_heap
        while heap:
            rank, _, group = heap[0]
            if rank is not group.entry or (found := group.queue.peek()) is None:
                self._discarded.append(heappop(heap))
            elif found[0] == rank:
                return found
            else:
                group.entry = found[0]
                heapreplace(heap, (found[0], next(self._numbers), group))
        return None

    def _oldest(self, now: float) -> ScheduledJob[Any] | None:
        """The job that has waited longest, if that is long enough."""
        found = self._arrivals.first(self._queue.waits, self._discarded)
        return None if found is None or now - found[0] < self._ageing else found[1]  # type: ignore[operator]
