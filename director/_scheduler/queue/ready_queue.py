"""The ready queue: everything that waits. Guarded by `dispatch`'s lock; knows nothing of threads.

Jobs without any option stand in `plain`, one deque: the usual case, and the fast one. With the first job that has more
to it the queue becomes rich: every job stands in a lane, and the order of service compares the fronts of lanes.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from director._jobs.state import JobState
from director._scheduler.fair_share import Tenants
from director._scheduler.queue.batch_group import Holds, cost_of
from director._scheduler.queue.estimate import Census
from director._scheduler.queue.lane import Lane

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from director._jobs.job import Home, Job
    from director._jobs.model import Model
    from director._jobs.options import LaneKey
    from director._scheduler.policy import Policy
    from director._scheduler.queue.batch_group import Group
    from director._scheduler.slots import Slot

_QUEUED, _RUNNING = JobState.QUEUED, JobState.RUNNING
_SWEEP_AT = 64


class Plain:
    """Jobs without any option, in order of arrival: the home of jobs while the queue is not rich."""

    __slots__ = ("jobs", "live", "upper")

    key = allowed = model = None  # any slot may serve it

    def __init__(self) -> None:
        self.jobs: deque[Job[Any]] = deque()
        self.live = 0
        self.upper: Lane | None = None  # the lane that has taken them over

    @property
    def calls(self) -> int:
        """Calls that its jobs will make."""
        return self.live

    def left(self, job: Job[Any]) -> None:
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
        "_census",
        "_lanes",
        "_policy",
        "holds",
        "is_rich",
        "pause",
        "plain",
        "spent",
        "tenants",
        "waiting",
    )

    def __init__(self, policy: Policy) -> None:
        self.is_rich = policy.ageing is not None
        self.plain = Plain()
        self.tenants = Tenants(policy.weights)
        self.pause = Pause()
        self.spent: list[Any] = []  # passed over; whoever holds the lock lets go of it when that is free
        self._aged = policy.ageing
        self.waiting: dict[Job[Any], None] = {}  # while it is rich: all jobs in order of arrival, the lanes' truth
        self._policy = policy
        self._lanes: dict[LaneKey, Lane] = {}
        self.holds = Holds(self.spent)
        self._census = Census(policy.weights) if policy.predict else None

    # ---- without options

    def pop_plain(self, slot: Slot) -> Job[Any] | None:
        """Remove the oldest job and give it to `slot`, RUNNING; only while the queue is not rich."""
        plain = self.plain
        if not plain.live:
            if plain.jobs:
                self.spent.append(plain.jobs)
                plain.jobs = deque()
            return None
        jobs = plain.jobs
        while True:
            job = jobs[0]
            if job._stage is _QUEUED:
                slot.job = job  # first, so that at any moment either the queue has it or the slot
                job._stage = _RUNNING  # from QUEUED: the queue hands out no other
                job._where = slot
                plain.live -= 1
                jobs.popleft()
                return job
            self.spent.append(jobs.popleft())

    def tidy_plain(self) -> None:
        """Sweep those that were withdrawn when they are many more than those who wait."""
        plain = self.plain
        if len(plain.jobs) > _SWEEP_AT + 2 * plain.live:
            self.spent.append(plain.jobs)
            plain.jobs = deque(job for job in plain.jobs if job._stage is _QUEUED)

    def enrich(self) -> None:
        """Put every job in a lane."""
        plain, empty = self.plain, Plain()
        waiting = dict.fromkeys(job for job in plain.jobs if job._stage is _QUEUED)
        self.plain, self.waiting, self.is_rich = empty, waiting, True
        if plain.live:
            plain.upper = lane = self._lane(None)
            lane.adopt(plain.jobs, plain.live)
            if self._census is not None:
                self._census.add_plain(plain.live)
        else:
            self.spent.append(plain.jobs)  # those that were withdrawn; they know `plain`, and it need not know them
            plain.jobs = deque()

    def rest(self) -> None:
        """Be plain again if nothing waits; for whoever knows that no call is charged to anybody."""
        if not self.waiting and self._aged is None and not self.tenants.known:
            lanes, self._lanes, self.is_rich = self._lanes, {}, False
            self.spent.append(lanes)
            for lane in lanes.values():
                lane.close()
            self.holds.clear()

    def mend(self, slots: list[Slot]) -> None:
        """Build the queue anew: what no slot has, and is not over, waits."""
        taken = {job for slot in slots for job in (*slot.inside(), *slot.ahead, *slot.late)}
        if not self.is_rich:
            plain = self.plain
            plain.jobs = deque(job for job in plain.jobs if job._stage is _QUEUED)
            plain.live = len(plain.jobs)
            return
        jobs = [job for job in self.waiting if job._stage is _QUEUED or (job not in taken and not job.done())]
        self.spent.append(self._lanes)
        self.holds.clear()
        self._lanes = {}
        self._census = Census(self._policy.weights) if self._policy.predict else None
        self.waiting = dict.fromkeys(jobs)  # whole before the first is pushed, for this may be cut off too
        self.pause.jobs = {job: None for job in self.pause.jobs if job in self.waiting}
        for job in jobs:
            job._stage = _QUEUED
            if job not in self.pause.jobs:
                self._push(job)
        if self.tenants.known:
            self.tenants.recount_waiting(job._options.account for job in jobs)

    # ---- with options

    def push(self, job: Job[Any]) -> Group | None:
        """Add a job, or one that was set aside; returns its group if that is held and may be ripe by now."""
        if job in self.waiting:
            self.pause.left(job)
        else:
            self._arrive(job)
        return self._push(job)

    def _push(self, job: Job[Any]) -> Group | None:
        if self._census is not None:
            self._census.add(job)
        group = self._lane(job._options.lane, job._options.model).push(job)
        return group if group is not None and group.upper is None else None

    def set_aside(self, job: Job[Any]) -> None:
        """Let a job wait where no slot sees it; `push` brings it back."""
        self._arrive(job)
        self.pause.push(job)

    def front(self, suits: Callable[[Lane, Slot], bool], slot: Slot, now: float) -> Job[Any] | None:
        """What `pop` would return."""
        lanes = [lane for lane in self.lanes() if lane.key is None or suits(lane, slot)]
        fronts = [front for lane in lanes if (front := lane.front(now)) is not None]
        return min(fronts, key=lambda front: front[0])[1] if fronts else None

    def pop(self, suits: Callable[[Lane, Slot], bool], slot: Slot, now: float) -> Job[Any] | None:
        """The next job for `slot`, from the lanes that `suits` accepts; it leaves at once, with its batch if any."""
        candidates = self.lanes() if len(self._lanes) > 1 else self._lanes.values()
        lanes = [lane for lane in candidates if lane.live and (lane.key is None or suits(lane, slot))]
        if not lanes:
            return None
        lane = lanes[0] if len(lanes) == 1 else min(lanes, key=lambda lane: _rank(lane, now))
        job = lane.pop(now)
        assert job is not None, "a lane counts jobs that it does not have"
        return job

    def left(self, job: Job[Any]) -> None:
        """A job, QUEUED until now, waits no more."""
        if self._census is not None and self.is_rich and job._where is not self.pause:
            self._census.drop(job)
        job._where.left(job)  # type: ignore[union-attr]  # a job that waits is in a home
        if not self.is_rich:
            self.tidy_plain()
            return
        del self.waiting[job]
        if self.tenants.known:
            self.tenants.of(job._options.account).waiting -= 1

    def left_together(self, group: Group, jobs: list[Job[Any]]) -> None:
        """Jobs of a group, QUEUED until now, wait no more."""
        if self._census is not None:
            for job in jobs:
                self._census.drop(job)
        group.left_together(len(jobs), sum(map(cost_of, jobs)) if group.rule.max_cost is not None else 0.0)
        for job in jobs:
            del self.waiting[job]
        if self.tenants.known:
            for job in jobs:
                self.tenants.of(job._options.account).waiting -= 1

    def lanes(self) -> list[Lane]:
        """Lanes with jobs that can be taken, in no order."""
        lanes = [lane for lane in self._lanes.values() if lane.live]
        if len(lanes) < len(self._lanes):
            for lane in [lane for lane in self._lanes.values() if lane.is_empty]:
                lane.close()
                self.spent.append(self._lanes.pop(lane.key))
        return lanes

    def in_order(self, now: float) -> list[Lane] | list[Plain]:
        """Lanes with jobs that can be taken, the one served next first."""
        if not self.is_rich:
            return [self.plain] if self.plain.live else []
        lanes = self.lanes()
        if len(lanes) > 1:
            lanes.sort(key=lambda lane: _rank(lane, now))
        return lanes

    def held(self) -> list[Group]:
        """Groups that are held."""
        return [group for lane in self._lanes.values() for group in lane.held()]

    # ---- counts

    def live(self) -> int:
        """Jobs that wait."""
        return len(self.waiting) if self.is_rich else self.plain.live

    def ahead_of(self, job: Job[Any], slots: frozenset[int]) -> float:
        """About how many jobs a new one with a deadline would find ahead of it, on `slots`; only with `predict`."""
        return 0.0 if self._census is None else self._census.ahead_of(job, slots)

    def __iter__(self) -> Iterator[Job[Any]]:
        yield from self.waiting if self.is_rich else (job for job in self.plain.jobs if job._stage is _QUEUED)

    def _lane(self, key: LaneKey, model: Model[Any] | None = None) -> Lane:
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = Lane(key, model, self.tenants, self.spent, self._aged)
        return lane

    def _arrive(self, job: Job[Any]) -> None:
        name = job._options.account
        tenants = self.tenants
        if name is not None and not tenants.known:
            tenants.begin(len(self.waiting))
        self.waiting[job] = None
        if tenants.known:
            tenants.arrive(tenants.of(name))


def _rank(lane: Lane, now: float) -> tuple[float, float, int, float, int]:
    front = lane.front(now)
    assert front is not None, "a lane counts jobs that it does not have"
    return front[0]


class Pause:
    """The home of jobs whose next try is still to come. Guarded by `dispatch`'s lock."""

    __slots__ = ("jobs",)

    upper: Home | None = None

    def __init__(self) -> None:
        self.jobs: dict[Job[Any], None] = {}

    def push(self, job: Job[Any]) -> None:
        """Add a job."""
        job._where = self
        self.jobs[job] = None

    def left(self, job: Job[Any]) -> None:
        """One of its jobs waits here no more."""
        del self.jobs[job]
