"""The ledger of host memory: the bytes of replicas that sleep. Guarded by `scheduler`'s lock."""

from __future__ import annotations

from typing import TYPE_CHECKING

from director._scheduler.memory.states import ReservationState

if TYPE_CHECKING:
    from collections.abc import Iterable

    from director._scheduler.memory.ledger import DeviceMemory
    from director._scheduler.memory.replica import Replica

_SHARE = 2  # of the host's memory that sleeping replicas may take: one half


class HostMemory:
    """What replicas of all devices take of the host's memory; recounted from them.

    Args:
        devices: Their ledgers.
    """

    def __init__(self, devices: Iterable[DeviceMemory]) -> None:
        self._devices = devices
        self.budget: int | None = None  # bytes; `None` until it is first asked for

    @property
    def reserved(self) -> int:
        """Bytes of replicas that sleep, fall asleep or wake."""
        return sum(replica.size for here in self._devices for replica in here.replicas if replica.in_host)

    def put_to_sleep(self, replica: Replica) -> bool:
        """Reserve the memory of a replica that leaves its device; False if it can't sleep, or there is no room."""
        if replica.known.model.sleep is None or replica.is_requested:
            return False
        if not all(slot.can_sleep for slot in replica.place.slots):
            return False
        if self.budget is None:
            from director._devices.host_memory import usable_memory  # few programs need it

            self.budget = usable_memory() // _SHARE
        if replica.size + self.reserved > self.budget:
            return False
        replica.move(ReservationState.SLEEPING)
        replica.in_host = True
        return True
