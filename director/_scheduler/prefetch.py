"""Jobs that slots hold before their turn, for runners that can have a call ready when the one before it ends.

Part of the decision: called by `scheduler` under its lock. Such a job is RUNNING and has not begun. It goes back into
the queue, to its own place, when another slot is free first, so that binding stays late where it matters.
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
    from director._scheduler.placement import FreeSlots
    from director._scheduler.queue.ready_queue import ReadyQueue
    from director._scheduler.wakeups import Wakeups

_QUEUED, _RUNNING = JobState.QUEUED, JobState.RUNNING


class Prefetch:
    """Hands out jobs ahead of their turn and takes them back.

    Args:
        slots: All of them.
        free: Those that could take a job.
        queue: What waits.
        waking: Knows which slots suit a lane, and who is on the way.
        warm: Tells the numbers of the slots on which a model is loaded.
    """

    __slots__ = ("_free", "_queue", "_slots", "_waking", "_warm", "count")

    def __init__(
        self,
        slots: list[Slot],
        free: FreeSlots,
        queue: ReadyQueue,
        waking: Wakeups,
        warm: Callable[[Model[Any]], frozenset[int]],
    ) -> None:
        self._slots = slots
        self._free = free
        self._queue = queue
        self._waking = waking
        self._warm = warm
        self.count = 0  # in all slots

    @property
    def is_short(self) -> bool:
        """Whether a slot is free, or about to be, for what waits; or a burst ends: whoever is free first gets it."""
        free = self._free
        return bool(free.parked or free.idle or self._waking.on_the_way or self._queue.live() < len(self._slots))

    def take(self, slot: Slot, now: float) -> ScheduledJob[Any] | None:
        """One more job for a slot that WORKS; none while they are scarce."""
        queue = self._queue
        if self.is_short:
            return None
        if not slot.is_open or slot.batch is not None or slot.usage is not None:
            return None
        job = self._front_of_rich(slot, now) if queue.has_lanes else self._front_of_plain()
        if job is not None:
            slot.prefetched.append(job)
            self.count += 1
            job.state = _RUNNING
            if queue.has_lanes:
                queue.left(job)
            else:
                queue.fifo.live -= 1
                queue.fifo.jobs.popleft()
            job.location = slot
        return job

    def next_for(self, slot: Slot) -> ScheduledJob[Any]:
        """The turn of the first job that `slot` holds has come; it may be over by now."""
        self.count -= 1
        return slot.prefetched.popleft()

    def give_back(self, slot: Slot, jobs: Iterable[ScheduledJob[Any]]) -> None:
        """Put jobs that `slot` holds into the queue again, but for those that are over."""
        for job in jobs:
            if job.state is _RUNNING:
                self._push(job)  # first, so that at any moment either the queue has it or the slot
                job.transition(_QUEUED)
            slot.prefetched.remove(job)
            self.count -= 1

    def end(self, job: ScheduledJob[Any], state: JobState) -> bool:
        """Move a job that a slot holds, else False: here, for `give_back` could meet whoever moves it elsewhere."""
        slot = job.location
        if job.state is not _RUNNING or not isinstance(slot, Slot) or job not in slot.prefetched:
            return False
        job.transition(state)
        return True

    def recall(self) -> None:
        """Without the lock: have all runners give back what they hold, for a job is to be served before it."""
        for slot in self._slots:
            if slot.prefetched:
                slot.recall()

    def repair(self) -> None:
        """Count anew what slots hold: not what has gone back."""
        for slot in self._slots:
            slot.prefetched = deque(job for job in slot.prefetched if job.state is not _QUEUED)
            for job in slot.prefetched:
                job.location = slot
        self.count = sum(len(slot.prefetched) for slot in self._slots)

    def forget(self, slot: Slot) -> None:
        """A worker has failed; its jobs were told."""
        self.count -= len(slot.prefetched)
        slot.prefetched.clear()

    def live(self) -> int:
        """Jobs in all slots that are not over."""
        return sum(job.state is _RUNNING for slot in self._slots for job in slot.prefetched)

    def biggest_holder(self, slot: Slot) -> Slot | None:
        """Who holds most of what `slot`, which finds nothing else, could run right now."""
        holders = [other for other in self._slots if other.prefetched and self._may_run(slot, other.prefetched[-1])]
        return max(holders, key=lambda other: len(other.prefetched), default=None)

    def _front_of_plain(self) -> ScheduledJob[Any] | None:
        jobs = self._queue.fifo.jobs
        while jobs and jobs[0].state is not _QUEUED:
            self._queue.discarded.append(jobs.popleft())
        return jobs[0] if jobs and _is_simple(jobs[0]) else None

    def _front_of_rich(self, slot: Slot, now: float) -> ScheduledJob[Any] | None:
        queue = self._queue
        job = queue.front(self._waking.suits, slot, now)
        if job is None or queue.tenants.known or not _is_simple(job) or not self._may_run(slot, job):
            return None
        popped = queue.pop(self._waking.suits, slot, now)
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
        plain.live += 1
        plain.jobs.insert(at, job)

    def _may_run(self, slot: Slot, job: ScheduledJob[Any]) -> bool:
        """Whether it may, and without loading a model first: that takes longer than waiting for one's turn."""
        allowed, model = job.options.allowed, job.options.model
        return (allowed is None or slot.number in allowed) and (model is None or slot.number in self._warm(model))


def _is_simple(job: ScheduledJob[Any]) -> bool:
    """One call, which nobody times, and which is made where the slot makes its calls."""
    options = job.options
    return not options.timed and options.batch_rule is None and not issubclass(type(job.fn), (LocalCall, StreamCall))
