"""Which replicas the waiting jobs need, and whether one more of them is worth its load. Changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from director._scheduler.memory.states import ReservationState
from director._scheduler.memory.victims import evictable
from director._scheduler.slots import SlotState

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from director._scheduler.memory.ledger import DeviceMemory
    from director._scheduler.memory.replica import KnownModel, Replica
    from director._scheduler.queue.lane import Lane
    from director._scheduler.slots import DeviceSlots

    Ledgers = Mapping[DeviceSlots, DeviceMemory]

_LOADING, _RESIDENT = ReservationState.LOADING, ReservationState.RESIDENT
_FREE = (SlotState.IDLE, SlotState.STARTING, SlotState.PARKED, SlotState.WOKEN)


def in_demand(here: DeviceMemory, lane: Lane) -> Callable[[Replica], bool]:
    """Whether jobs wait for a replica that are as urgent as those of `lane`, and could run beside the others."""
    highest, left = lane.highest, here.free() + here.calls
    return lambda replica: any(
        other.waiting
        and other.memory <= left
        and other.highest >= highest
        and (other.allowed is None or not other.allowed.isdisjoint(replica.numbers))
        for other in replica.known.lanes
    )


def is_worth_loading(ledgers: Ledgers, known: KnownModel, lane: Lane) -> bool:
    """Whether jobs of a lane would wait longer for the replicas that there are than for one more."""
    allowed = lane.allowed
    able = [replica for replica in known.replicas if allowed is None or not replica.numbers.isdisjoint(allowed)]
    able = [
        replica
        for replica in able
        if replica.state in (_LOADING, _RESIDENT) and _could_serve(ledgers[replica.place], replica, lane)
    ]
    if not able:
        return True
    slots = [
        other
        for replica in able
        for other in replica.place.slots
        if other.is_open and other.number in replica.numbers and (allowed is None or other.number in allowed)
    ]
    if any(other.state in _FREE for other in slots if other.number in known.serving):
        return False
    if not known.loads or not known.calls or not slots:
        return True
    return lane.waiting * known.call_seconds > len(slots) * known.load_seconds


def is_wanted(ledgers: Ledgers, here: DeviceMemory, lane: Lane) -> bool:
    """Whether a slot of a device would still load for a lane."""
    known = lane.known
    return known is None or any(
        known.on(slot.number) is not None or is_worth_loading(ledgers, known, lane) for slot in here.place.slots
    )


def _could_serve(here: DeviceMemory, own: Replica, lane: Lane) -> bool:
    """Whether the memory of a call of a lane could be had beside its replica."""
    if not lane.memory:
        return True
    can_go = sum(replica.size for replica in here.replicas if evictable(replica, own))
    return lane.memory <= here.free() + here.calls + here.leaving + can_go
