"""What is woken for waiting work: a parked worker, or the Director, which starts one. Guarded by the scheduler's lock.

Waking is chained: at most one parked worker is on its way at a time, and when it takes its job it wakes the next one
while jobs wait. A submitter pays for one wake-up in a burst instead of one for each slot.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from director._scheduler.memory.memory import Verdict
from director._scheduler.placement import subtract
from director._scheduler.slots import SlotState

if TYPE_CHECKING:
    from collections.abc import Callable

    from director._jobs.model import Model
    from director._jobs.options import Options
    from director._scheduler.memory.memory import Memory
    from director._scheduler.placement import ClosedDevices, FreeSlots
    from director._scheduler.queue.lane import Lane
    from director._scheduler.queue.ready_queue import FifoQueue, ReadyQueue
    from director._scheduler.slots import Slot

_IDLE, _STARTING, _WORKING = SlotState.IDLE, SlotState.STARTING, SlotState.WORKING
_PARKED, _WOKEN, _LEAVING = SlotState.PARKED, SlotState.WOKEN, SlotState.LEAVING
_WAITING_FOR_OTHERS, _BACKING_OFF = SlotState.WAITING_FOR_OTHERS, SlotState.BACKING_OFF
_UNLOADING = SlotState.UNLOADING
_NOWHERE: frozenset[int] = frozenset()


class Wakeups:
    """Picks the workers to wake or start, and keeps those on the way.

    Args:
        slots: All of them.
        free: Those that could take a job.
        queue: What waits.
        memory: Knows what waits for memory.
        resident: Tells the numbers of the slots on which a model is loaded.
        failed: Tells the numbers of the slots on whose devices a model could not be loaded lately.
        closed_devices: Knows the devices that get no work.
        call_director: Thread-safe; wakes the Director coroutine, which starts workers.
    """

    __slots__ = (
        "_call_director",
        "_closed_devices",
        "_free",
        "_memory",
        "_queue",
        "_resident",
        "_slots",
        "failed",
        "is_starting",
        "is_waking",
        "on_the_way",
    )

    def __init__(
        self,
        slots: list[Slot],
        free: FreeSlots,
        queue: ReadyQueue,
        memory: Memory,
        resident: Callable[[Model[Any]], frozenset[int]],
        failed: Callable[[Model[Any]], frozenset[int]],
        closed_devices: ClosedDevices,
        call_director: Callable[[], None],
    ) -> None:
        self._slots = slots
        self._free = free
        self._queue = queue
        self._memory = memory
        self._resident = resident
        self.failed = failed
        self._closed_devices = closed_devices
        self._call_director = call_director
        self.on_the_way: dict[Slot, None] = {}  # STARTING and WOKEN: on their way to `next_work`
        self.is_waking = False  # one parked worker is on its way
        self.is_starting = False  # the Director coroutine was woken and has not run yet

    def pick_wakeup(self, now: float) -> WakeCall:
        """What to call for the jobs that wait; a parked worker picked here is WOKEN."""
        if self._memory.is_used:
            self._memory.refresh()
            if (wake := self._wake_to_unload()) is not None:
                return wake
            lanes = self._queue.in_order(now, self._memory.may_begin(self._free.slots()))
        else:
            lanes = self._queue.in_order(now)
        for lane in lanes:
            slot = self._pick(lane)
            if slot is not None and slot.state is _IDLE:
                if not self.is_starting:
                    self.is_starting = True
                    return self._call_director
                slot = self._pick(lane, only=_PARKED)  # a parked worker may be sooner than the coroutine
            # A slot that does not suit the lane would park again, and be woken again.
            if slot is not None and not self.is_waking and self.suits(lane, slot):
                return self._send(slot)
        return None

    def pick_parked(self, now: float) -> WakeCall:
        """As `pick_wakeup`, among parked workers only, for jobs that the workers on their way will not take."""
        coming = dict(self.on_the_way)
        for lane in self._queue.in_order(now):
            if lane.calls <= subtract(coming, lane):
                continue
            slot = self._pick(lane, only=_PARKED)
            if slot is not None and not self.is_waking and self.suits(lane, slot):
                return self._send(slot)
        return None

    def pick_slots_to_start(self, most: int, now: float) -> list[Slot]:
        """Slots that need a worker for what waits, at most `most`; each becomes STARTING."""
        self.is_starting = False
        slots: list[Slot] = []
        coming = dict(self.on_the_way)
        try:
            if self._memory.unsettled and (slot := self._slot_to_unload(only=_IDLE)) is not None:
                self._start(slot, slots)
            for lane in self._queue.in_order(now):
                short = lane.calls - subtract(coming, lane)
                while short > 0 and len(slots) < most and (slot := self._pick(lane, only=_IDLE)):
                    if not self.suits(lane, slot):
                        break
                    self._start(slot, slots)
                    short -= 1
        except BaseException:  # of a signal handler: no worker will be started
            for slot in slots:
                slot.state = _IDLE
            raise
        if len(slots) == most:
            self.is_starting = True  # the coroutine calls again without being woken
        return slots

    def call(self, slot: Slot) -> None:
        """Mark a parked worker WOKEN; the caller has to call its `wake`."""
        self._free.claim(slot)
        slot.state = _WOKEN
        self.on_the_way[slot] = None

    def arrive(self, slot: Slot) -> None:
        """A worker has called `next_work`, or failed before."""
        if slot.state is _PARKED:  # it was woken twice
            self._free.claim(slot)
        self.on_the_way.pop(slot, None)  # absent after WORKING or WAITING_FOR_OTHERS
        if slot.state is _WOKEN:
            self.is_waking = False

    def repair(self) -> None:
        """Find the workers on their way from the states of the slots."""
        self.on_the_way.clear()
        self.on_the_way.update(dict.fromkeys(slot for slot in self._slots if slot.state in (_STARTING, _WOKEN)))
        self.is_waking = any(slot.state is _WOKEN for slot in self._slots)
        self.is_starting = False

    def wake_again(self) -> None:
        """Without the lock: wake the Director coroutine and every WOKEN worker."""
        self._call_director()
        for slot in self._slots:
            if slot.state is _WOKEN:
                slot.wake()

    def suits(self, lane: Lane | FifoQueue, slot: Slot) -> bool:
        """Whether `slot` may serve `lane`, and has the model loaded if any free slot has."""
        if lane.key is None:
            return True
        if lane.is_managed:
            return self.verdict(lane, slot) is not Verdict.NO
        if lane.allowed is not None and slot.number not in lane.allowed:
            return False
        if lane.model is None:
            return True
        resident = self._resident(lane.model)
        if slot.number in resident:
            return True
        if slot.number in self.failed(lane.model) and self.able(lane):
            return False
        if not resident:
            return True
        better = resident if lane.allowed is None else resident & lane.allowed
        busy = (_WORKING, _LEAVING, _WAITING_FOR_OTHERS, _BACKING_OFF, _UNLOADING)
        return not any(self._slots[n].is_open and self._slots[n].state not in busy for n in better)

    def verdict(self, lane: Lane, slot: Slot) -> Verdict:
        """Whether `slot` may take a job of a managed lane: as `Memory` says, and not where its model failed lately."""
        verdict = self._memory.verdict(lane, slot)
        if lane.model is None or verdict is Verdict.NO or verdict is Verdict.READY:
            return verdict
        return Verdict.NO if slot.number in self.failed(lane.model) and self.able(lane) else verdict

    def able(self, wanted: Lane | Options) -> frozenset[int]:
        """The slots that have the model of a lane or job, or may still load it: on devices where that did not fail."""
        assert wanted.model is not None
        allowed, failed = wanted.allowed, self.failed(wanted.model)
        return frozenset(
            slot.number
            for slot in self._slots
            if slot.number not in failed
            and slot.number not in self._closed_devices.closed
            and slot.state is not _BACKING_OFF
            and (allowed is None or slot.number in allowed)
        )

    def _start(self, slot: Slot, slots: list[Slot]) -> None:
        slots.append(slot)
        self._free.claim(slot)
        slot.state = _STARTING
        self.on_the_way[slot] = None

    def _wake_to_unload(self) -> WakeCall:
        slot = self._slot_to_unload() if self._memory.unsettled else None
        if slot is not None and slot.state is _PARKED and not self.is_waking:
            return self._send(slot)
        if slot is not None and slot.state is _IDLE and not self.is_starting:
            self.is_starting = True
            return self._call_director
        return None

    def _slot_to_unload(self, only: SlotState | None = None) -> Slot | None:
        """A free slot for what no call uses any more; `None` if there is none, or one that could do it is busy."""
        states = (_PARKED, _IDLE) if only is None else (only,)
        slots = self._memory.slots_to_unload()
        return next((slot for state in states for slot in slots if slot.state is state and slot.is_open), None)

    def _send(self, slot: Slot) -> WakeCall:
        self.is_waking = True
        self.call(slot)
        return slot.wake

    def _pick(self, lane: Lane | FifoQueue, only: SlotState | None = None) -> Slot | None:
        if lane.key is None:
            return self._free.pick(only=only)
        if lane.is_managed:
            are_alike = lane.allowed is None and (lane.known is None or not lane.known.is_apart)
            return self._free.pick_for(lambda slot: self.verdict(lane, slot), are_alike, only)
        if lane.model is None:
            return self._free.pick(lane.allowed, _NOWHERE, only)
        allowed = (self.able(lane) or lane.allowed) if self.failed(lane.model) else lane.allowed
        return self._free.pick(allowed, self._resident(lane.model), only)


def nowhere(_model: Model[Any]) -> frozenset[int]:
    """No slots, whatever the model."""
    return _NOWHERE


WakeCall: TypeAlias = "Callable[[], None] | None"


def wake_up(wake: WakeCall) -> None:
    """Make the call, if there is one."""
    if wake is not None:
        wake()


def combine(first: WakeCall, second: WakeCall) -> WakeCall:
    """One call for two."""
    if first is None or second is None:
        return first or second
    return partial(_call_both, first, second)


def _call_both(first: Callable[[], None], second: Callable[[], None]) -> None:
    first()
    second()
