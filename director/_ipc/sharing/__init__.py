"""Several processes on the same devices: which one uses a slot now, and which ones use a device at all.

The modules of this package are imported only by a Director that is `shared` or runs on GPUs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from director._device import Device
    from director._ipc.sharing.presence import Presence
    from director._ipc.sharing.slot_lock import SharedSlots


_server: str | None = None


def name_server(name: str) -> None:
    """This process is a server: those with the same name have each device in turn, and don't warn of each other."""
    global _server
    _server = f"server:{name}"


def announce(devices: tuple[Device, ...], shared: str | None) -> Presence | None:
    """Register this Director on the GPUs among `devices`, and warn of other processes that don't share them."""
    # Stand-ins belong to one process.
    gpus = [device for device in devices if device.kind == "cuda"]
    if not gpus:
        return None
    from director._ipc.sharing.presence import Presence

    return Presence(gpus, shared or _server)


def shared_slots(name: str) -> SharedSlots:
    """The slots of all processes that give the same name; see `SharedSlots`."""
    from director._ipc.sharing.slot_lock import SharedSlots

    return SharedSlots(name)
