"""The scheduler in virtual time: no threads, no event loop, and only calls take time.

`Scheduler` decides as in a running Director. What it wakes (the Director coroutine, a parked worker) runs at once, and
a call on a slot takes the seconds that the simulation gives it. The result shows the policy alone, to be compared with
theory and with other policies on the same trace.
"""

from __future__ import annotations

import itertools
from collections import deque
from functools import partial
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any, cast

from director._device import simulated_devices
from director._jobs.job import JobExtras, ScheduledJob
from director._jobs.state import JobState
from director._scheduler.policy import SchedulingPolicy
from director._scheduler.scheduler import Scheduler
from director._scheduler.slots import Slot, make_device_slots

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable, Sequence

    from director._jobs.options import Options

    Seconds = Callable[[list[ScheduledJob[Any]], Slot], float]
    """What a call for these jobs takes on that slot."""

_START_AT_ONCE = 16


class _NoLoop:
    """The event loop of jobs that are never awaited."""

    def get_debug(self) -> bool:
        return False


class Play:
    """A scheduler with simulated slots.

    Args:
        slots: How many there are on each device.
        seconds: What a call takes.
        policy: How jobs are admitted and ordered.
    """

    def __init__(self, slots: Sequence[int], seconds: Seconds, policy: SchedulingPolicy = SchedulingPolicy()) -> None:  # noqa: B008 - frozen
        self.now = 0.0
        self.calls: list[list[ScheduledJob[Any]]] = []
        """Every call that has ended, with its jobs."""
        self.late: list[ScheduledJob[Any]] = []
        """Jobs that were failed because they could not make their deadlines any more."""
        self.scheduler = Scheduler(
            make_device_slots(tuple(simulated_devices(len(slots))), list(slots)),
            policy,
            lambda _model: frozenset(),
            self._call_director,
            lambda: self.now,
            self._schedule_flush,
            lambda _job, _wait_for_room: None,
        )
        self._seconds = seconds
        self._loop = cast("asyncio.AbstractEventLoop", _NoLoop())
        self._ids = itertools.count(1)
        self._order = itertools.count()
        self._events: list[tuple[float, int, Callable[[], object]]] = []
        self._woken: deque[Slot] = deque()
        self._director_called = False
        self._flush_at: float | None = None  # the next call of `flush_due`
        for slot in self.scheduler.slots:
            slot.wake = partial(self._woken.append, slot)

    def submit(
        self, options: Options, payload: object = None, key: object = None, cost: float = 0.0
    ) -> ScheduledJob[Any]:
        """Queue a job now.

        Raises:
            AdmissionError: It is refused.
        """
        job: ScheduledJob[Any] = ScheduledJob(loop=self._loop)
        job.id = next(self._ids)
        job.fn, job.payload, job.options, job.context = "played", (payload,), options, None
        job.extras = JobExtras(key, cost) if options.batch_rule is not None else None
        job.state = JobState.QUEUED
        job.started_at = job.finished_at = job.reported = None
        job.submitted_at = self.now
        self._wake(self.scheduler.admit(job, wait_for_room=False))
        self._settle()
        return job

    def cancel(self, job: ScheduledJob[Any]) -> bool:
        """Cancel a waiting job; False if it doesn't wait any more."""
        return self.scheduler.remove(job, JobState.CANCELLED)

    def at(self, time: float, what: Callable[[], object]) -> None:
        """Call `what` at a later time."""
        heappush(self._events, (time, next(self._order), what))

    def run(self, until: float = float("inf")) -> None:
        """Advance the time until no event is left, or to `until`."""
        events = self._events
        while events and events[0][0] <= until:
            self.now, _, what = heappop(events)
            what()
            self._settle()
        if until < float("inf"):
            self.now = max(self.now, until)

    def arrive(self, times: Iterable[float], options: Options) -> list[ScheduledJob[Any]]:
        """Submit a job at each of these times, in order, and run to the end."""
        jobs = []
        for time in times:
            self.run(until=time)
            jobs.append(self.submit(options))
        self.run()
        return jobs

    # ---- what is woken runs at once

    def _call_director(self) -> None:
        self._director_called = True

    def _schedule_flush(self, time: float) -> None:
        """One timer, as in a running Director: an earlier one replaces it."""
        self._flush_at = time = max(time, self.now)
        self.at(time, lambda: self._flush(time))

    def _flush(self, time: float) -> None:
        if time == self._flush_at:
            self._flush_at = None
            self._wake(self.scheduler.flush_due())

    def _wake(self, wake: Callable[[], None] | None) -> None:
        if wake is not None:
            wake()

    def _settle(self) -> None:
        while self._woken or self._director_called:
            if self._woken:
                self._take_work(self._woken.popleft())
            else:
                self._start_workers()

    def _start_workers(self) -> None:
        self._director_called = False
        slots = self.scheduler.pick_slots_to_start(_START_AT_ONCE)
        if len(slots) == _START_AT_ONCE:
            self._director_called = True  # it calls again without being woken
        else:
            self._wake(self.scheduler.wake_parked())
        self._woken += slots

    # ---- slots

    def _take_work(self, slot: Slot) -> None:
        """A worker calls `next_work`; without a job it stays parked until it is woken."""
        job, wake = self.scheduler.next_work(slot)
        self._wake(wake)
        for late in slot.missed_deadline:
            late.finished_at = self.now
        self.late += slot.missed_deadline
        slot.missed_deadline.clear()
        if job is not None:
            jobs = slot.batch or [job]
            for each in jobs:
                each.started_at = self.now
            self.at(self.now + self._seconds(jobs, slot), partial(self._end, slot, jobs, self.now))

    def _end(self, slot: Slot, jobs: list[ScheduledJob[Any]], began: float) -> None:
        slot.jobs += 1
        slot.busy_seconds += self.now - began
        for job in jobs:
            job.finished_at = self.now
            job.state = JobState.SUCCEEDED
        self.calls.append(jobs)
        self._take_work(slot)
