"""Queries about the queue and the slots, under the scheduler's lock.

A finalizer or signal handler may call them during a decision: then the job being decided on may be counted wrongly.
What it submits or cancels during a query is deferred; see `exclusive.query`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from director._jobs.state import JobState
from director._scheduler.exclusive import Exclusive, query
from director._scheduler.explanation import explain
from director._scheduler.memory.report import report
from director._scheduler.slots import SlotState

if TYPE_CHECKING:
    from collections.abc import Callable

    from director._jobs.job import ScheduledJob
    from director._jobs.model import Model
    from director._jobs.options import BatchRule
    from director._scheduler.costs import Accounting
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

    @query
    def waiting(self) -> int:
        """How many jobs wait, in the queue or prefetched by a slot."""
        return self._queue.count_waiting() + self.prefetched.count_waiting() + len(self._deferred.jobs)

    @query
    def has_waiting(self, place: DeviceSlots) -> bool:
        """Whether a job waits that may run on a device."""
        numbers = {slot.number for slot in place.slots}
        allowed = (job.options.allowed for job in (*self._queue, *self._deferred.jobs))
        return any(each is None or not numbers.isdisjoint(each) for each in allowed)

    @query
    def running(self, *, and_waiting: bool = False) -> list[ScheduledJob[Any]]:
        """Jobs in slots, cancelled ones included; with `and_waiting` those that wait too."""
        running = [job for slot in self.slots for job in (*slot.current_jobs(), *slot.prefetched)]
        return [*running, *((*self._queue, *self._deferred.jobs) if and_waiting else ())]

    @query
    def counts(self, on_their_way: Callable[[], list[ScheduledJob[Any]]]) -> tuple[int, set[ScheduledJob[Any]]]:
        """How many jobs wait, and those that were started: in slots, and `on_their_way` to the event loop.

        A consistent snapshot: a worker posts an outcome before it takes the next job, which needs the lock, and before
        it empties `missed_deadline`, which is read first.
        """
        in_slots = (job for slot in self.slots if slot.job is not None for job in slot.batch or [slot.job])
        late = (job for slot in self.slots for job in slot.missed_deadline)
        started = {*in_slots, *late, *on_their_way()}
        begun = {job for job in started if job.state is not _QUEUED}  # the others are to be tried again
        return self._queue.count_waiting() + self.prefetched.count_waiting() + len(self._deferred.jobs), begun

    @query
    def can_load(self, job: ScheduledJob[Any]) -> bool:
        """Whether a slot has the model of `job`, or may still load it."""
        return bool(self._wakeups.able(job.asked))

    @query
    def is_coming(self, model: Model[Any]) -> bool:
        """Whether a slot has `model`, or loads it."""
        failed = self._wakeups.failed(model)
        calls = [slot.job for slot in self.slots if slot.job is not None and slot.number not in failed]
        return bool(self._resident(model)) or any(job.options.model is model for job in calls)

    @query
    def memory_of(self, place: DeviceSlots) -> MemoryStats:
        """What the ledger of a device says."""
        return report(self.memory.devices[place])

    def explain(self, job: ScheduledJob[Any]) -> Explanation:
        """What a job waits for."""
        return self._explain(job, self._time())

    @query
    def _explain(self, job: ScheduledJob[Any], now: float) -> Explanation:
        return explain(job, self.places, self._queue, self.memory, self._wakeups.failed, now)

    def open_slots(self) -> frozenset[int]:
        """Numbers of the slots whose devices get work."""
        return self._closed_devices.open_slots()

    @query
    def is_idle(self) -> bool:
        """Whether nothing waits and no slot has a worker that could have a job."""
        return not self._has_waiting() and all(slot.state in _RESTING for slot in self.slots)

    @query
    def is_drained(self) -> bool:
        """As `is_idle`, but for slots whose calls run although their jobs have ended."""
        return not self._has_waiting() and all(slot.state in _RESTING or _is_left(slot) for slot in self.slots)

    def _has_waiting(self) -> bool:
        return bool(self._queue.count_waiting() or self._deferred.jobs)

    @query
    def costs(self) -> list[tuple[BatchRule, DeviceSlots, int, int, tuple[float, float]]]:
        """By function and device: how many calls and items were measured, and what they cost; see `LinearCost.fit`."""
        return [(rule, place, line.calls, line.items, line.fit()) for rule, place, line in self._accounting.costs]


def _is_left(slot: Slot) -> bool:
    """Whether all jobs of a slot have ended, though a call still runs."""
    return slot.is_abandoned and all(job.done() for job in slot.prefetched)
