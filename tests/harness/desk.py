"""A `Scheduler` with everything around it played by the test: no event loop, no threads, no time of its own."""

from __future__ import annotations

import asyncio
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from director._jobs.job import JobExtras, ScheduledJob
from director._jobs.options import Options
from director._jobs.state import JobState
from director._scheduler.policy import SchedulingPolicy
from director._scheduler.scheduler import Scheduler
from director._scheduler.slots import Slot, SlotState, make_device_slots
from director.testing import simulated_devices

if TYPE_CHECKING:
    from director import Device
    from director._jobs.model import Model

QUEUED, RUNNING, SUCCEEDED = JobState.QUEUED, JobState.RUNNING, JobState.SUCCEEDED
CANCELLED, FAILED = JobState.CANCELLED, JobState.FAILED
IDLE, HIRED, WORKING = SlotState.IDLE, SlotState.STARTING, SlotState.WORKING
PARKED, CALLED, LEAVING = SlotState.PARKED, SlotState.WOKEN, SlotState.LEAVING
COMING = (HIRED, CALLED)
FREE = (IDLE, PARKED)


class Nowhere(asyncio.AbstractEventLoop):
    """The loop of jobs that nobody will ever await."""

    def get_debug(self) -> bool:
        return False


class Desk:
    """A `Scheduler` with everything around it played by the test."""

    def __init__(
        self,
        counts: list[int],
        max_queue: int | None = None,
        policy: SchedulingPolicy | None = None,
        devices: tuple[Device, ...] | None = None,
    ) -> None:
        self.loop = Nowhere()
        self.places = make_device_slots(devices or tuple(simulated_devices(len(counts))), counts)
        self.warm: dict[Model[Any], frozenset[int]] = {}
        self.broken: dict[Model[Any], frozenset[int]] = {}  # where a load has failed lately
        self.director_called = False
        self.now = 0.0
        self.flushes_at: list[float] = []
        self.scheduler = Scheduler(
            self.places,
            policy or SchedulingPolicy(max_queue),
            lambda model: self.warm.get(model._itself(), frozenset()),
            self._call,
            self._tell_time,
            self.flushes_at.append,
            lambda job, wait_for_room: self.submit_later.append((job, wait_for_room)),
            lambda model: self.broken.get(model._itself(), frozenset()),
        )
        self.scheduler.note_memory = lambda: self.wake(self.scheduler.wake_for_waiting())
        self.slots = self.scheduler.slots
        self.submit_later: list[tuple[ScheduledJob[Any], bool]] = []  # for `admit_deferred`
        self._numbers = iter(range(1, 10**9))

    def _tell_time(self) -> float:
        lock: Any = self.scheduler._lock
        assert not lock._is_owned(), "the clock is user code, and was called under the lock"
        return self.now

    def _call(self) -> None:
        self.director_called = True

    def job(self, options: Options = Options(), fn: Any = print, extra: JobExtras | None = None) -> ScheduledJob[Any]:  # noqa: B008
        """A job as `JobLifecycle.create_job` makes it."""
        job: ScheduledJob[Any] = ScheduledJob(loop=self.loop)
        job.id = next(self._numbers)
        job.fn, job.payload, job.options, job.context = fn, (), options, copy_context()
        job.state, job.extras = QUEUED, extra if extra is not None or options.batch_rule is None else JobExtras()
        job.started_at = job.finished_at = job.reported = None
        job.submitted_at = self.now
        return job

    def admit(
        self,
        options: Options = Options(),  # noqa: B008 - frozen
        wait_for_room: bool = False,
        fn: Any = print,
        extra: JobExtras | None = None,
    ) -> ScheduledJob[Any]:
        """Queue a job and wake whom the scheduler wants to have rung."""
        job = self.job(options, fn, extra)
        self.wake(self.scheduler.admit(job, wait_for_room))
        return job

    def wake(self, wake: Any) -> None:
        """Call a `Ring`. Ringing twice for one call raises: the bell is a lock."""
        if wake is not None:
            wake()

    def hire(self, most: int = 16) -> list[Slot]:
        """The Director coroutine looks."""
        self.director_called = False
        hired = self.scheduler.pick_slots_to_start(most)
        if len(hired) == most:
            self.director_called = True  # it goes on by itself
        else:
            self.wake(self.scheduler.wake_parked())
        return hired

    def take(self, slot: Slot) -> ScheduledJob[Any] | None:
        """The worker of `slot`, hired or rung or at the end of a job, looks for the next one."""
        if slot.state is CALLED:
            assert slot.wake_signal.acquire(blocking=False), "called and not rung"
        job, wake = self.scheduler.next_work(slot)
        self.wake(wake)
        return job

    def end(self, slot: Slot, seconds: float = 0.0) -> list[ScheduledJob[Any]]:
        """The call on `slot` ends well after `seconds`; its worker has yet to look for more. Returns its jobs."""
        jobs = slot.batch or [slot.job]  # type: ignore[list-item]
        slot.jobs += len(jobs)
        slot.busy_seconds += seconds
        for job in jobs:
            if job.state is JobState.RUNNING:
                job.transition(JobState.SUCCEEDED)
        return jobs

    def fail(self, slot: Slot, again: bool = True) -> None:
        """As `end`, but with an error for which its job is tried `again`."""
        job = slot.job
        assert job is not None
        slot.jobs += 1
        if not again:
            job.transition(FAILED)
            return
        assert self.scheduler.hold_for_retry(job)
        job.extras = job.extras or JobExtras()
        job.extras.failed_attempts += 1

    def withdraw_all(self, state: JobState) -> list[ScheduledJob[Any]]:
        """Withdraw what waits."""
        jobs: list[ScheduledJob[Any]] = []
        self.scheduler.remove_all(jobs, state)
        return jobs

    def fail_unloadable(self, model: Model[Any]) -> list[ScheduledJob[Any]]:
        """A load of `model` has failed."""
        jobs: list[ScheduledJob[Any]] = []
        self.scheduler.fail_unloadable(jobs, model)
        return jobs

    def try_again(self, job: ScheduledJob[Any]) -> None:
        """Its back-off is over."""
        self.wake(self.scheduler.requeue(job))

    def advance(self, seconds: float) -> None:
        """Move the clock, making the calls of `ripen` that were asked for."""
        until = self.now + seconds
        while (moment := min(self.flushes_at, default=until + 1.0)) <= until:
            self.flushes_at.remove(moment)
            self.now = max(self.now, moment)
            self.wake(self.scheduler.flush_due())
        self.now = until

    def on_their_way(self) -> list[Slot]:
        """Workers that will look for work."""
        return [slot for slot in self.slots if slot.state in COMING]

    def settle(self) -> int:
        """Let all who are on their way arrive, until nobody is; returns the number of steps."""
        steps = 0
        while self.director_called or self.on_their_way():
            steps += 1
            assert steps < 1000, f"they call each other for ever: {self.slots}"
            if self.director_called:
                self.hire()
            for slot in self.on_their_way():
                self.take(slot)
        return steps
