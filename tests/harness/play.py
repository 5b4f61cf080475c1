"""The scheduler in virtual time: no threads, no event loop; only calls, loads and unloads take time.

`Scheduler` decides as in a running Director. What it wakes (the Director coroutine, a parked worker) runs at once, and
a call on a slot takes the seconds that the simulation gives it. The result shows the policy alone, to be compared with
theory and with other policies on the same trace.
"""

from __future__ import annotations

import itertools
from collections import deque
from functools import partial
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any

from director._device import simulated_devices
from director._jobs.job import JobExtras, detached_job
from director._jobs.state import JobState
from director._scheduler.memory.residency import Residency
from director._scheduler.policy import SchedulingPolicy
from director._scheduler.scheduler import Scheduler
from director._scheduler.slots import Slot, make_device_slots

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from director._device import Device
    from director._jobs.job import ScheduledJob
    from director._jobs.model import Model
    from director._jobs.options import Options

    Seconds = Callable[[list[ScheduledJob[Any]], Slot], float]
    """What a call for these jobs takes on that slot."""
    LoadSeconds = Callable[[Model[Any], Slot], float]
    """What it takes that slot to load, or to unload, a model."""
    Outcome = Callable[[list[ScheduledJob[Any]], Slot], float | None]
    """Whether a call has failed: `None`, or the seconds until its jobs are tried again, negative for never."""

_START_AT_ONCE = 16
_RUNNING = JobState.RUNNING


def _at_once(_model: Model[Any], _slot: Slot) -> float:
    return 0.0


