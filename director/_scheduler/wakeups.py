"""What is woken for waiting work: a parked worker, or the Director, which starts one. Guarded by the scheduler's lock.

Waking is chained: at most one parked worker is on its way at a time, and when it takes its job it calls the next one
while work is left. That costs a burst one wake-up instead of one for each slot, and a lone job nothing.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from director._scheduler.placement import subtract
from director._scheduler.slots import SlotState

if TYPE_CHECKING:
    from collections.abc import Callable

    from director._scheduler.placement import FreeSlots
    from director._scheduler.queue.lane import Lane
    from director._scheduler.queue.ready_queue import FifoQueue, ReadyQueue

    pass
    from director._jobs.model import Model
    from director._scheduler.slots import Slot

_IDLE, _HIRED, _WORKING = SlotState.IDLE, SlotState.STARTING, SlotState.WORKING
_PARKED, _CALLED, _LEAVING = SlotState.PARKED, SlotState.WOKEN, SlotState.LEAVING
_ELSEWHERE, _BACKING_OFF = SlotState.WAITING_FOR_OTHERS, SlotState.BACKING_OFF
_NOWHERE: frozenset[int] = frozenset()


class Wakeups:
    """Calls workers, and keeps who is on the way.

    Args:
        slots: All of them.
        free: Those that could take a job.
        queue: What waits.
        warm: Tells the numbers of the slots on which a model is loaded.
        call_director: Thread-safe; asks the Director coroutine to hire.
    """

    __slots__ = ("_call_director", "_free", "_queue", "_slots", "_warm", "calling", "hiring", "on_the_way")

    def __init__(
        self,
        slots: list[Slot],
        free: FreeSlots,
        queue: ReadyQueue,
        warm: Callable[[Model[Any]], frozenset[int]],
        call_director: Callable[[], None],
    ) -> None:
        self._slots = slots
        self._free = free
        self._queue = queue
        self._warm = warm
        self._call_director = call_director
        self.on_the_way: dict[Slot, None] = {}  # HIRED and CALLED: on their way to look for work
        self.calling = False  # one parked worker is on its way
        self.hiring = False  # the Director coroutine has been asked and has not looked yet

    def pick_wakeup(self, now: float) -> WakeCall:
        """Whom to call for the work that waits; marks him called."""
        for lane in self._queue.in_order(now):
            slot = self._pick(lane)
            if slot is not None and slot.state is _IDLE:
                if not self.hiring:
                    self.hiring = True
                    return self._call_director
                slot = self._pick(lane, only=_PARKED)  # the coroutine is on its way; a parked worker may be sooner
            # Not a slot that would find nothing better to do than to park again, and be called again.
            if slot is not None and not self.calling and self.suits(lane, slot):
                return self._send(slot)
        return None

    def pick_parked(self, now: float) -> WakeCall:
        """The same among parked workers only, for what those on their way will not take."""
        coming = dict(self.on_the_way)
        for lane in self._queue.in_order(now):
            if lane.calls <= subtract(coming, lane):
                continue
            slot = self._pick(lane, only=_PARKED)
            if slot is not None and not self.calling and self.suits(lane, slot):
                return self._send(slot)
        return None

    def pick_slots_to_start(self, most: int, now: float) -> list[Slot]:
        """Slots that need a worker for what waits, at most `most`; each becomes HIRED."""
        self.hiring = False
        hired: list[Slot] = []
        coming = dict(self.on_the_way)
        try:
            for lane in self._queue.in_order(now):
                short = lane.calls - subtract(coming, lane)
                while short > 0 and len(hired) < most and (slot := self._pick(lane, only=_IDLE)):
                    if not self.suits(lane, slot):
                        break
                    hired.append(slot)
                    self._free.claim(slot)
                    slot.state = _HIRED
                    self.on_the_way[slot] = None
                    short -= 1
        except BaseException:  # of a signal handler: no worker will be made
            for slot in hired:
                slot.state = _IDLE
            raise
        if len(hired) == most:
            self.hiring = True  # the coroutine goes on by itself
        return hired

    def call(self, slot: Slot) -> None:
        """A parked worker is called; whoever calls this rings for it."""
        self._free.claim(slot)
        slot.state = _CALLED
        self.on_the_way[slot] = None

    def arrive(self, slot: Slot) -> None:
        """A worker that was on its way looks for work."""
        if slot.state is _PARKED:  # it was rung twice
            self._free.claim(slot)
        self.on_the_way.pop(slot, None)  # not if it comes from elsewhere
        if slot.state is _CALLED:
            self.calling = False

    def repair(self) -> None:
        """Count anew who is on the way, from the states of the slots."""
        self.on_the_way.clear()
        self.on_the_way.update(dict.fromkeys(slot for slot in self._slots if slot.state in (_HIRED, _CALLED)))
        self.calling = any(slot.state is _CALLED for slot in self._slots)
        self.hiring = False

    def wake_again(self) -> None:
        """Without the lock: call the Director and every worker that was called."""
        self._call_director()
        for slot in self._slots:
            if slot.state is _CALLED:
                slot.wake()

    def suits(self, lane: Lane | FifoQueue, slot: Slot) -> bool:
        """Whether `slot` should serve `lane`: it may, and no free slot has the model loaded when this one has not."""
        if lane.key is None:
            return True
        if lane.allowed is not None and slot.number not in lane.allowed:
            return False
        if lane.model is None:
            return True
        warm = self._warm(lane.model)
        if not warm or slot.number in warm:
            return True
        better = warm if lane.allowed is None else warm & lane.allowed
        busy = (_WORKING, _LEAVING, _ELSEWHERE, _BACKING_OFF)
        return not any(self._slots[n].is_open and self._slots[n].state not in busy for n in better)

    def _send(self, slot: Slot) -> WakeCall:
        self.calling = True
        self.call(slot)
        return slot.wake

    def _pick(self, lane: Lane | FifoQueue, only: SlotState | None = None) -> Slot | None:
        if lane.key is None:
            return self._free.pick(only=only)
        warm = _NOWHERE if lane.model is None else self._warm(lane.model)
        return self._free.pick(lane.allowed, warm, only)


WakeCall: TypeAlias = "Callable[[], None] | None"


def combine(first: WakeCall, second: WakeCall) -> WakeCall:
    """One wake for two."""
    if first is None or second is None:
        return first or second
    return partial(_call_both, first, second)


def _call_both(first: Callable[[], None], second: Callable[[], None]) -> None:
    first()
    second()
