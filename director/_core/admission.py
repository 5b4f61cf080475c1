"""Who is let in: bounds on what waits, and deadlines that can't be met. Called under `dispatch`'s lock."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from director._core.states import SlotState
from director.errors import DeadlineUnreachable, QueueFull

if TYPE_CHECKING:
    from director._core.costs import Costs
    from director._core.job import Job
    from director._core.policy import Policy
    from director._core.queue import ReadyQueue
    from director._core.slot import Slot

_FREE = (SlotState.IDLE, SlotState.PARKED)


class Admission:
    """Refuses jobs.

    Args:
        policy: The bounds.
        queue: What waits.
        slots: What runs it.
        coming: Slots on their way to take work.
        costs: What calls cost.
    """

    __slots__ = ("_coming", "_costs", "_policy", "_queue", "_slots", "bound", "bounds_tenants", "predicts")

    def __init__(
        self, policy: Policy, queue: ReadyQueue, slots: list[Slot], coming: dict[Slot, None], costs: Costs
    ) -> None:
        self.bound = math.inf if policy.max_queue is None else policy.max_queue
        self.bounds_tenants = policy.max_queue_per_tenant is not None
        self.predicts = policy.predict
        self._policy = policy
        self._queue = queue
        self._slots = slots
        self._coming = coming
        self._costs = costs

    def check_room(self, job: Job[Any]) -> None:
        """Refuse `job` if it would be one too many; what free slots are about to take does not count as waiting.

        Raises:
            QueueFull: By the bound of all, or of its tenant.
        """
        about_to_run = self._free(job) + len(self._coming)
        waiting = self._queue.live() - about_to_run
        if waiting >= self.bound:
            raise QueueFull(int(self.bound), waiting, self.seconds_for(waiting))
        tenant = job._options.tenant
        bound = self._policy.bound_of(tenant)
        if bound is None:
            return
        known = self._queue.tenants.get(tenant)
        own = 0 if known is None else known.waiting
        if own - about_to_run >= bound:
            raise QueueFull(bound, own, self.seconds_for(own), tenant)

    def check_deadline(self, job: Job[Any]) -> None:
        """Refuse `job` if it would miss its deadline, as far as anything is known.

        Raises:
            DeadlineUnreachable: With the prediction.
        """
        deadline = job._options.deadline
        pace = self._pace(job)
        if deadline is None or not pace:
            return
        ahead = 0 if self._free(job) else self._queue.ahead_of(job._options.priority) + 1
        predicted = ahead / pace + self._own_seconds(job)
        if predicted > deadline:
            raise DeadlineUnreachable(deadline, predicted)

    def seconds_for(self, waiting: int) -> float | None:
        """Seconds that so many jobs need at the measured pace of the slots."""
        pace = self._pace(None)
        return waiting / pace if pace else None

    def _free(self, job: Job[Any]) -> int:
        """Free slots that may run it."""
        allowed = job._options.allowed
        return sum(
            slot.state in _FREE and slot.is_open and (allowed is None or slot.number in allowed) for slot in self._slots
        )

    def _pace(self, job: Job[Any] | None) -> float:
        """Jobs a second that the slots (which may run `job`) do when they are busy; 0 while nothing is measured."""
        allowed = None if job is None else job._options.allowed
        slots = self._slots if allowed is None else [self._slots[number] for number in allowed]
        return sum(slot.jobs / slot.busy_seconds for slot in slots if slot.busy_seconds and slot.is_open)

    def _own_seconds(self, job: Job[Any]) -> float:
        rule = job._options.batch
        if rule is not None:
            return self._costs.least_seconds(rule, 1)
        busy, jobs = sum(slot.busy_seconds for slot in self._slots), sum(slot.jobs for slot in self._slots)
        return busy / jobs
