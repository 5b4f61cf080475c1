"""The Director's own decision, played on virtual time: no threads, no event loop, and only calls take time.

`Scheduler` decides as it does in a running Director. Whoever would be called (the Director coroutine, a parked worker)
comes at once; a call on a slot takes as long as the play says. So what comes out is the policy alone, to be held
against theory and against other policies on the same trace.
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

_HIRE_AT_ONCE = 16


class _NoLoop:
    """The loop of jobs that nobody awaits."""

    def get_debug(self) -> bool:
        return False


class Play:
    """A Director's decision with slots that it believes in.

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
        """Jobs that were failed for they could not make their deadline any more."""
        self.scheduler = Scheduler(
            make_device_slots(tuple(simulated_devices(len(slots))), list(slots)),
            policy,
            lambda _model: frozenset(),
            self._call_director,
            lambda: self.now,
            self._ripen_at,
            lambda _job, _patient: None,
        )
        self._seconds = seconds
        self._loop = cast("asyncio.AbstractEventLoop", _NoLoop())
        self._ids = itertools.count(1)
        self._order = itertools.count()
        self._events: list[tuple[float, int, Callable[[], object]]] = []
        self._rung: deque[Slot] = deque()
        self._director_called = False
        self._ripe: float | None = None  # when the scheduler wants to look at its groups
        for slot in self.scheduler.slots:
            slot.wake = partial(self._rung.append, slot)

    def submit(
        self, options: Options, cargo: object = None, key: object = None, cost: float = 0.0
    ) -> ScheduledJob[Any]:
        """Queue a job now.

        Raises:
            AdmissionError: It is refused.
        """
        job: ScheduledJob[Any] = ScheduledJob(loop=self._loop)
        job.id = next(self._ids)
        job.fn, job.payload, job.options, job.context = "played", (cargo,), options, None
        job.extras = JobExtras(key, cost) if options.batch_rule is not None else None
        job.state = JobState.QUEUED
        job.started_at = job.finished_at = job.reported = None
        job.submitted_at = self.now
        self._wake(self.scheduler.admit(job, patient=False))
        self._settle()
        return job

    def cancel(self, job: ScheduledJob[Any]) -> bool:
        """Withdraw a job that waits; False if it doesn't wait any more."""
        return self.scheduler.remove(job, JobState.CANCELLED)

    def at(self, moment: float, what: Callable[[], object]) -> None:
        """Do something at a moment to come."""
        heappush(self._events, (moment, next(self._order), what))

    def run(self, until: float = float("inf")) -> None:
        """Let time pass until nothing is left to happen, or to a moment."""
        events = self._events
        while events and events[0][0] <= until:
            self.now, _, what = heappop(events)
            what()
            self._settle()
        if until < float("inf"):
            self.now = max(self.now, until)

    def arrive(self, moments: Iterable[float], options: Options) -> list[ScheduledJob[Any]]:
        """Submit a job at each of these moments, in order, and run to the end."""
        jobs = []
        for moment in moments:
            self.run(until=moment)
            jobs.append(self.submit(options))
        self.run()
        return jobs

    # ---- who is called comes at once

    def _call_director(self) -> None:
        self._director_called = True

    def _ripen_at(self, moment: float) -> None:
        """One timer, as in a running Director: an earlier one takes its place."""
        self._ripe = moment = max(moment, self.now)
        self.at(moment, lambda: self._ripen(moment))

    def _ripen(self, moment: float) -> None:
        if moment == self._ripe:
            self._ripe = None
            self._wake(self.scheduler.flush_due())

    def _wake(self, wake: Callable[[], None] | None) -> None:
        if wake is not None:
            wake()

    def _settle(self) -> None:
        while self._rung or self._director_called:
            if self._rung:
                self._look(self._rung.popleft())
            else:
                self._hire()

    def _hire(self) -> None:
        self._director_called = False
        hired = self.scheduler.pick_slots_to_start(_HIRE_AT_ONCE)
        if len(hired) == _HIRE_AT_ONCE:
            self._director_called = True  # it goes on by itself
        else:
            self._wake(self.scheduler.wake_parked())
        self._rung += hired

    # ---- slots

    def _look(self, slot: Slot) -> None:
        """A worker asks for work; having none it stays parked until it is rung."""
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
        self._look(slot)