class Play:
    """A scheduler with simulated slots.

    Args:
        slots: How many there are on each device.
        seconds: What a call takes.
        policy: How jobs are admitted and ordered.
        devices: One for each entry of `slots`; `None`: simulated ones without memory.
        load_seconds: What a load takes.
        unload_seconds: What an unload takes.
        outcome: Which calls fail; `None`: none does.
    """

    def __init__(
        self,
        slots: Sequence[int],
        seconds: Seconds,
        policy: SchedulingPolicy = SchedulingPolicy(),  # noqa: B008 - frozen
        *,
        devices: Sequence[Device] | None = None,
        load_seconds: LoadSeconds = _at_once,
        unload_seconds: LoadSeconds = _at_once,
        outcome: Outcome | None = None,
    ) -> None:
        self.now = 0.0
        self.calls: list[list[ScheduledJob[Any]]] = []
        """Every call that has ended, with its jobs."""
        self.late: list[ScheduledJob[Any]] = []
        """Jobs that were failed because they could not make their deadlines any more."""
        self.loads: list[tuple[float, Model[Any], Slot]] = []
        """Every load, when it began."""
        places = make_device_slots(tuple(devices or simulated_devices(len(slots))), list(slots))
        self.residency = Residency(places)
        self.scheduler = Scheduler(
            places,
            policy,
            self.residency.resident,
            self._call_director,
            lambda: self.now,
            self._schedule_flush,
            lambda _job, _wait_for_room: None,
        )
        self._seconds = seconds
        self._load_seconds, self._unload_seconds, self._outcome = load_seconds, unload_seconds, outcome
        self._ids = itertools.count(1)
        self._order = itertools.count()
        self._events: list[tuple[float, int, Callable[[], object]]] = []
        self._woken: deque[Slot] = deque()
        self._director_called = False
        self._taken: dict[Slot, float] = {}  # when each slot took its last job: a load is part of its busy seconds
        self._flush_at: float | None = None  # the next call of `flush_due`
        self._loading: dict[tuple[int, int], list[Callable[[], object]]] = {}  # slots that wait for another's load
        self.scheduler.note_memory = lambda: self._wake(self.scheduler.wake_for_waiting())
        for slot in self.scheduler.slots:
            slot.wake = partial(self._woken.append, slot)

    def submit(
        self, options: Options, payload: object = None, key: object = None, cost: float = 0.0
    ) -> ScheduledJob[Any]:
        """Queue a job now.

        Raises:
            AdmissionError: It is refused.
        """
        job = detached_job(next(self._ids), "played", (payload,), options, JobState.QUEUED, self.now)
        job.extras = JobExtras(key, cost) if options.batch_rule is not None else None
        self._wake(self.scheduler.admit(job, wait_for_room=False))
        if options.deadline is not None:
            self.at(job.deadline_at(), partial(self._expire, job))
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

    def _expire(self, job: ScheduledJob[Any]) -> None:
        """The deadline of a job has passed: it ends for its caller, and a call goes on."""
        if job.state is JobState.QUEUED and self.scheduler.remove(job, JobState.FAILED):
            job.finished_at = self.now
            self.late.append(job)
        elif job.state is _RUNNING and job.finished_at is None:
            job.state = JobState.FAILED

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
            self._taken[slot] = self.now
            self._prepare(slot, slot.batch or [job])
        elif slot.unloads:
            self._unload(slot)

    def _prepare(self, slot: Slot, jobs: list[ScheduledJob[Any]]) -> None:
        """Load the model of a call, or wait for another slot's load, before the call begins."""
        model = jobs[0].options.model
        if model is None or slot.number in self.residency.resident(model):
            self._call(slot, jobs)
            return
        key = (model._key, slot.number if model.per_slot else -1 - slot.place.position)
        if (waiting := self._loading.get(key)) is not None:
            waiting.append(partial(self._call, slot, jobs))
            return
        self._loading[key] = []
        self.loads.append((self.now, model, slot))
        self.at(self.now + self._load_seconds(model, slot), partial(self._loaded, model, slot, jobs, key))

    def _loaded(self, model: Model[Any], slot: Slot, jobs: list[ScheduledJob[Any]], key: tuple[int, int]) -> None:
        seconds = self.now - self._taken[slot]
        self.residency.add(model, slot)
        slot.note_load(seconds)
        self._wake(self.scheduler.loaded(model, slot, seconds))
        self._call(slot, jobs)
        for begin in self._loading.pop(key):
            begin()

    def _unload(self, slot: Slot) -> None:
        unloads, slot.unloads = slot.unloads, []
        time = self.now
        for model, _, _, is_sleep in unloads:
            assert model is not None, "there are no samples, and so no caches to empty"
            time += self._unload_seconds(model, slot)
            self.at(time, partial(self._slept if is_sleep else self._unloaded, model, slot))
        self.at(time, lambda: self._take_work(slot))

    def _unloaded(self, model: Model[Any], slot: Slot) -> None:
        self.residency.remove(model, slot)
        self._wake(self.scheduler.unloaded(model, slot))

    def _slept(self, model: Model[Any], slot: Slot) -> None:
        self.residency.remove(model, slot)
        self._wake(self.scheduler.slept(model, slot, None))

    def _call(self, slot: Slot, jobs: list[ScheduledJob[Any]]) -> None:
        began = self._taken[slot]
        jobs = [job for job in jobs if job.state is _RUNNING]  # the others have ended during the load
        if not jobs:
            slot.busy_seconds += self.now - began
            self._take_work(slot)
            return
        for job in jobs:
            job.started_at = self.now
        self.at(self.now + self._seconds(jobs, slot), partial(self._end, slot, jobs, began))

    def _end(self, slot: Slot, jobs: list[ScheduledJob[Any]], began: float) -> None:
        slot.jobs += 1
        slot.busy_seconds += self.now - began
        delay = None if self._outcome is None else self._outcome(jobs, slot)
        for job in jobs:
            if delay is not None and delay >= 0 and self.scheduler.hold_for_retry(job):
                self.at(self.now + delay, partial(self._try_again, job))
                continue
            job.finished_at = self.now
            if job.state is _RUNNING:
                job.state = JobState.SUCCEEDED if delay is None else JobState.FAILED
        self.calls.append(jobs)
        self._take_work(slot)

    def _try_again(self, job: ScheduledJob[Any]) -> None:
        job.started_at = None
        job.extras = job.extras or JobExtras()
        job.extras.failed_attempts += 1
        self._wake(self.scheduler.requeue(job))
