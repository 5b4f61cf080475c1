"""What a slot is given when the queue holds more than plain jobs: whose turn it is, and who shares the call.

Part of the decision: called by `dispatch` under its lock. What has to happen outside comes back as a `Ring`.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from director._jobs.state import JobState
from director._scheduler.batching import form
from director._scheduler.queue.batch_group import Group

if TYPE_CHECKING:
    from collections.abc import Callable

    from director._jobs.job import Job
    from director._jobs.model import Model
    from director._scheduler.accounting import Accounts
    from director._scheduler.queue.lane import Lane
    from director._scheduler.queue.ready_queue import Plain, ReadyQueue
    from director._scheduler.slots import Slot
    from director._scheduler.wakeups import Ring

_RUNNING = JobState.RUNNING
_NEVER = float("inf")


class Service:
    """Hands out jobs and batches, and holds groups back for fuller ones.

    Args:
        queue: What waits.
        accounts: Charged with what starts.
        warm: Tells the numbers of the slots on which a model is loaded.
        ripen_at: Thread-safe; asks for a call of `Dispatch.ripen` at a moment.
    """

    __slots__ = ("_accounts", "_alarm_at", "_holds", "_queue", "_ripen_at", "_warm")

    def __init__(
        self,
        queue: ReadyQueue,
        accounts: Accounts,
        warm: Callable[[Model[Any]], frozenset[int]],
        ripen_at: Callable[[float], None],
    ) -> None:
        self._queue = queue
        self._accounts = accounts
        self._warm = warm
        self._ripen_at = ripen_at
        self._alarm_at = _NEVER  # the next call of `ripen` that was asked for
        self._holds = True

    def push(self, job: Job[Any], now: float) -> Ring:
        """Put a job in the rich queue."""
        held = self._queue.push(job)
        if held is None:
            return None
        self._look_at(held, now)
        return self._alarm()

    def next_for(
        self, slot: Slot, suits: Callable[[Lane | Plain, Slot], bool], now: float
    ) -> tuple[Job[Any] | None, Ring]:
        """Take the next job for `slot` out of the rich queue, RUNNING, and its mates into `slot.mates`."""
        self.settle(slot)
        queue, accounts = self._queue, self._accounts
        if queue.holds.entries:
            self._look_at_due(now)
        while (job := queue.pop(suits, slot, now)) is not None:
            batch = self._begin(job, slot, now)
            if batch is None:
                continue
            if accounts.counts(job):
                accounts.open(slot, batch, self._is_ready(job, slot), now)
            return batch[0], self._alarm() if queue.holds.entries else None
        if not accounts.unsettled:
            queue.rest()
        return None, self._alarm()

    def settle(self, slot: Slot) -> None:
        """The last call of `slot` is over."""
        slot.mates = None
        if slot.charge is not None:
            self._accounts.settle(slot)

    def ripen(self, now: float) -> Ring:
        """Look at the groups that have waited long enough."""
        self._alarm_at = _NEVER
        self._look_at_due(now)
        return self._alarm()

    def let_go(self) -> None:
        """Hold nothing back any more."""
        self._holds = False
        for group in self._queue.held():
            group.release()

    def mend(self, now: float) -> None:
        """Look at all held groups anew."""
        self._alarm_at = _NEVER
        for group in self._queue.held():
            self._look_at(group, now)

    def call_again(self) -> None:
        """Ask for the next look once more."""
        if (moment := self._queue.holds.next_look()) < _NEVER:
            self._ripen_at(moment)

    def _begin(self, job: Job[Any], slot: Slot, now: float) -> list[Job[Any]] | None:
        """Start `job` with its mates, or fail it if it would be too late."""
        group = job._where
        if isinstance(group, Group):
            return self._begin_batch(job, group, slot, now)
        slot.job = job  # first, so that at any moment either the queue has it or the slot
        job._stage = _RUNNING  # from QUEUED: the queue hands out no other
        self._queue.left(job)
        job._where = slot
        return [job]

    def _begin_batch(self, first: Job[Any], group: Group, slot: Slot, now: float) -> list[Job[Any]] | None:
        rule, accounts = group.rule, self._accounts
        most = accounts.limits.most(rule, group.key[1], slot.place)
        jobs, late = form(first, group, partial(accounts.costs.line, rule, slot.place, now), now, most)
        slot.late += late
        if jobs:
            slot.job, slot.mates = jobs[0], jobs
        self._queue.left_together(group, jobs + late if late else jobs)
        if not jobs:
            return None
        for job in jobs:
            job._where = slot
        if rule.max_wait and 0 < group.live < rule.max_size and self._holds:
            self._hold_rest(group, now)
        return jobs

    def _hold_rest(self, group: Group, now: float) -> None:
        """What is left after a batch waits for company too, if it may."""
        moment = group.ripe_at(self._accounts.costs)
        if moment > now:
            group.hold()
            self._queue.holds.look_at(group, moment)

    def _is_ready(self, job: Job[Any], slot: Slot) -> bool:
        model = job._options.model
        return model is None or slot.number in self._warm(model)

    def _look_at_due(self, now: float) -> None:
        for group in self._queue.holds.take_due(now):
            self._look_at(group, now)

    def _look_at(self, group: Group, now: float) -> None:
        """Let go of a held group if it is ripe, else look again when it will be."""
        moment = group.ripe_at(self._accounts.costs)
        if moment <= now or not self._holds:
            group.release()
        else:
            self._queue.holds.look_at(group, moment)

    def _alarm(self) -> Ring:
        """Asks for the next look, unless one that early was asked for already."""
        moment = self._queue.holds.next_look()
        if moment >= self._alarm_at:
            return None
        self._alarm_at = moment
        return partial(self._ripen_at, moment)
