"""A device whose memory was full although its ledger had room: all that is idle there leaves, before the next try."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from director._scheduler.memory.ledger import Cleared
from director._scheduler.memory.replica import ReservationState
from director._scheduler.memory.victims import evictable
from director._untrusted.numbers import size_text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from director._jobs.model import Model
    from director._scheduler.memory.ledger import DeviceMemory
    from director._scheduler.memory.memory import Memory
    from director._scheduler.memory.replica import Replica
    from director._scheduler.slots import Slot, Unload

    Resident = Iterable[tuple[Model[Any], frozenset[int]]]
    """Models that are resident on a device, with the numbers of the slots that have them."""

_RESIDENT, _DRAINING = ReservationState.RESIDENT, ReservationState.DRAINING


def clear_for_load(memory: Memory, model: Model[Any], slot: Slot, resident: Resident) -> tuple[bool, str]:
    """A load by `slot` has run out of memory: drain what is idle on its device, and have the load tried again, once.

    Models that were not accounted for are so from now on.

    Returns:
        Whether it is worth another try, and what had the memory, in words.
    """
    here = memory.devices[slot.place]
    memory.adopt(resident)
    size, idle = here.size_of(memory.known(model)), _idle(here, model)
    needed = f", which needs {size_text(size)}," if size else ""
    words = f"the memory of {here.place.device.label} was full when {model.name}{needed} was loaded: "
    words += holders(here, model, slot)
    is_second = here.cleared_for.pop(model._key, None) is not None
    if is_second or not idle:
        return False, words
    for replica in idle:
        replica.move(_DRAINING)
    here.cleared_for[model._key] = Cleared(model.name)
    memory.recount(here)
    return True, words


def clear_for_call(memory: Memory, slot: Slot, resident: Resident, name: str) -> list[Unload]:
    """A call on `slot` has run out of memory: what its thread unloads now, before it makes the call again.

    What is idle in other processes leaves too, on the threads of their slots.
    """
    here = memory.devices[slot.place]
    memory.adopt(resident)
    for replica in _idle(here, None):
        replica.move(_DRAINING)
    memory.recount(here)
    return memory.take_unloads(slot, name)


def holders(here: DeviceMemory, model: Model[Any], slot: Slot) -> str:
    """What others than a model have of a device, in words."""
    others = [each for each in here.replicas if each.known.model._key != model._key and not each.has_left]
    held = [f"{each.known.model.name} has {_size(each)} ({_why(here, each, slot)})" for each in others]
    held += [f"calls have {size_text(here.calls)}"] if here.calls else []
    held += [f"others have {size_text(here.foreign)}"] if here.foreign else []
    held += [f"{name} has leaked {size_text(size)}" for name, size in here.leaked.items()]
    of = "" if here.budget is None else f"of {size_text(here.budget)} "
    return of + (", ".join(held) if held else "nothing is reserved for others")


def _size(replica: Replica) -> str:
    return size_text(replica.size) if replica.size else "an unknown part"


def _why(here: DeviceMemory, replica: Replica, slot: Slot) -> str:
    if replica.known.model.pin:
        return "pinned"
    if replica.state is not _RESIDENT:
        return replica.state.value
    return "in use" if here.is_in_use(replica, slot) else "idle"


def _idle(here: DeviceMemory, own: Model[Any] | None) -> list[Replica]:
    """What no call uses and may be unloaded, but for replicas of a model."""
    return [
        replica
        for replica in here.replicas
        if evictable(replica, None)
        and (own is None or replica.known.model._key != own._key)
        and not here.is_in_use(replica, None)
    ]
