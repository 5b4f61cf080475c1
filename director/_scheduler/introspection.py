"""Queries about the queue and the slots, under the scheduler's lock.

A finalizer or signal handler may call them during a decision: then the job being decided on may be counted wrongly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from director._jobs.state import JobState
from director._scheduler.exclusive import Exclusive
from director._scheduler.explanation import explain
from director._scheduler.memory.report import report
from director._scheduler.slots import SlotState

if TYPE_CHECKING:
    from collections.abc import Callable

    from director._jobs.job import ScheduledJob
    from director._jobs.model import Model
    from director._jobs.options import BatchRule
    from director._scheduler.costs import Accounting, LinearCost
    from director._scheduler.explanation import Explanation
    from director._scheduler.memory.memory import Memory
    from director._scheduler.memory.report import MemoryStats
    from director._scheduler.placement import ClosedDevices
    from director._scheduler.prefetch import Prefetch
    from director._scheduler.queue.ready_queue import ReadyQueue, RetryWaiting
    from director._scheduler.slots import DeviceSlots, Slot
    from director._scheduler.wakeups import Wakeups

_QUEUED = JobState.QUEUED
_RESTING = (SlotState.IDLE, SlotState.WAITING_FOR_OTHERS, SlotState.BACKING_OFF)


class Introspection(Exclusive):
    """The queries of `Scheduler`, which sets the attributes."""

    places: list[DeviceSlots]
    slots: list[Slot]
    memory: Memory
    prefetched: Prefetch
    _queue: ReadyQueue
    _accounting: Accounting
    _deferred: RetryWaiting
    _closed_devices: ClosedDevices
    _resident: Callable[[Model[Any]], frozenset[int]]
    _wakeups: Wakeups

    def waiting(self) -> int:
        """How many jobs wait, in the queue or prefetched by a slot."""
        with self._lock:
            return self._queue.count_waiting() + self.prefetched.count_waiting() + len(self._deferred.jobs)

    def has_waiting(self, place: DeviceSlots) -> bool:
        """Whether a job waits that may run on a device."""
        numbers = {slot.number for slot in place.slots}
        with self._lock:
            allowed = (job.options.allowed for job in (*self._queue, *self._deferred.jobs))
            return any(each is None or not numbers.isdisjoint(each) for each in allowed)

    def running(self, *, and_waiting: bool = False) -> list[ScheduledJob[Any]]:
        """Jobs in slots, cancelled ones included; with `and_waiting` those that wait too."""
        with self._lock:
            running = [job for slot in self.slots for job in (*slot.current_jobs(), *slot.prefetched)]
            return [*running, *((*self._queue, *self._deferred.jobs) if and_waiting else ())]

    def counts(self, on_their_way: Callable[[], list[ScheduledJob[Any]]]) -> tuple[int, set[ScheduledJob[Any]]]:
        """How many jobs wait, and those that were started: in slots, and `on_their_way` to the event loop.

        A consistent snapshot: a worker posts an outcome before it takes the next job, which needs the lock.
        """
        with self._lock:
            in_slots = (job for slot in self.slots if slot.job is not None for job in slot.batch or [slot.job])
            started = {*in_slots, *on_their_way()}
            begun = {job for job in started if job.state is not _QUEUED}  # the others are to be tried again
            return self._queue.count_waiting() + self.prefetched.count_waiting() + len(self._deferred.jobs), begun

    def can_load(self, job: ScheduledJob[Any]) -> bool:
        """Whether a slot has the model of `job`, or may still load it."""
        with self._lock:
            return bool(self._wakeups.able(job.asked))

    def is_coming(self, model: Model[Any]) -> bool:
        """Whether a slot has `model`, or loads it."""
        with self._lock:
            failed = self._wakeups.failed(model)
            calls = [slot.job for slot in self.slots if slot.job is not None and slot.number not in failed]
            return bool(self._resident(model)) or any(job.options.model is model for job in calls)

    def memory_of(self, place: DeviceSlots) -> MemoryStats:
        """What the ledger of a device says."""
        with self._lock:
            return report(self.memory.devices[place])

    def explain(self, job: ScheduledJob[Any]) -> Explanation:
        """What a job waits for."""
        now = self._time()
        with self._lock:
            return explain(job, self.places, self._queue, self.memory, self._wakeups.failed, now)

    def open_slots(self) -> frozenset[int]:
        """Numbers of the slots whose devices get work."""
        return self._closed_devices.open_slots()

    def is_idle(self) -> bool:
        """Whether nothing waits and no slot has a worker that could have a job."""
        with self._lock:
            return not self._has_waiting() and all(slot.state in _RESTING for slot in self.slots)

    def is_drained(self) -> bool:
        """As `is_idle`, but for slots whose calls run although their jobs have ended."""
        with self._lock:
            return not self._has_waiting() and all(slot.state in _RESTING or _is_left(slot) for slot in self.slots)

    def _has_waiting(self) -> bool:
        return bool(self._queue.count_waiting() or self._deferred.jobs)

    def costs(self) -> list[tuple[BatchRule, DeviceSlots, LinearCost]]:
        """What calls cost, by function and device; not to be modified."""
        with self._lock:
            return list(self._accounting.costs)


def _is_left(slot: Slot) -> bool:
    """Whether all jobs of a slot have ended, though a call still runs."""
    return slot.is_abandoned and all(job.done() for job in slot.prefetched)
