"""What a slot is given when the queue holds more than plain jobs: whose turn it is, and who shares the call.

Part of the decision: called by `scheduler` under its lock. What has to happen outside comes back as a `WakeCall`.
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
        warm: Tells the numbers of the slots on which a model is loaded.
        ripen_at: Thread-safe; asks for a call of `Scheduler.flush_due` at a moment.
    """

    __slots__ = ("_accounting", "_alarm_at", "_flush_timers", "_queue", "_ripen_at", "_warm")

    def __init__(
        self,
        queue: ReadyQueue,
        accounting: Accounting,
        warm: Callable[[Model[Any]], frozenset[int]],
        ripen_at: Callable[[float], None],
    ) -> None:
        self._queue = queue
        self._accounting = accounting
        self._warm = warm
        self._ripen_at = ripen_at
        self._alarm_at = _NEVER  # the next call of `ripen` that was asked for
        self._flush_timers = True

    def push(self, job: ScheduledJob[Any], now: float) -> WakeCall:
        """Put a job in the rich queue."""
        held = self._queue.push(job)
        if held is None:
            return None
        self._look_at(held, now)
        return self._alarm()

    def next_job(
        self, slot: Slot, suits: Callable[[Lane | FifoQueue, Slot], bool], now: float
    ) -> tuple[ScheduledJob[Any] | None, WakeCall]:
        """Take the next job for `slot` out of the rich queue, RUNNING, and its mates into `slot.mates`."""
        self.settle(slot)
        queue, accounting = self._queue, self._accounting
        if queue.holds.entries:
            self._look_at_due(now)
        while (job := queue.pop(suits, slot, now)) is not None:
            batch = self._begin(job, slot, now)
            if batch is None:
                continue
            if accounting.counts(job):
                accounting.open(slot, batch, self._is_ready(job, slot), now)
            return batch[0], self._alarm() if queue.holds.entries else None
        if not accounting.unsettled:
            queue.switch_to_fifo()
        return None, self._alarm()

    def settle(self, slot: Slot) -> None:
        """The last call of `slot` is over."""
        slot.batch = None
        if slot.usage is not None:
            self._accounting.settle(slot)

    def flush_due(self, now: float) -> WakeCall:
        """Look at the groups that have waited long enough."""
        self._alarm_at = _NEVER
        self._look_at_due(now)
        return self._alarm()

    def release_all(self) -> None:
        """Hold nothing back any more."""
        self._flush_timers = False
        for group in self._queue.held():
            group.release()

    def repair(self, now: float) -> None:
        """Look at all held groups anew."""
        self._alarm_at = _NEVER
        for group in self._queue.held():
            self._look_at(group, now)

    def wake_again(self) -> None:
        """Ask for the next look once more."""
        if (moment := self._queue.holds.next_due()) < _NEVER:
            self._ripen_at(moment)

    def _begin(self, job: ScheduledJob[Any], slot: Slot, now: float) -> list[ScheduledJob[Any]] | None:
        """Start `job` with its mates, or fail it if it would be too late."""
        group = job.location
        if isinstance(group, BatchGroup):
            return self._begin_batch(job, group, slot, now)
        slot.job = job  # first, so that at any moment either the queue has it or the slot
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
        if rule.max_wait and 0 < group.live < rule.max_size and self._flush_timers:
            self._hold_rest(group, now)
        return jobs

    def _hold_rest(self, group: BatchGroup, now: float) -> None:
        """What is left after a batch waits for company too, if it may."""
        moment = group.flush_at(self._accounting.costs)
        if moment > now:
            group.hold()
            self._queue.holds.set(group, moment)

    def _is_ready(self, job: ScheduledJob[Any], slot: Slot) -> bool:
        model = job.options.model
        return model is None or slot.number in self._warm(model)

    def _look_at_due(self, now: float) -> None:
        for group in self._queue.holds.take_due(now):
            self._look_at(group, now)

    def _look_at(self, group: BatchGroup, now: float) -> None:
        """Let go of a held group if it is ripe, else look again when it will be."""
        moment = group.flush_at(self._accounting.costs)
        if moment <= now or not self._flush_timers:
            group.release()
        else:
            self._queue.holds.set(group, moment)

    def _alarm(self) -> WakeCall:
        """Asks for the next look, unless one that early was asked for already."""
        moment = self._queue.holds.next_due()
        if moment >= self._alarm_at:
            return None
        self._alarm_at = moment
        return partial(self._ripen_at, moment)
