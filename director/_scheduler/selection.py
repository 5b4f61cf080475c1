"""What a slot is given when the queue has lanes: the next job, and the jobs that share its call.

Called by `scheduler` under its lock. What has to be called without the lock is returned as a `WakeCall`.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from director._jobs.state import JobState
from director._scheduler.batching import form_batch
from director._scheduler.memory.memory import Verdict
from director._scheduler.queue.batch_group import BatchGroup

if TYPE_CHECKING:
    from collections.abc import Callable

    from director._jobs.job import ScheduledJob
    from director._jobs.model import Model
    from director._scheduler.costs import Accounting
    from director._scheduler.memory.memory import Memory
    from director._scheduler.queue.lane import Lane
    from director._scheduler.queue.priority_queue import Rank
    from director._scheduler.queue.ready_queue import ReadyQueue
    from director._scheduler.slots import Slot
    from director._scheduler.wakeups import WakeCall, Wakeups

_RUNNING = JobState.RUNNING
_NEVER = float("inf")


class Selection:
    """Hands out jobs and batches, and holds groups back for fuller ones."""

    __slots__ = (
        "_accounting",
        "_may_hold",
        "_memory",
        "_queue",
        "_resident",
        "_schedule_flush",
        "_timer_at",
        "_wakeups",
    )

    def __init__(
        self,
        queue: ReadyQueue,
        accounting: Accounting,
        memory: Memory,
        wakeups: Wakeups,
        resident: Callable[[Model[Any]], frozenset[int]],
        schedule_flush: Callable[[float], None],
    ) -> None:
        self._queue = queue
        self._accounting = accounting
        self._memory = memory
        self._wakeups = wakeups
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

    def next_job(self, slot: Slot, now: float) -> tuple[ScheduledJob[Any] | None, WakeCall]:
        """Take the next job for `slot` out of its lane, RUNNING, with the rest of its batch in `slot.batch`.

        Without one, `slot.unloads` may have models that its thread unloads first.
        """
        self.settle(slot, now)
        queue, accounting, memory, suits = self._queue, self._accounting, self._memory, self._wakeups.suits
        if queue.flush_timers.entries:
            self._check_due(now)
        if memory.is_used:
            memory.refresh()
            if self._find_unloads(slot):
                return None, self._request_timer()
        while True:
            lane = self._lane_by_residency(slot, now) if memory.is_used else queue.first_lane(suits, slot, now)
            if lane is None:
                break
            job = lane.pop(now)
            assert job is not None, "a lane counts jobs that it does not have"
            batch = self._begin(job, slot, now)
            if batch is None:
                continue
            if lane.is_managed:
                memory.begin(lane, slot, now)
            if accounting.counts(job):
                accounting.open(slot, batch, self._is_resident(job, slot), now)
            return batch[0], self._request_timer() if queue.flush_timers.entries else None
        if not (accounting.unsettled or memory.unsettled):
            queue.switch_to_fifo()
        return None, self._request_timer()

    def settle(self, slot: Slot, now: float) -> None:
        """The last call of `slot` is over."""
        slot.batch = None
        if slot.usage is not None:
            self._accounting.settle(slot)
        if self._memory.unsettled:
            self._memory.settle(slot, now)

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

    def _find_unloads(self, slot: Slot) -> bool:
        slot.unloads = self._memory.take_unloads(slot)
        return bool(slot.unloads)

    def _lane_by_residency(self, slot: Slot, now: float) -> Lane | None:
        """The lane that `slot` serves next: one that needs no load here, unless another goes first.

        `None` also if `slot` has to unload something first.
        """
        memory, verdict_on = self._memory, self._wakeups.verdict
        while True:
            ready, others = self._ready_and_others(slot, now)
            goes_first = None if ready is None else memory.before(*ready, slot, now)
            chosen: tuple[Rank, Lane, Verdict] | None = None
            for rank, lane in others:
                if (chosen is None or rank < chosen[0]) and (goes_first is None or goes_first(rank, lane)):
                    verdict = verdict_on(lane, slot)
                    if verdict is not Verdict.NO:
                        chosen = rank, lane, verdict
            if chosen is None:
                return None if ready is None else ready[1]
            if chosen[2] is Verdict.LOAD:
                return chosen[1]
            memory.make_room(chosen[1], slot)
            if self._find_unloads(slot):
                return None

    def _ready_and_others(self, slot: Slot, now: float) -> tuple[tuple[Rank, Lane] | None, list[tuple[Rank, Lane]]]:
        """The first of the lanes that `slot` could serve at once, and those that need a load, or room."""
        ready: tuple[Rank, Lane] | None = None
        others: list[tuple[Rank, Lane]] = []
        for lane in self._queue.lanes():
            if lane.is_managed:
                is_here = lane.known is None or slot.number in lane.known.serving
                verdict = self._memory.verdict(lane, slot) if is_here else Verdict.LOAD
            else:
                verdict = Verdict.READY if lane.key is None or self._wakeups.suits(lane, slot) else Verdict.NO
            if verdict is Verdict.NO or (front := lane.peek(now)) is None:
                continue
            if verdict is not Verdict.READY:
                others.append((front[0], lane))
            elif ready is None or front[0] < ready[0]:
                ready = front[0], lane
        return ready, others

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
