"""Queries about the queue and the slots, under the scheduler's lock.

A finalizer or signal handler may call them during a decision: then the job being decided on may be counted wrongly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from director._jobs.state import JobState
from director._scheduler.exclusive import Exclusive
from director._scheduler.slots import SlotState

if TYPE_CHECKING:
    from collections.abc import Callable

    from director._jobs.job import ScheduledJob
    from director._jobs.model import Model
    from director._jobs.options import BatchRule
    from director._scheduler.accounting import Accounting
    from director._scheduler.costs import LinearCost
    from director._scheduler.placement import ClosedDevices
    from director._scheduler.prefetch import Prefetch
    from director._scheduler.queue.ready_queue import ReadyQueue, RetryWaiting
    from director._scheduler.slots import DeviceSlots, Slot

_QUEUED = JobState.QUEUED
_RESTING = (SlotState.IDLE, SlotState.WAITING_FOR_OTHERS, SlotState.BACKING_OFF)


class Introspection(Exclusive):
    """The queries of `Scheduler`, which sets the attributes."""

    slots: list[Slot]
    prefetched: Prefetch
    _queue: ReadyQueue
    _accounting: Accounting
    _deferred: RetryWaiting
    _closed_devices: ClosedDevices
    _resident: Callable[[Model[Any]], frozenset[int]]

    def waiting(self) -> int:
        """How many jobs wait, in the queue or prefetched by a slot."""
        with self._lock:
            return self._queue.count_waiting() + self.prefetched.count_waiting() + len(self._deferred.jobs)

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

    def is_resident(self, model: Model[Any]) -> bool:
        """Whether any slot has `model` loaded."""
        return bool(self._resident(model))

    def open_slots(self) -> frozenset[int]:
        """Numbers of the slots whose devices get work."""
        return self._closed_devices.open_slots()

    def is_idle(self) -> bool:
        """Whether nothing waits and no slot has a worker that could have a job."""
        with self._lock:
            idle = not self._queue.count_waiting() and not self._deferred.jobs
            return idle and all(slot.state in _RESTING for slot in self.slots)

    def costs(self) -> list[tuple[BatchRule, DeviceSlots, LinearCost]]:
        """What calls cost, by function and device; not to be modified."""
        with self._lock:
            return list(self._accounting.costs)
