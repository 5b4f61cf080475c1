"""Refuses jobs: bounds of the queue, and deadlines that can't be met. Called under `scheduler`'s lock."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from director._scheduler.slots import SlotState
from director.errors import DeadlineUnreachable, QueueFull

if TYPE_CHECKING:
    from director._jobs.job import ScheduledJob
    from director._scheduler.costs import CostModel
    from director._scheduler.policy import SchedulingPolicy
    from director._scheduler.queue.ready_queue import ReadyQueue
    from director._scheduler.slots import Slot

_FREE = (SlotState.IDLE, SlotState.PARKED)


class Admission:
    """Refuses jobs."""

    __slots__ = ("_coming", "_costs", "_policy", "_queue", "_slots", "bound", "bounds_tenants", "predicts")

    def __init__(
        self, policy: SchedulingPolicy, queue: ReadyQueue, slots: list[Slot], coming: dict[Slot, None], costs: CostModel
    ) -> None:
        self.bound = math.inf if policy.max_queue is None else policy.max_queue
        self.bounds_tenants = policy.max_queue_per_tenant is not None
        self.predicts = policy.predict
        self._policy = policy
        self._queue = queue
        self._slots = slots
        self._coming = coming
        self._costs = costs

    def check_room(self, job: ScheduledJob[Any]) -> None:
        """Refuse `job` if the queue is full; jobs that free slots are about to take do not count as waiting.

        Raises:
            QueueFull: By the bound of the queue, or of the job's tenant.
        """
        about_to_run = self._free(job) + len(self._coming)
        waiting = self._queue.count_waiting() - about_to_run
        if waiting >= self.bound:
            raise QueueFull(int(self.bound), waiting, self.seconds_for(waiting))
        account = job.options.account
        bound = self._policy.bound_of(account)
        if bound is None:
            return
        known = self._queue.tenants.get(account)
        own = 0 if known is None else known.waiting
        if own - about_to_run >= bound:
            raise QueueFull(bound, own, self.seconds_for(own), job.options.tenant)

    def check_deadline(self, job: ScheduledJob[Any]) -> None:
        """Refuse `job` if it would miss its deadline by the measured speed of the slots.

        No job is refused while a slot is free for it: the measurements may be old, and only calls renew them.

        Raises:
            DeadlineUnreachable: With the prediction.
        """
        deadline = job.options.deadline
        if deadline is None or self._free(job):
            return
        open_slots = [slot for slot in self._slots if slot.is_open]
        pace, each = _pace(self._able(job, open_slots))
        if not pace:
            return
        ahead = self._queue.ahead_of(job, frozenset(slot.number for slot in open_slots)) + 1
        rule = job.options.batch_rule
        predicted = ahead / pace + (each if rule is None else self._costs.least_seconds(rule, 1))
        if predicted > deadline:
            raise DeadlineUnreachable(deadline, predicted)

    def seconds_for(self, waiting: int) -> float | None:
        """Seconds that so many jobs take at the measured speed of the slots; `None` if that is unknown."""
        pace, _ = _pace([slot for slot in self._slots if slot.is_open])
        return waiting / pace if pace else None

    def _free(self, job: ScheduledJob[Any]) -> int:
        """Free slots that may run it."""
        return sum(slot.state in _FREE and slot.is_open for slot in self._able(job, self._slots))

    @staticmethod
    def _able(job: ScheduledJob[Any], slots: list[Slot]) -> list[Slot]:
        allowed = job.options.allowed
        return slots if allowed is None else [slot for slot in slots if slot.number in allowed]


def _pace(slots: list[Slot]) -> tuple[float, float]:
    """Jobs per second of all `slots` when busy, and seconds of one job; zeros if nothing is known.

    Slots that have done nothing yet count as average.
    """
    paces = [pace for slot in slots if (pace := slot.pace())]
    if not paces:
        return 0.0, 0.0
    mean = sum(paces) / len(paces)
    return mean * len(slots), 1 / mean
