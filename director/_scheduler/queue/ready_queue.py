"""The ready queue: all jobs that wait. Guarded by `scheduler`'s lock; knows nothing of threads.

While all jobs are without options they are in `fifo`, one deque: the usual case, and the fastest. With the first job
that has one the queue switches to lanes: every job is in a lane, and the first jobs of the lanes are compared.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from director._jobs.state import JobState
from director._scheduler.queue.batch_group import FlushTimers, cost_of
from director._scheduler.queue.estimate import QueueEstimate
from director._scheduler.queue.fair_share import FairShare
from director._scheduler.queue.lane import Lane

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from director._jobs.job import Location, ScheduledJob
    from director._jobs.model import Model
    from director._jobs.options import LaneKey
    from director._scheduler.memory.memory import Memory
    from director._scheduler.policy import SchedulingPolicy
    from director._scheduler.queue.batch_group import BatchGroup
    from director._scheduler.slots import Slot

_QUEUED, _RUNNING = JobState.QUEUED, JobState.RUNNING
_SWEEP_AT = 64


class FifoQueue:
    """Jobs without options in order of arrival: their location while the queue has no lanes."""

    __slots__ = ("jobs", "upper", "waiting")

    key = allowed = model = None  # any slot may serve it
    is_managed = False

    def __init__(self) -> None:
        self.jobs: deque[ScheduledJob[Any]] = deque()
        self.waiting = 0
        self.upper: Lane | None = None  # the lane that has taken them over

    @property
    def calls(self) -> int:
        """Calls that its jobs will make."""
        return self.waiting

    def left(self, job: ScheduledJob[Any]) -> None:
        """One of its jobs has left."""
        if self.upper is not None:
            self.upper.left(job)
        else:
            self.waiting -= 1


class ReadyQueue:
    """Jobs that wait, in order of service."""

    __slots__ = (
        "_ageing",
        "_estimate",
        "_lanes",
        "_memory",
        "_policy",
        "discarded",
        "fifo",
        "flush_timers",
        "has_lanes",
        "retry_waiting",
        "tenants",
        "waiting",
    )

    def __init__(self, policy: SchedulingPolicy, memory: Memory | None = None) -> None:
        self._memory = memory
        self.has_lanes = policy.ageing is not None
        self.fifo = FifoQueue()
        self.tenants = FairShare(policy.weights)
        self.retry_waiting = RetryWaiting()
        self.discarded: list[Any] = []  # entries passed over, to be dropped without the lock
        self._ageing = policy.ageing
        self.waiting: dict[ScheduledJob[Any], None] = {}  # with lanes: all jobs in order of arrival
        self._policy = policy
        self._lanes: dict[LaneKey, Lane] = {}
        self.flush_timers = FlushTimers(self.discarded)
        self._estimate = QueueEstimate(policy.weights) if policy.predict else None

    # ---- without options

    def pop_fifo(self, slot: Slot) -> ScheduledJob[Any] | None:
        """Remove the oldest job and give it to `slot`, RUNNING; only without lanes."""
        fifo = self.fifo
        if not fifo.waiting:
            if fifo.jobs:
                self.discarded.append(fifo.jobs)
                fifo.jobs = deque()
            return None
        jobs = fifo.jobs
        while True:
            job = jobs[0]
            if job.state is _QUEUED:
                slot.job = job  # first: at any time either the queue has it or the slot
                job.state = _RUNNING  # from QUEUED: the queue hands out no other
                job.location = slot
                fifo.waiting -= 1
                jobs.popleft()
                return job
            self.discarded.append(jobs.popleft())

    def tidy_fifo(self) -> None:
        """Remove the entries of jobs that have left when they are many more than those that wait."""
        fifo = self.fifo
        if len(fifo.jobs) > _SWEEP_AT + 2 * fifo.waiting:
            self.discarded.append(fifo.jobs)
            fifo.jobs = deque(job for job in fifo.jobs if job.state is _QUEUED)

    def switch_to_lanes(self) -> None:
        """Move every job to a lane."""
        fifo, empty = self.fifo, FifoQueue()
        waiting = dict.fromkeys(job for job in fifo.jobs if job.state is _QUEUED)
        self.fifo, self.waiting, self.has_lanes = empty, waiting, True
        if fifo.waiting:
            fifo.upper = lane = self._lane(None)
            lane.adopt(fifo.jobs, fifo.waiting)
            if self._estimate is not None:
                self._estimate.add_fifo(fifo.waiting)
        else:
            self.discarded.append(fifo.jobs)  # these refer to `fifo`: break the reference cycle
            fifo.jobs = deque()

    def switch_to_fifo(self) -> None:
        """Drop the lanes if nothing waits. Call it only while no call is charged."""
        if not self.waiting and self._ageing is None and not self.tenants.known:
            lanes, self._lanes, self.has_lanes = self._lanes, {}, False
            self.discarded.append(lanes)
            for lane in lanes.values():
                lane.close()
            self.flush_timers.clear()

    def repair(self, slots: list[Slot]) -> None:
        """Rebuild the queue: a job waits if no slot has it and it has not ended."""
        taken = {job for slot in slots for job in (*slot.current_jobs(), *slot.prefetched, *slot.missed_deadline)}
        if not self.has_lanes:
            fifo = self.fifo
            fifo.jobs = deque(job for job in fifo.jobs if job.state is _QUEUED)
            fifo.waiting = len(fifo.jobs)
            return
        jobs = [job for job in self.waiting if job.state is _QUEUED or (job not in taken and not job.done())]
        self.discarded.append(self._lanes)
        self.flush_timers.clear()
        self._lanes = {}
        self._estimate = QueueEstimate(self._policy.weights) if self._policy.predict else None
        self.waiting = dict.fromkeys(jobs)  # complete before the first is pushed: `repair` may be interrupted too
        self.retry_waiting.jobs = {job: None for job in self.retry_waiting.jobs if job in self.waiting}
        for job in jobs:
            job.state = _QUEUED
            if job not in self.retry_waiting.jobs:
                self._push(job)
        if self.tenants.known:
            self.tenants.recount_waiting(job.options.account for job in jobs)

    # ---- with lanes

    def push(self, job: ScheduledJob[Any]) -> BatchGroup | None:
        """Add a job, or one held for retry; returns its group if that is held, because it may be due now."""
        if job in self.waiting:
            self.retry_waiting.left(job)
        else:
            self._arrive(job)
        return self._push(job)

    def _push(self, job: ScheduledJob[Any]) -> BatchGroup | None:
        if self._estimate is not None:
            self._estimate.add(job)
        group = self._lane(job.options.lane, job.options.model).push(job)
        return group if group is not None and group.upper is None else None

    def hold_for_retry(self, job: ScheduledJob[Any]) -> None:
        """Keep a job where no slot takes it, until it is pushed again."""
        self._arrive(job)
        self.retry_waiting.push(job)

    def peek(self, suits: Callable[[Lane, Slot], bool], slot: Slot, now: float) -> ScheduledJob[Any] | None:
        """The job that `pop` would return."""
        lanes = [lane for lane in self.lanes() if lane.key is None or suits(lane, slot)]
        fronts = [front for lane in lanes if (front := lane.peek(now)) is not None]
        return min(fronts, key=lambda front: front[0])[1] if fronts else None

    def pop(self, suits: Callable[[Lane, Slot], bool], slot: Slot, now: float) -> ScheduledJob[Any] | None:
        """The next job for `slot`, from lanes that `suits` accepts; one of a batch group is still in it."""
        lane = self.first_lane(suits, slot, now)
        if lane is None:
            return None
        job = lane.pop(now)
        assert job is not None, "a lane counts jobs that it does not have"
        return job

    def first_lane(self, suits: Callable[[Lane, Slot], bool], slot: Slot, now: float) -> Lane | None:
        """The lane of the next job for `slot`, among those that `suits` accepts."""
        candidates = self.lanes() if len(self._lanes) > 1 else self._lanes.values()
        lanes = [lane for lane in candidates if lane.waiting and (lane.key is None or suits(lane, slot))]
        if not lanes:
            return None
        return lanes[0] if len(lanes) == 1 else min(lanes, key=lambda lane: _rank(lane, now))

    def lane_of(self, job: ScheduledJob[Any]) -> Lane | None:
        """The lane of a waiting job, if there are lanes."""
        return self._lanes.get(job.options.lane)

    def is_managed(self, job: ScheduledJob[Any]) -> bool:
        """Whether a waiting job needs memory that is accounted for."""
        return self._lanes[job.options.lane].is_managed

    def left(self, job: ScheduledJob[Any]) -> None:
        """A job, QUEUED until now, has left."""
        if self._estimate is not None and self.has_lanes and job.location is not self.retry_waiting:
            self._estimate.drop(job)
        job.location.left(job)  # type: ignore[union-attr]  # a waiting job has a location
        if not self.has_lanes:
            self.tidy_fifo()
            return
        del self.waiting[job]
        if self.tenants.known:
            self.tenants.of(job.options.account).waiting -= 1

    def left_together(self, group: BatchGroup, jobs: list[ScheduledJob[Any]]) -> None:
        """Jobs of a group, QUEUED until now, have left."""
        if self._estimate is not None:
            for job in jobs:
                self._estimate.drop(job)
        group.left_together(len(jobs), sum(map(cost_of, jobs)) if group.rule.max_cost is not None else 0.0)
        for job in jobs:
            del self.waiting[job]
        if self.tenants.known:
            for job in jobs:
                self.tenants.of(job.options.account).waiting -= 1

    def lanes(self) -> list[Lane]:
        """Lanes with jobs that can be taken, in no order."""
        lanes = [lane for lane in self._lanes.values() if lane.waiting]
        if len(lanes) < len(self._lanes):
            for lane in [lane for lane in self._lanes.values() if lane.is_empty]:
                lane.close()
                self.discarded.append(self._lanes.pop(lane.key))
        return lanes

    def account(self) -> None:
        """Models are accounted for that were not before: do so for the jobs that wait for them."""
        for lane in self._lanes.values():
            if lane.key is not None and not lane.is_managed and self._memory is not None:
                self._memory.take_on(lane)

    def in_order(self, now: float, wanted: Callable[[Lane], bool] | None = None) -> list[Lane] | list[FifoQueue]:
        """Lanes with jobs that can be taken, the one served next first; only `wanted` ones if that is given."""
        if not self.has_lanes:
            return [self.fifo] if self.fifo.waiting else []
        lanes = self.lanes() if wanted is None else list(filter(wanted, self.lanes()))
        if len(lanes) > 1:
            lanes.sort(key=lambda lane: _rank(lane, now))
        return lanes

    def held(self) -> list[BatchGroup]:
        """Groups that are held."""
        return [group for lane in self._lanes.values() for group in lane.held()]

    # ---- counts

    def count_waiting(self) -> int:
        """Jobs that wait."""
        return len(self.waiting) if self.has_lanes else self.fifo.waiting

    def ahead_of(self, job: ScheduledJob[Any], slots: frozenset[int]) -> float:
        """About how many jobs `slots` serve before a new one with a deadline; only with `predict`."""
        return 0.0 if self._estimate is None else self._estimate.ahead_of(job, slots)

    def __iter__(self) -> Iterator[ScheduledJob[Any]]:
        yield from self.waiting if self.has_lanes else (job for job in self.fifo.jobs if job.state is _QUEUED)

    def _lane(self, key: LaneKey, model: Model[Any] | None = None) -> Lane:
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = Lane(key, model, self.tenants, self.discarded, self._ageing)
            if key is not None and self._memory is not None:
                self._memory.take_on(lane)
        return lane

    def _arrive(self, job: ScheduledJob[Any]) -> None:
        name = job.options.account
        tenants = self.tenants
        if name is not None and not tenants.known:
            tenants.begin(len(self.waiting))
        self.waiting[job] = None
        if tenants.known:
            tenants.enqueue(tenants.of(name))


def _rank(lane: Lane, now: float) -> tuple[float, float, int, float, int]:
    front = lane.peek(now)
    assert front is not None, "a lane counts jobs that it does not have"
    return front[0]


class RetryWaiting:
    """Jobs that wait for their next attempt. Guarded by `scheduler`'s lock."""

    __slots__ = ("jobs",)

    upper: Location | None = None

    def __init__(self) -> None:
        self.jobs: dict[ScheduledJob[Any], None] = {}

    def push(self, job: ScheduledJob[Any]) -> None:
        """Add a job."""
        job.location = self
        self.jobs[job] = None

    def left(self, job: ScheduledJob[Any]) -> None:
        """One of its jobs has left."""
        del self.jobs[job]
