"""What a slot is given when the queue has lanes: the next job, and the jobs that share its call.

Called by `scheduler` under its lock. What has to be called without the lock is returned as a `WakeCall`.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from director._jobs.state import JobState
from director._scheduler.batching import form_batch
from director._scheduler.queue.batch_group import BatchGroup

if TYPE_CHECKING:
    from collections.abc import Callable

    from director._jobs.job import ScheduledJob
    from director._jobs.model import Model
    from director._scheduler.accounting import Accounting
    from director._scheduler.queue.lane import Lane
    from director._scheduler.queue.ready_queue import FifoQueue, ReadyQueue
    from director._scheduler.slots import Slot
    from director._scheduler.wakeups import WakeCall

_RUNNING = JobState.RUNNING
_NEVER = float("inf")


class Selection:
    """Hands out jobs and batches, and holds groups back for fuller ones.

    Args:
        queue: What waits.
        accounting: Charged with what starts.
        resident: Tells the numbers of the slots on which a model is loaded.
        schedule_flush: Thread-safe; has `Scheduler.flush_due` called at a time.
    """

    __slots__ = ("_accounting", "_may_hold", "_queue", "_resident", "_schedule_flush", "_timer_at")

    def __init__(
        self,
        queue: ReadyQueue,
        accounting: Accounting,
        resident: Callable[[Model[Any]], frozenset[int]],
        schedule_flush: Callable[[float], None],
    ) -> None:
        self._queue = queue
        self._accounting = accounting
        self._resident = resident
        self._schedule_flush = schedule_flush
        self._timer_at = _NEVER  # the earliest flush that was scheduled
        self._may_hold = True

    def push(self, job: ScheduledJob[Any], now: float) -> WakeCall:
        """Queue a job in its lane."""
        held = self._queue.push(job)
        if held is None:
            return None
        self._check(held, now)
        return self._request_timer()

    def next_job(
        self, slot: Slot, suits: Callable[[Lane | FifoQueue, Slot], bool], now: float
    ) -> tuple[ScheduledJob[Any] | None, WakeCall]:
        """Take the next job for `slot` out of its lane, RUNNING, with the rest of its batch in `slot.batch`."""
        self.settle(slot)
        queue, accounting = self._queue, self._accounting
        if queue.flush_timers.entries:
            self._check_due(now)
        while (job := queue.pop(suits, slot, now)) is not None:
            batch = self._begin(job, slot, now)
            if batch is None:
                continue
            if accounting.counts(job):
                accounting.open(slot, batch, self._is_resident(job, slot), now)
            return batch[0], self._request_timer() if queue.flush_timers.entries else None
        if not accounting.unsettled:
            queue.switch_to_fifo()
        return None, self._request_timer()

    def settle(self, slot: Slot) -> None:
        """The last call of `slot` is over."""
        slot.batch = None
        if slot.usage is not None:
            self._accounting.settle(slot)

    def flush_due(self, now: float) -> WakeCall:
        """Release the held groups that are due."""
        self._timer_at = _NEVER
        self._check_due(now)
        return self._request_timer()

    def release_all(self) -> None:
        """Release all held groups, and hold none from now on."""
        self._may_hold = False
        for group in self._queue.held():
            group.release()

    def repair(self, now: float) -> None:
        """Set the timers of all held groups again."""
        self._timer_at = _NEVER
        for group in self._queue.held():
            self._check(group, now)

    def wake_again(self) -> None:
        """Schedule the next flush again."""
        if (due := self._queue.flush_timers.next_due()) < _NEVER:
            self._schedule_flush(due)

    def _begin(self, job: ScheduledJob[Any], slot: Slot, now: float) -> list[ScheduledJob[Any]] | None:
        """Start `job` with its batch, or fail it if it would miss its deadline."""
        group = job.location
        if isinstance(group, BatchGroup):
            return self._begin_batch(job, group, slot, now)
        slot.job = job  # first: at any time either the queue has it or the slot
        job.state = _RUNNING  # from QUEUED: the queue hands out no other
        self._queue.left(job)
        job.location = slot
        return [job]

    def _begin_batch(
        self, first: ScheduledJob[Any], group: BatchGroup, slot: Slot, now: float
    ) -> list[ScheduledJob[Any]] | None:
        rule, accounting = group.rule, self._accounting
        most = accounting.limits.most(rule, group.key[1], slot.place)
        jobs, late = form_batch(first, group, partial(accounting.costs.line, rule, slot.place, now), now, most)
        slot.missed_deadline += late
        if jobs:
            slot.job, slot.batch = jobs[0], jobs
        self._queue.left_together(group, jobs + late if late else jobs)
        if not jobs:
            return None
        for job in jobs:
            job.location = slot
        if rule.max_wait and 0 < group.waiting < rule.max_size and self._may_hold:
            self._hold_rest(group, now)
        return jobs

    def _hold_rest(self, group: BatchGroup, now: float) -> None:
        """Hold what is left after a batch too, if it may wait longer."""
        due = group.flush_at(self._accounting.costs)
        if due > now:
            group.hold()
            self._queue.flush_timers.set(group, due)

    def _is_resident(self, job: ScheduledJob[Any], slot: Slot) -> bool:
        model = job.options.model
        return model is None or slot.number in self._resident(model)

    def _check_due(self, now: float) -> None:
        for group in self._queue.flush_timers.take_due(now):
            self._check(group, now)

    def _check(self, group: BatchGroup, now: float) -> None:
        """Release a held group if it is due, else set its timer."""
        due = group.flush_at(self._accounting.costs)
        if due <= now or not self._may_hold:
            group.release()
        else:
            self._queue.flush_timers.set(group, due)

    def _request_timer(self) -> WakeCall:
        """Schedules the next flush, unless one that early is scheduled already."""
        due = self._queue.flush_timers.next_due()
        if due >= self._timer_at:
            return None
        self._timer_at = due
        return partial(self._schedule_flush, due)
