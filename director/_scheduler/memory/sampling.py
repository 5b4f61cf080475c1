"""What readings of a device's memory tell: what others use, which loads wait for them, and what has come back.

Guarded by `scheduler`'s lock; the readings are made without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from director._scheduler.memory.observed import PATIENCE, Leak, Reading, Sample, Veto
from director._scheduler.memory.replica import ReservationState
from director._scheduler.memory.victims import evictable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from director._scheduler.memory.ledger import DeviceMemory
    from director._scheduler.queue.lane import Lane

_LOADING, _UNLOADING = ReservationState.LOADING, ReservationState.UNLOADING


def note_sample(here: DeviceMemory, reading: Reading | None, lanes: Iterable[Lane], now: float) -> None:
    """The free memory of a device was read; `None`: it can't be read any more."""
    if reading is None:
        here.is_metered, here.sample = False, None
        here.vetoes.clear()
        return
    free, total, pool = reading
    if pool is not None:
        here.pools[None] = pool
    here.sample = Sample(free, total, here.changes)
    others = total - free - sum(here.contexts.values())
    pools = sum(here.pools.values())
    leaked = sum(here.leaked.values()) + sum(each.missing for each in here.returning)
    there = sum(
        replica.size if replica.measured is None else replica.measured
        for replica in here.replicas
        if replica.state is not _LOADING and not replica.has_left
    )
    leaving = (_UNLOADING, ReservationState.SLEEPING)
    gone = sum(each.size for each in here.replicas if each.state in leaving and not each.has_left)  # perhaps
    coming = here.bytes_in(_LOADING) + here.calls  # perhaps
    least = others - max(pools, there + leaked + coming)
    most = others - max(pools, there + leaked - gone)
    here.foreign_use.note(max(0, least), max(0, most), now)
    _find_vetoes(here, lanes, now)


def is_vetoed(here: DeviceMemory, lane: Lane, before: float) -> bool:
    """Whether the loads of a lane have been vetoed on a device since `before`."""
    veto = here.vetoes.get(lane)
    return veto is not None and veto.since <= before


def _find_vetoes(here: DeviceMemory, lanes: Iterable[Lane], now: float) -> None:
    assert here.sample is not None
    before, here.vetoes = here.vetoes, {}
    possible = sum(replica.size for replica in here.replicas if evictable(replica, None))
    is_busy = any(slot.job is not None for slot in here.place.slots)
    for lane in lanes:
        slot = next((slot for slot in here.place.slots if lane.allowed is None or slot.number in lane.allowed), None)
        known = lane.known
        if slot is None or known is None or known.on(slot.number) is not None or not slot.is_open:
            continue
        needed = here.needed_by(lane, slot)
        if needed > here.free() + here.foreign + possible:
            continue  # it is not the others' fault
        has_room = needed <= here.free()
        if needed <= here.free() + possible and not (has_room and here.is_short(needed)):
            continue  # there is room, or will be when others have been unloaded
        veto = before.get(lane)
        if veto is None or veto.needed != needed:
            veto = Veto(known.model.name, needed, here.sample.free, now)
            # What our own caches hold may be all that is missing.
            here.trims.update(slot for slot in here.place.slots if slot.is_open)
        veto.free = here.sample.free
        veto.samples += 1
        veto.since = now if is_busy else veto.since
        here.vetoes[lane] = veto


def surplus(here: DeviceMemory, allocated: int | None) -> int | None:
    """Bytes that this process has allocated on a device beside the models that are there; `None` if not known."""
    if allocated is None or here.is_loading:
        return None
    return allocated - sum(replica.measured or 0 for replica in here.replicas if not replica.has_left)


def note_allocated(here: DeviceMemory, allocated: int | None, now: float) -> list[Leak]:
    """This process has so much allocated on a device; `None` if nothing tells. Returns what is leaked from now on."""
    leaks, left = [], surplus(here, allocated)
    for each in list(here.returning):
        if each.note(left):
            here.returning.remove(each)
        elif now >= each.since + PATIENCE:
            here.returning.remove(each)
            here.leaked[each.model] = here.leaked.get(each.model, 0) + each.missing
            leaks.append(Leak(each.model, each.missing, each.size))
    return leaks
