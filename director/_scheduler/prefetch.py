"""Prefetched jobs: bound to a slot before its call ends, for runners that can have the next call ready.

Called by `scheduler` under its lock. A prefetched job is RUNNING and its call has not begun. When another slot is free
first it returns to its position in the queue, so that jobs are still bound late.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from director._jobs.calls import LocalCall, StreamCall
from director._jobs.state import JobState
from director._scheduler.slots import Slot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from director._jobs.job import ScheduledJob
    from director._jobs.model import Model
    from director._scheduler.memory.memory import Memory
    from director._scheduler.placement import FreeSlots
    from director._scheduler.queue.ready_queue import ReadyQueue
    from director._scheduler.wakeups import Wakeups

_QUEUED, _RUNNING = JobState.QUEUED, JobState.RUNNING


class Prefetch:
    """Hands out prefetched jobs and takes them back."""

    __slots__ = ("_free", "_memory", "_queue", "_resident", "_slots", "_wakeups", "count")

    def __init__(
        self,
        slots: list[Slot],
        free: FreeSlots,
        queue: ReadyQueue,
        wakeups: Wakeups,
        memory: Memory,
        resident: Callable[[Model[Any]], frozenset[int]],
    ) -> None:
        self._slots = slots
        self._free = free
        self._queue = queue
        self._wakeups = wakeups
        self._memory = memory
        self._resident = resident
        self.count = 0  # in all slots

    @property
    def is_short(self) -> bool:
        """Whether jobs are better left to the first free slot: one is free or on its way, or few jobs wait."""
        free = self._free
        return bool(
            free.parked or free.idle or self._wakeups.on_the_way or self._queue.count_waiting() < len(self._slots)
        )

    def take(self, slot: Slot, now: float) -> ScheduledJob[Any] | None:
        """One more job for a slot that is WORKING; `None` while jobs are short."""
        queue = self._queue
        if self.is_short:
            return None
        if not slot.is_open or slot.batch is not None or slot.usage is not None or self._memory.has_charge(slot):
            return None
        job = self._next_of_lanes(slot, now) if queue.has_lanes else self._next_of_fifo()
        if job is not None:
            slot.prefetched.append(job)
            self.count += 1
            job.state = _RUNNING
            if queue.has_lanes:
                queue.left(job)
            else:
                queue.fifo.waiting -= 1
                queue.fifo.jobs.popleft()
            job.location = slot
        return job

    def next_for(self, slot: Slot) -> ScheduledJob[Any]:
        """The first job that `slot` has prefetched; it may have ended since."""
        self.count -= 1
        return slot.prefetched.popleft()

    def give_back(self, slot: Slot, jobs: Iterable[ScheduledJob[Any]]) -> None:
        """Put jobs that `slot` has prefetched into the queue again, but for those that have ended."""
        for job in _still_prefetched(slot, jobs):
            if job.state is _RUNNING:
                self._push(job)  # first: at any time either the queue has it or the slot
                job.transition(_QUEUED)
            slot.prefetched.remove(job)
            self.count -= 1

    def withdraw(self, slot: Slot, jobs: Iterable[ScheduledJob[Any]]) -> None:
        """As `give_back`, but none of them is to run: those that have not ended are FAILED."""
        for job in _still_prefetched(slot, jobs):
            if job.state is _RUNNING:
                job.transition(JobState.FAILED)
            slot.prefetched.remove(job)
            self.count -= 1

    def end(self, job: ScheduledJob[Any], state: JobState) -> bool:
        """Move a prefetched job to `state`, else False; under the lock, so that `give_back` does not run meanwhile."""
        slot = job.location
        if job.state is not _RUNNING or not isinstance(slot, Slot) or job not in slot.prefetched:
            return False
        job.transition(state)
        return True

    def recall(self) -> None:
        """Without the lock: have all runners give back what they have prefetched, for a job of higher priority."""
        for slot in self._slots:
            if slot.prefetched:
                slot.recall()

    def repair(self) -> None:
        """Rebuild what slots have prefetched, without the jobs that have returned to the queue."""
        for slot in self._slots:
            slot.prefetched = deque(job for job in slot.prefetched if job.state is not _QUEUED)
            for job in slot.prefetched:
                job.location = slot
        self.count = sum(len(slot.prefetched) for slot in self._slots)

    def forget(self, slot: Slot) -> None:
        """Drop what a failed worker had prefetched; the caller ends these jobs."""
        self.count -= len(slot.prefetched)
        slot.prefetched.clear()

    def count_waiting(self) -> int:
        """Prefetched jobs that have not ended."""
        return sum(job.state is _RUNNING for slot in self._slots for job in slot.prefetched)

    def biggest_holder(self, slot: Slot) -> Slot | None:
        """The slot that has prefetched most, if `slot`, for which nothing waits, could run its last one now."""
        holders = [other for other in self._slots if other.prefetched and self._may_run(slot, other.prefetched[-1])]
        return max(holders, key=lambda other: len(other.prefetched), default=None)

    def _next_of_fifo(self) -> ScheduledJob[Any] | None:
        jobs = self._queue.fifo.jobs
        while jobs and jobs[0].state is not _QUEUED:
            self._queue.discarded.append(jobs.popleft())
        return jobs[0] if jobs and _is_simple(jobs[0]) else None

    def _next_of_lanes(self, slot: Slot, now: float) -> ScheduledJob[Any] | None:
        queue = self._queue
        job = queue.peek(self._wakeups.suits, slot, now)
        if job is None or queue.tenants.known or not _is_simple(job) or not self._may_run(slot, job):
            return None
        if self._memory.is_used and queue.is_managed(job):
            return None
        popped = queue.pop(self._wakeups.suits, slot, now)
        assert popped is job
        return job

    def _push(self, job: ScheduledJob[Any]) -> None:
        queue = self._queue
        if queue.has_lanes:
            queue.push(job)
            return
        plain = queue.fifo
        at = next((at for at, other in enumerate(plain.jobs) if other.id > job.id), len(plain.jobs))
        job.location = plain
        plain.waiting += 1
        plain.jobs.insert(at, job)

    def _may_run(self, slot: Slot, job: ScheduledJob[Any]) -> bool:
        """Whether `slot` may run it without loading a model first, which would take longer than to wait."""
        allowed, model = job.options.allowed, job.options.model
        return (allowed is None or slot.number in allowed) and (model is None or slot.number in self._resident(model))


def _still_prefetched(slot: Slot, jobs: Iterable[ScheduledJob[Any]]) -> list[ScheduledJob[Any]]:
    """Without jobs that the worker has taken.

    Of one that was cancelled while prefetched it makes no call, and its runner learns of that with the next call.
    """
    return [job for job in jobs if job in slot.prefetched]


def _is_simple(job: ScheduledJob[Any]) -> bool:
    """Whether it is one call of its own, without a time limit, made by the slot's runner."""
    options = job.options
    return not options.timed and options.batch_rule is None and not issubclass(type(job.fn), (LocalCall, StreamCall))
