"""Devices that get no work, and the jobs that no other could run. Guarded by `dispatch`'s lock."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from director._core.states import JobState
from director.errors import DeviceLost

if TYPE_CHECKING:
    from collections import deque

    from director._core.job import Job
    from director._core.placement import FreeSlots
    from director._core.queue import ReadyQueue
    from director._core.slot import Place, Slot

    Jobs: TypeAlias = "deque[Job[Any]] | list[Job[Any]]"


class Quarantine:
    """Closes devices and opens them again.

    Args:
        slots: All of them.
        free: Told which to offer.
        queue: What waits.
    """

    __slots__ = ("_all", "_free", "_queue", "_slots", "closed")

    def __init__(self, slots: list[Slot], free: FreeSlots, queue: ReadyQueue) -> None:
        self._slots = slots
        self._free = free
        self._queue = queue
        self._all = frozenset(slot.number for slot in slots)
        self.closed: frozenset[int] = frozenset()  # numbers of slots

    def add(self, place: Place) -> None:
        """A device has joined."""
        self._all |= {slot.number for slot in place.slots}

    def close(self, into: Jobs, place: Place) -> None:
        """Give a device no more work, and strand the jobs that only closed devices could run; it may be closed."""
        if place.slots[0].is_open:
            self._free.close(place)
        self.closed |= {slot.number for slot in place.slots}
        self.strand(into, frozenset(), float("inf"))

    def strand(self, into: Jobs, unable: frozenset[int], before: float) -> None:
        """Add to `into` the jobs that only closed slots or `unable` ones could run, submitted by then; they are FAILED.

        They are added before the first is moved, so that the caller knows them if an exception comes in between.
        """
        out = self.closed | unable
        stranded = [job for job in self._queue if job._submitted <= before and not self.can_run(job, out)]
        into.extend(stranded)
        for job in stranded:
            job._move(JobState.FAILED)
            self._queue.left(job)

    def reopen(self, place: Place) -> None:
        """Give a closed device work again."""
        self._free.reopen(place)
        self.closed -= {slot.number for slot in place.slots}

    def mend(self) -> None:
        """Have the slots say what was decided of their devices."""
        self._all = frozenset(slot.number for slot in self._slots)
        for slot in self._slots:
            slot.is_open = slot.number not in self.closed

    def open_slots(self) -> frozenset[int]:
        """Numbers of the slots that get work."""
        return self._all - self.closed

    def check(self, job: Job[Any]) -> None:
        """Refuse a job that only closed devices could run.

        Raises:
            DeviceLost: One of these devices.
        """
        if not self.can_run(job, self.closed):
            raise DeviceLost(self._slots[min(job._options.allowed or self._all)].device)

    def can_run(self, job: Job[Any], out: frozenset[int]) -> bool:
        """Whether a slot may run it that is not among those which are out."""
        allowed = job._options.allowed
        return not (self._all if allowed is None else allowed) <= out
