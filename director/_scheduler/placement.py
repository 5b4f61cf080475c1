"""Which device: most free slots first, ties in rotation. Guarded by `scheduler`'s lock; wakes no worker.

Devices are in buckets by their number of free slots. A device whose number changes goes to the end of its new bucket,
so the first of a bucket has been unchanged longest, and a pick is O(1) whatever the number of devices.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from director._jobs.state import JobState
from director._scheduler.memory.memory import Verdict
from director._scheduler.slots import SlotState
from director.errors import DeviceLost

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable, Iterator

    from director._jobs.job import ScheduledJob
    from director._scheduler.queue.lane import Lane
    from director._scheduler.queue.ready_queue import FifoQueue, ReadyQueue
    from director._scheduler.slots import DeviceSlots, Slot

    Jobs: TypeAlias = "deque[ScheduledJob[Any]] | list[ScheduledJob[Any]]"

_NOWHERE: frozenset[int] = frozenset()
_BY_MEMORY = tuple(Verdict)
_NO = _BY_MEMORY.index(Verdict.NO)
_IDLE, _PARKED = SlotState.IDLE, SlotState.PARKED


class FreeSlots:
    """The slots that could take a job now: idle ones without a worker, and parked ones whose worker waits to be woken.

    The slots of a closed device are in none of the buckets and counts.

    Args:
        places: All devices of a Director, every slot idle.
    """

    __slots__ = ("_buckets", "_top", "idle", "parked")

    def __init__(self, places: list[DeviceSlots]) -> None:
        self.recount(places)

    def recount(self, places: list[DeviceSlots]) -> None:
        """Find the free slots by their states."""
        self._buckets: list[dict[DeviceSlots, None]] = [{} for _ in range(1 + max(len(p.slots) for p in places))]
        self._top = len(self._buckets) - 1
        self.idle = self.parked = 0
        for place in places:
            place.idle = [slot for slot in reversed(place.slots) if slot.state is _IDLE]
            place.parked = [slot for slot in place.slots if slot.state is _PARKED]
            place.free = len(place.idle) + len(place.parked)
            if place.slots[0].is_open:
                self._buckets[place.free][place] = None
                self.idle += len(place.idle)
                self.parked += len(place.parked)

    def add(self, place: DeviceSlots) -> None:
        """A device has joined, every slot idle."""
        self._buckets.extend({} for _ in range(1 + len(place.slots) - len(self._buckets)))
        self._buckets[place.free][place] = None
        self._top = max(self._top, place.free)
        self.idle += place.free

    def park(self, slot: Slot) -> None:
        """A worker found no job and waits to be woken."""
        slot.place.parked.append(slot)
        self.parked += slot.is_open
        self._move(slot.place, 1)

    def mark_idle(self, slot: Slot) -> None:
        """The worker of a slot has ended."""
        slot.place.idle.append(slot)
        self.idle += slot.is_open
        self._move(slot.place, 1)

    def claim(self, slot: Slot) -> None:
        """The slot is not free any more: it is woken or started, or its worker ends."""
        if slot.state is _PARKED:
            slot.place.parked.remove(slot)
            self.parked -= slot.is_open
        else:
            slot.place.idle.remove(slot)
            self.idle -= slot.is_open
        self._move(slot.place, -1)

    def close(self, place: DeviceSlots) -> None:
        """Offer the slots of an open device no more."""
        del self._buckets[place.free][place]
        self.idle -= len(place.idle)
        self.parked -= len(place.parked)
        for slot in place.slots:
            slot.is_open = False

    def reopen(self, place: DeviceSlots) -> None:
        """Offer the slots of a closed device again."""
        for slot in place.slots:
            slot.is_open = True
        self.idle += len(place.idle)
        self.parked += len(place.parked)
        self._buckets[place.free][place] = None
        self._top = max(self._top, place.free)

    def pick(
        self, allowed: frozenset[int] | None = None, resident: frozenset[int] = _NOWHERE, only: SlotState | None = None
    ) -> Slot | None:
        """The free slot that the next job of a lane should go to, or `None`.

        Args:
            allowed: Numbers of the slots that may run it; `None` for all.
            resident: Numbers of the slots on which its model is loaded: preferred whatever their load.
            only: `PARKED` or `IDLE`: consider no others.
        """
        if allowed is None and not resident and only is None:  # the usual case
            top = self._highest()
            place = next(iter(self._buckets[top])) if top else None
            return None if place is None else place.parked[-1] if place.parked else place.idle[-1]
        other = None
        for place in self._most_free_first():
            for slot in self._of(place, only):
                if allowed is not None and slot.number not in allowed:
                    continue
                if not resident or slot.number in resident:
                    return slot
                other = other or slot
        return other

    def pick_for(
        self, verdict_on: Callable[[Slot], Verdict], are_alike: bool, only: SlotState | None = None
    ) -> Slot | None:
        """The free slot that the next job of a lane should go to by memory: ready before those that load, then evict.

        Args:
            verdict_on: Whether a slot may take it.
            are_alike: What is said of one slot is true of all of its device.
            only: `PARKED` or `IDLE`: consider no others.
        """
        best: tuple[int, Slot] | None = None
        for place in self._most_free_first():
            for slot in self._of(place, only):
                at = _BY_MEMORY.index(verdict_on(slot))
                if at < _NO and (best is None or at < best[0]):
                    best = at, slot
                    if not at:
                        return slot
                if are_alike:
                    break
        return None if best is None else best[1]

    def slots(self) -> list[Slot]:
        """All of them."""
        return [slot for place in self._most_free_first() for slot in self._of(place, None)]

    def _highest(self) -> int:
        """The highest number of free slots on a device."""
        buckets = self._buckets
        while self._top and not buckets[self._top]:
            self._top -= 1
        return self._top

    def _most_free_first(self) -> Iterator[DeviceSlots]:
        for free in range(self._highest(), 0, -1):
            yield from self._buckets[free]

    @staticmethod
    def _of(place: DeviceSlots, only: SlotState | None) -> Iterator[Slot]:
        """Free slots of a device, parked ones first."""
        if only is not _IDLE:
            yield from reversed(place.parked)
        if only is not _PARKED:
            yield from reversed(place.idle)

    def _move(self, place: DeviceSlots, by: int) -> None:
        """One slot of `place` more or less is free: put it at the end of its new bucket."""
        buckets = self._buckets
        if not place.slots[0].is_open:
            place.free += by
            return
        del buckets[place.free][place]
        place.free = free = place.free + by
        buckets[free][place] = None
        if free > self._top:
            self._top = free


def subtract(coming: dict[Slot, None], lane: Lane | FifoQueue) -> int:
    """Take from `coming` the slots that will serve `lane`; returns how many."""
    able = [slot for slot in coming if slot.is_open and (lane.allowed is None or slot.number in lane.allowed)]
    serving = able[: lane.calls]
    for slot in serving:
        del coming[slot]
    return len(serving)


class ClosedDevices:
    """Closes devices and opens them again."""

    __slots__ = ("_all", "_free", "_is_paused", "_queue", "_slots", "closed")

    def __init__(self, slots: list[Slot], free: FreeSlots, queue: ReadyQueue) -> None:
        self._slots = slots
        self._free = free
        self._queue = queue
        self._all = frozenset(slot.number for slot in slots)
        self.closed: frozenset[int] = frozenset()  # numbers of slots
        self._is_paused = False

    def add(self, place: DeviceSlots) -> None:
        """A device has joined."""
        self._all |= {slot.number for slot in place.slots}

    def close(self, into: Jobs, place: DeviceSlots) -> None:
        """Give a device no more work, and fail the jobs that only closed devices could run. May be repeated."""
        if place.slots[0].is_open:
            self._free.close(place)
        self.closed |= {slot.number for slot in place.slots}
        self.fail_unrunnable(into, frozenset(), float("inf"))

    def fail_unrunnable(self, into: Jobs, unable: frozenset[int], before: float) -> None:
        """Add the jobs submitted until `before` that only closed or `unable` slots could run to `into`, as FAILED.

        All are added before the first is moved, so that the caller has them if a signal handler raises in between.
        """
        out = self.closed | unable
        unrunnable = [job for job in self._queue if job.submitted_at <= before and not self.can_run(job, out)]
        into.extend(unrunnable)
        for job in unrunnable:
            job.transition(JobState.FAILED)
            self._queue.left(job)

    def reopen(self, place: DeviceSlots) -> None:
        """Give a closed device work again."""
        self.closed -= {slot.number for slot in place.slots}
        self._reopen(place)

    def lend(self, place: DeviceSlots) -> None:
        """Give a device no work until `take_back`; its jobs wait."""
        place.is_lent = True
        if place.slots[0].is_open:
            self._free.close(place)

    def take_back(self, place: DeviceSlots) -> None:
        """The device is here again."""
        place.is_lent = False
        self._reopen(place)

    def pause(self, places: list[DeviceSlots]) -> None:
        """Give open devices no work for a while; their jobs wait."""
        self._is_paused = True
        for place in places:
            if place.slots[0].is_open:
                self._free.close(place)

    def resume(self, places: list[DeviceSlots]) -> None:
        """The pause is over."""
        self._is_paused = False
        for place in places:
            self._reopen(place)

    def _reopen(self, place: DeviceSlots) -> None:
        if self._gets_work(place) and not place.slots[0].is_open:
            self._free.reopen(place)

    def _gets_work(self, place: DeviceSlots) -> bool:
        return not (self._is_paused or place.is_lent or place.slots[0].number in self.closed)

    def repair(self) -> None:
        """Set `is_open` of all slots from what closes them."""
        self._all = frozenset(slot.number for slot in self._slots)
        for slot in self._slots:
            slot.is_open = self._gets_work(slot.place)

    def open_slots(self) -> frozenset[int]:
        """Numbers of the slots that get work."""
        return self._all - self.closed

    def check(self, job: ScheduledJob[Any]) -> None:
        """Refuse a job that only closed devices could run.

        Raises:
            DeviceLost: One of these devices.
        """
        if not self.can_run(job, self.closed):
            raise DeviceLost(self._slots[min(job.options.allowed or self._all)].device)

    def can_run(self, job: ScheduledJob[Any], out: frozenset[int]) -> bool:
        """Whether a slot that is not in `out` may run it."""
        allowed = job.options.allowed
        return not (self._all if allowed is None else allowed) <= out
