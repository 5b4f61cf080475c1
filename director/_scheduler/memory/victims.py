"""Which replicas are unloaded for another, by GreedyDual-Size (Cao and Irani 1997), and which one is worth its load.

A replica is worth the seconds to load it again for each byte, on top of the worth of the last victim when it was last
used. So one that is expensive to load survives several that are cheap, and yet leaves when it is not used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from director._scheduler.memory.replica import ReservationState
from director._scheduler.slots import SlotState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from director._scheduler.memory.ledger import DeviceMemory
    from director._scheduler.memory.replica import KnownModel, Replica
    from director._scheduler.queue.lane import Lane
    from director._scheduler.slots import DeviceSlots, Slot

    Ledgers = Mapping[DeviceSlots, DeviceMemory]

_GIB = 2**30


def note_use(here: DeviceMemory, replica: Replica, now: float) -> None:
    """A replica was used."""
    replica.used_at = now
    replica.worth = here.age + _seconds(replica) / max(1, replica.size) * _GIB


def evictable(replica: Replica, own: Replica | None) -> bool:
    """Whether a replica may be unloaded for a job that uses the replica `own`, or none yet."""
    if replica.state is not ReservationState.RESIDENT or replica.known.model.pin or replica is own:
        return False
    return all(slot.can_unload for slot in replica.place.slots)


def victims(
    here: DeviceMemory, needed: float, own: Replica | None, is_in_demand: Callable[[Replica], bool], asking: Slot
) -> list[Replica] | None:
    """Replicas to unload for `needed` bytes, or `None` if all that may be unloaded don't suffice.

    Those in use and those that jobs wait for are taken last. No replica stays for a time in any case: others would
    leave that are worth more, and `DeviceMemory.quantum` bounds the loads.
    """

    def rank(replica: Replica) -> tuple[bool, bool, float, float, str]:
        busy, asked = here.is_in_use(replica, asking), is_in_demand(replica)
        return busy, asked, replica.worth, replica.used_at, replica.known.model.name

    ranked = sorted((replica for replica in here.replicas if evictable(replica, own)), key=rank)
    chosen: list[Replica] = []
    for replica in ranked:
        if needed <= 0:
            break
        chosen.append(replica)
        needed -= replica.size
    if needed > 0:
        return None
    for replica in list(reversed(chosen)):  # without the most expensive of them there may be room enough
        if needed + replica.size <= 0:
            chosen.remove(replica)
            needed += replica.size
    return chosen


def drain(here: DeviceMemory, chosen: Iterable[Replica], wanted_by: str) -> None:
    """Have replicas unloaded, as soon as no call uses them, for what needs their memory."""
    for replica in chosen:
        replica.move(ReservationState.DRAINING)
        replica.wanted_by = wanted_by
        here.age = max(here.age, replica.worth)


def shrink(here: DeviceMemory, loaded: Replica, slot: Slot) -> None:
    """Drain what the ledger is over its budget by, because a model has taken more than was known."""
    here.recount()
    excess = 0 if here.budget is None else here.reserved - here.leaving - here.budget
    if excess > 0:
        possible = sum(replica.size for replica in here.replicas if evictable(replica, loaded))
        chosen = victims(here, min(excess, possible), loaded, lambda _: False, slot)
        drain(here, chosen or (), loaded.known.model.name)


def _seconds(replica: Replica) -> float:
    return replica.known.return_seconds or 1.0


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
