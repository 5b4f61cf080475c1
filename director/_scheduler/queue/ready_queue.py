"""The ready queue: everything that waits. Guarded by `scheduler`'s lock; knows nothing of threads.

Jobs without any option stand in `plain`, one deque: the usual case, and the fast one. With the first job that has more
to it the queue becomes rich: every job stands in a lane, and the order of service compares the fronts of lanes.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from director._jobs.state import JobState
from director._scheduler.fair_share import FairShare
from director._scheduler.queue.batch_group import FlushTimers, cost_of
from director._scheduler.queue.estimate import QueueEstimate
from director._scheduler.queue.lane import Lane

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from director._jobs.job import Location, ScheduledJob
    from director._jobs.model import Model
    from director._jobs.options import LaneKey
    from director._scheduler.policy import SchedulingPolicy
    from director._scheduler.queue.batch_group import BatchGroup
    from director._scheduler.slots import Slot

_QUEUED, _RUNNING = JobState.QUEUED, JobState.RUNNING
_SWEEP_AT = 64


class FifoQueue:
    """Jobs without any option, in order of arrival: the home of jobs while the queue is not rich."""

    __slots__ = ("jobs", "live", "upper")

    key = allowed = model = None  # any slot may serve it

    def __init__(self) -> None:
        self.jobs: deque[ScheduledJob[Any]] = deque()
        self.live = 0
        self.upper: Lane | None = None  # the lane that has taken them over

    @property
    def calls(self) -> int:
        """Calls that its jobs will make."""
        return self.live

    def left(self, job: ScheduledJob[Any]) -> None:
        """One of its jobs waits no more."""
        if self.upper is not None:
            self.upper.left(job)
        else:
            self.live -= 1


class ReadyQueue:
    """Jobs that wait, in order of service.

    Args:
        policy: Weights of the tenants, and ageing.
    """

    __slots__ = (
        "_aged",
        "_estimate",
        "_lanes",
        "_policy",
        "discarded",
        "fifo",
        "has_lanes",
        "holds",
        "retry_waiting",
        "tenants",
        "waiting",
    )

    def __init__(self, policy: SchedulingPolicy) -> None:
        self.has_lanes = policy.ageing is not None
        self.fifo = FifoQueue()
        self.tenants = FairShare(policy.weights)
        self.retry_waiting = RetryWaiting()
        self.discarded: list[Any] = []  # passed over; whoever holds the lock lets go of it when that is free
        self._aged = policy.ageing
        self.waiting: dict[
            ScheduledJob[Any], None
        ] = {}  # while it is rich: all jobs in order of arrival, the lanes' truth
        self._policy = policy
        self._lanes: dict[LaneKey, Lane] = {}
        self.holds = FlushTimers(self.discarded)
        self._estimate = QueueEstimate(policy.weights) if policy.predict else None

    # ---- without options

    def pop_fifo(self, slot: Slot) -> ScheduledJob[Any] | None:
        """Remove the oldest job and give it to `slot`, RUNNING; only while the queue is not rich."""
        plain = self.fifo
        if not plain.live:
            if plain.jobs:
                self.discarded.append(plain.jobs)
                plain.jobs = deque()
            return None
        jobs = plain.jobs
        while True:
            job = jobs[0]
            if job.state is _QUEUED:
                slot.job = job  # first, so that at any moment either the queue has it or the slot
                job.state = _RUNNING  # from QUEUED: the queue hands out no other
                job.location = slot
                plain.live -= 1
                jobs.popleft()
                return job
            self.discarded.append(jobs.popleft())

    def tidy_fifo(self) -> None:
        """Sweep those that were withdrawn when they are many more than those who wait."""
        plain = self.fifo
        if len(plain.jobs) > _SWEEP_AT + 2 * plain.live:
            self.discarded.append(plain.jobs)
            plain.jobs = deque(job for job in plain.jobs if job.state is _QUEUED)

    def switch_to_lanes(self) -> None:
        """Put every job in a lane."""
        plain, empty = self.fifo, FifoQueue()
        waiting = dict.fromkeys(job for job in plain.jobs if job.state is _QUEUED)
        self.fifo, self.waiting, self.has_lanes = empty, waiting, True
        if plain.live:
            plain.upper = lane = self._lane(None)
            lane.adopt(plain.jobs, plain.live)
            if self._estimate is not None:
                self._estimate.add_plain(plain.live)
        else:
            self.discarded.append(plain.jobs)  # those that were withdrawn; they know `plain`, and it need not know them
            plain.jobs = deque()

    def switch_to_fifo(self) -> None:
        """Be plain again if nothing waits; for whoever knows that no call is charged to anybody."""
        if not self.waiting and self._aged is None and not self.tenants.known:
            lanes, self._lanes, self.has_lanes = self._lanes, {}, False
            self.discarded.append(lanes)
            for lane in lanes.values():
                lane.close()
            self.holds.clear()

    def repair(self, slots: list[Slot]) -> None:
        """Build the queue anew: what no slot has, and is not over, waits."""
        taken = {job for slot in slots for job in (*slot.current_jobs(), *slot.prefetched, *slot.missed_deadline)}
        if not self.has_lanes:
            plain = self.fifo
            plain.jobs = deque(job for job in plain.jobs if job.state is _QUEUED)
            plain.live = len(plain.jobs)
            return
        jobs = [job for job in self.waiting if job.state is _QUEUED or (job not in taken and not job.done())]
        self.discarded.append(self._lanes)
        self.holds.clear()
        self._lanes = {}
        self._estimate = QueueEstimate(self._policy.weights) if self._policy.predict else None
        self.waiting = dict.fromkeys(jobs)  # whole before the first is pushed, for this may be cut off too
        self.retry_waiting.jobs = {job: None for job in self.retry_waiting.jobs if job in self.waiting}
        for job in jobs:
            job.state = _QUEUED
            if job not in self.retry_waiting.jobs:
                self._push(job)
        if self.tenants.known:
            self.tenants.recount_waiting(job.options.account for job in jobs)

    # ---- with options

    def push(self, job: ScheduledJob[Any]) -> BatchGroup | None:
        """Add a job, or one that was set aside; returns its group if that is held and may be ripe by now."""
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

    def set_aside(self, job: ScheduledJob[Any]) -> None:
        """Let a job wait where no slot sees it; `push` brings it back."""
        self._arrive(job)
        self.retry_waiting.push(job)

    def front(self, suits: Callable[[Lane, Slot], bool], slot: Slot, now: float) -> ScheduledJob[Any] | None:
        """What `pop` would return."""
        lanes = [lane for lane in self.lanes() if lane.key is None or suits(lane, slot)]
        fronts = [front for lane in lanes if (front := lane.front(now)) is not None]
        return min(fronts, key=lambda front: front[0])[1] if fronts else None

    def pop(self, suits: Callable[[Lane, Slot], bool], slot: Slot, now: float) -> ScheduledJob[Any] | None:
        """The next job for `slot`, from the lanes that `suits` accepts; it leaves at once, with its batch if any."""
        candidates = self.lanes() if len(self._lanes) > 1 else self._lanes.values()
        lanes = [lane for lane in candidates if lane.live and (lane.key is None or suits(lane, slot))]
        if not lanes:
            return None
        lane = lanes[0] if len(lanes) == 1 else min(lanes, key=lambda lane: _rank(lane, now))
        job = lane.pop(now)
        assert job is not None, "a lane counts jobs that it does not have"
        return job

    def left(self, job: ScheduledJob[Any]) -> None:
        """A job, QUEUED until now, waits no more."""
        if self._estimate is not None and self.has_lanes and job.location is not self.retry_waiting:
            self._estimate.drop(job)
        job.location.left(job)  # type: ignore[union-attr]  # a job that waits is in a home
        if not self.has_lanes:
            self.tidy_fifo()
            return
        del self.waiting[job]
        if self.tenants.known:
            self.tenants.of(job.options.account).waiting -= 1

    def left_together(self, group: BatchGroup, jobs: list[ScheduledJob[Any]]) -> None:
        """Jobs of a group, QUEUED until now, wait no more."""
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
        lanes = [lane for lane in self._lanes.values() if lane.live]
        if len(lanes) < len(self._lanes):
            for lane in [lane for lane in self._lanes.values() if lane.is_empty]:
                lane.close()
                self.discarded.append(self._lanes.pop(lane.key))
        return lanes

    def in_order(self, now: float) -> list[Lane] | list[FifoQueue]:
        """Lanes with jobs that can be taken, the one served next first."""
        if not self.has_lanes:
            return [self.fifo] if self.fifo.live else []
        lanes = self.lanes()
        if len(lanes) > 1:
            lanes.sort(key=lambda lane: _rank(lane, now))
        return lanes

    def held(self) -> list[BatchGroup]:
        """Groups that are held."""
        return [group for lane in self._lanes.values() for group in lane.held()]

    # ---- counts

    def live(self) -> int:
        """Jobs that wait."""
        return len(self.waiting) if self.has_lanes else self.fifo.live

    def ahead_of(self, job: ScheduledJob[Any], slots: frozenset[int]) -> float:
        """About how many jobs a new one with a deadline would find ahead of it, on `slots`; only with `predict`."""
        return 0.0 if self._estimate is None else self._estimate.ahead_of(job, slots)

    def __iter__(self) -> Iterator[ScheduledJob[Any]]:
        yield from self.waiting if self.has_lanes else (job for job in self.fifo.jobs if job.state is _QUEUED)

    def _lane(self, key: LaneKey, model: Model[Any] | None = None) -> Lane:
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = Lane(key, model, self.tenants, self.discarded, self._aged)
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
    front = lane.front(now)
    assert front is not None, "a lane counts jobs that it does not have"
    return front[0]


class RetryWaiting:
    """The home of jobs whose next try is still to come. Guarded by `scheduler`'s lock."""

    __slots__ = ("jobs",)

    upper: Location | None = None

    def __init__(self) -> None:
        self.jobs: dict[ScheduledJob[Any], None] = {}

    def push(self, job: ScheduledJob[Any]) -> None:
        """Add a job."""
        job.location = self
        self.jobs[job] = None

    def left(self, job: ScheduledJob[Any]) -> None:
        """One of its jobs waits here no more."""
        del self.jobs[job]
