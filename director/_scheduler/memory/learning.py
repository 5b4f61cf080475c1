"""What a load that has ended tells of its model and its process. Guarded by `scheduler`'s lock."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from director._devices.footprints import LoadSize
    from director._scheduler.memory.ledger import DeviceMemory
    from director._scheduler.memory.replica import Replica

_UNMOVED = 2**26  # bytes by which the free memory of an idle device may differ


def learn(here: DeviceMemory, replica: Replica, taken: LoadSize | None) -> None:
    """A load has ended: charge what it took, or what is expected if it was not measured."""
    footprints, name = replica.known.footprints, here.place.device.name
    here.note_change(replica)
    if taken is not None:
        _learn_process(here, replica, taken)
    if taken is not None and taken.allocated is not None:
        replica.measured, replica.peak = taken.allocated, taken.peak
    elif taken is not None and taken.taken is not None and taken.taken > 0 and not _has_moved(here, replica, taken):
        replica.measured = taken.taken
    if replica.measured is not None:
        footprints.learn(name, replica.measured)
    elif taken is None:
        footprints.give_up(name)
    size = here.size_of(replica.known)
    replica.size = size if replica.measured is None else max(size, replica.measured)


def _has_moved(here: DeviceMemory, replica: Replica, taken: LoadSize) -> bool:
    """Whether something else has used memory of the device, or freed some, about the time of a load."""
    if not replica.is_alone or here.foreign != replica.foreign:
        return True
    return replica.free is not None and taken.free is not None and abs(replica.free - taken.free) > _UNMOVED


def _learn_process(here: DeviceMemory, replica: Replica, taken: LoadSize) -> None:
    """What the process has of the device that holds a new replica, beside its models."""
    key = next(iter(replica.numbers)) if taken.is_apart else None
    if taken.pool is not None:
        here.pools[key] = taken.pool
    if taken.context is not None and not _has_moved(here, replica, taken):
        here.contexts[key] = taken.context
        here.context = taken.context if taken.is_apart else here.context
