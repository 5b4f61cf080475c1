"""Several processes on the same devices: which one uses a slot now, and which ones use a device at all.

The modules of this package are imported only by a Director that is `shared` or runs on GPUs.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from director._device import Device
    from director._sharing.presence import Presence
    from director._sharing.slot_lock import SharedSlots


def announce(devices: tuple[Device, ...], shared: str | None) -> Presence | None:
    """Register this Director on the GPUs among `devices`, and warn of other processes that don't share them."""
    # Stand-ins belong to one process.
    gpus = [device for device in devices if device.kind == "cuda"]
    if not gpus:
        return None
    from director._sharing.presence import Presence

    return Presence(gpus, shared)


def shared_slots(name: str) -> SharedSlots:
    """The slots of all processes that give the same name; see `SharedSlots`."""
    from director._sharing.slot_lock import SharedSlots

    return SharedSlots(name)


def check_shared(name: object) -> None:
    """Check the argument of `Director(shared=...)`.

    Raises:
        TypeError: It is no string.
        ValueError: It can't be part of a file name.
    """
    if name is None:
        return
    if not isinstance(name, str):
        raise TypeError(f"shared must be a name that all processes give, a str, not {name!r}")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
        raise ValueError(f"shared must be letters, digits, '.', '_' and '-', 64 at most, not {name!r}")
