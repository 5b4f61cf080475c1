"""A lane: waiting jobs that the same slots can serve, single ones and groups that share batches.

Guarded by `scheduler`'s lock. `live` and `calls` are recounted from the groups at each change.

Single jobs stand in a line. A group competes with them and with other groups by the job at its front, so that each of
its jobs stands in one line only. Its entry in the heap is never better than the group is: a push that makes the group
better adds an entry, and what makes it worse (its front has left, its tenant was served) is corrected at the top.
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
    from director._scheduler.fair_share import FairShare
    from director._scheduler.queue.priority_queue import Rank, Ranked

_NEVER = float("inf")
_SWEEP_AT = 64  # entries that mean nothing any more, before they are swept out


class Lane:
    """Jobs with the same allowed slots and the same model.

    Args:
        key: Allowed slots and identity of the model; `None` for any slot and no model.
        model: The model, which the lane keeps alive as long as it has the key.
        tenants: Tell what each has used.
        spent: Takes what is passed over.
        aged: Seconds of waiting that put a job before all others, or `None`.
    """

    __slots__ = (
        "_aged",
        "_arrivals",
        "_fronts",
        "_groups",
        "_line",
        "_numbers",
        "_singles",
        "_spent",
        "_tenants",
        "allowed",
        "calls",
        "key",
        "live",
        "model",
    )

    upper: Location | None = None

    def __init__(
        self, key: LaneKey, model: Model[Any] | None, tenants: FairShare, spent: list[Any], aged: float | None
    ) -> None:
        self.key = key
        self.allowed = None if key is None else key[0]
        self.model = model
        self.live = 0  # jobs that a slot may take
        self.calls = 0  # calls that these would make, if every batch were full
        self._tenants = tenants
        self._spent = spent
        self._aged = aged
        self._arrivals = LazyHeap()  # of all that a slot may take; only with `aged`
        self._line = PriorityQueue(self, tenants, spent)
        self._singles = 0
        self._groups: dict[tuple[BatchRule, Hashable], BatchGroup] = {}
        self._fronts: list[
            tuple[Rank, int, BatchGroup]
        ] = []  # an entry means something while it is the group's `standing`
        self._numbers = itertools.count()

    def push(self, job: ScheduledJob[Any]) -> BatchGroup | None:
        """Add a job; returns the group in which it waits, if it can share a batch."""
        rule = job.options.batch_rule
        if rule is None:
            job.location = self
            self._line.push(job)
            self._singles += 1
            self.live += 1
            self.calls += 1
            if self._aged is not None:
                self.note_arrival(job)
            return None
        assert job.extras is not None
        key = (rule, job.extras.batch_key)
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = BatchGroup(self, rule, key, self._tenants, self._spent)
        group.push(job)
        return group

    def adopt(self, jobs: deque[ScheduledJob[Any]], live: int) -> None:
        """Take over jobs without any option as they stand, `live` of which wait; into an empty lane, without `aged`."""
        self._line.adopt(jobs)
        self._singles += live
        self.grow(live, live)

    def left(self, job: ScheduledJob[Any]) -> None:
        """A single job, QUEUED until now, waits here no more."""
        self._singles -= 1
        if self._singles:
            self._line.tidy(self._singles)
        else:  # nothing but what has left: let go of it
            self._line.clear()
        self.live -= 1
        self.calls -= 1
        if self._aged is not None or not self.live:
            self._tidy()

    # ---- the order of service

    def front(self, now: float) -> Ranked | None:
        """The job that is served next and its rank against other lanes' fronts, smaller first."""
        if self._aged is not None and (old := self._oldest(now)) is not None:
            return (-_NEVER, 0.0, 0, old.submitted_at, old.id), old
        single = self._line.peek() if self._singles else None
        grouped = self._front_of_groups() if self._fronts else None
        if single is None or grouped is None:
            return single or grouped
        return min(single, grouped, key=_rank_in)

    def pop(self, now: float) -> ScheduledJob[Any] | None:
        """The job that is served next. A single one is removed; the others leave their group with their batch."""
        if self._aged is None:
            if not self._fronts:
                return self._line.pop()
            if not self._singles and len(self._groups) == 1:
                return next(iter(self._groups.values())).line.first()  # its rank, against nobody, is not worth its cost
        found = self.front(now)
        return None if found is None else found[1]

    def compete(self, group: BatchGroup, rank: Rank) -> None:
        """The job at the front of a group has this rank, or a better one than before."""
        group.entry = rank
        fronts = self._fronts
        heappush(fronts, (rank, next(self._numbers), group))
        if len(fronts) > _SWEEP_AT + 2 * len(self._groups):
            self._spent.append(fronts)
            self._fronts = [entry for entry in fronts if entry[0] is entry[2].entry]
            heapify(self._fronts)

    def note_arrival(self, job: ScheduledJob[Any]) -> None:
        """A slot may take it from now on; only with `aged`."""
        self._arrivals.push(job.submitted_at, job)

    @property
    def ages(self) -> bool:
        """Jobs grow old here."""
        return self._aged is not None

    # ---- groups

    def grow(self, jobs: int, calls: int) -> None:
        """So many more can be taken, or fewer."""
        self.live += jobs
        self.calls += calls
        if jobs < 0 and (self._aged is not None or not self.live):
            self._tidy()

    def dissolve(self, group: BatchGroup) -> None:
        """A group is empty."""
        del self._groups[group.key]
        self._spent.append(group)

    def held(self) -> list[BatchGroup]:
        """Groups that are held."""
        return [group for group in self._groups.values() if group.upper is None]

    def close(self) -> None:
        """It is empty and given up. The collector would need to find it otherwise: a lane for each batch, say."""
        self._line.close()

    @property
    def is_empty(self) -> bool:
        """Nothing waits here."""
        return not self.live and not self._groups

    def __iter__(self) -> Iterator[ScheduledJob[Any]]:
        yield from self._line
        for group in self._groups.values():
            yield from group.line

    def __repr__(self) -> str:
        return f"<Lane {self.key} {self.live} waiting>"

    def _tidy(self) -> None:
        """Let go of what has left."""
        if self._aged is not None:
            self._arrivals.tidy(self.live, self._line.waits, self._spent)
        if not self.live and self._fronts:
            self._spent.append(self._fronts)
            self._fronts = []

    def _front_of_groups(self) -> Ranked | None:
        fronts = self._fronts
        while fronts:
            rank, _, group = fronts[0]
            if rank is not group.entry or (found := group.line.peek()) is None:
                self._spent.append(heappop(fronts))
            elif found[0] == rank:
                return found
            else:
                group.entry = found[0]
                heapreplace(fronts, (found[0], next(self._numbers), group))
        return None

    def _oldest(self, now: float) -> ScheduledJob[Any] | None:
        """The job that has waited longest, if that is long enough."""
        found = self._arrivals.first(self._line.waits, self._spent)
        return None if found is None or now - found[0] < self._aged else found[1]  # type: ignore[operator]


def _rank_in(ranked: Ranked) -> Rank:
    return ranked[0]
