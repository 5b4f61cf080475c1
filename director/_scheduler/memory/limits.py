"""How much of a device's memory replicas and jobs may take, from what the user said. Frozen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from director._untrusted.numbers import bytes_of, share_of
from director._untrusted.objects import is_one_of
from director.errors import PlacementError

if TYPE_CHECKING:
    from director._device import Device

Amount: TypeAlias = "int | float"  # bytes, or as a float the share of the total

_HEADROOM = 0.05  # of a GPU: contexts of processes, workspaces of libraries, what an allocator can't reuse
_LEAST_HEADROOM = 2**30


@dataclass(frozen=True, slots=True)
class MemoryLimit:
    """The argument ``memory_limit`` of a Director.

    Args:
        everywhere: The limit of each device that has none of its own; `None`: its total memory less the headroom.
        each: Limits of single devices, by what names them.
    """

    everywhere: Amount | None = None
    each: tuple[tuple[Any, Amount], ...] = ()

    @property
    def is_given(self) -> bool:
        """Whether the user has set one."""
        return self.everywhere is not None or bool(self.each)

    def of(self, device: Device) -> int | None:
        """Bytes that replicas and jobs may take of a device; `None` if nothing bounds them."""
        total, limit = device.total_memory, self._limit(device)
        if limit is None:
            return None if total is None else max(0, total - headroom(device))
        if isinstance(limit, float):
            return None if total is None else int(total * limit)
        return limit if total is None else min(limit, total)

    def is_default(self, device: Device) -> bool:
        """Whether the limit of a device is its total less the headroom."""
        return self._limit(device) is None

    def check(self, devices: tuple[Device, ...]) -> None:
        """Refuse a limit that can't be applied to these devices.

        Raises:
            PlacementError: It names a device that isn't there, or a share of a total that is unknown.
        """
        for key, _ in self.each:
            if not any(key in _names(device) for device in devices):
                known = ", ".join(device.label for device in devices)
                raise PlacementError(f"memory_limit names {key!r}, which is none of these devices: {known}")
        for device in devices:
            if device.total_memory is None and isinstance(self._limit(device), float):
                raise PlacementError(
                    f"memory_limit is a share of the memory of {device.label}, whose total is not known: give bytes"
                )

    def _limit(self, device: Device) -> Amount | None:
        names = _names(device)
        return next((limit for key, limit in self.each if key in names), self.everywhere)


UNLIMITED = MemoryLimit()
"""Nothing was said."""


def headroom(device: Device) -> int:
    """Bytes of a device that are left to contexts and libraries where the user has set no limit."""
    total = device.total_memory
    return 0 if total is None or device.kind != "cuda" else max(_LEAST_HEADROOM, int(total * _HEADROOM))


def memory_limit(value: Any) -> MemoryLimit:
    """The limit that a user has given.

    Raises:
        TypeError: It is of another kind.
        ValueError: It is no size.
    """
    if value is None:
        return MemoryLimit()
    if is_one_of(value, (Mapping,)):
        return MemoryLimit(each=tuple((key, _amount(limit)) for key, limit in value.items()))
    return MemoryLimit(_amount(value))


def _amount(value: Any) -> Amount:
    share = share_of("memory_limit", value)
    return bytes_of("memory_limit", value) if share is None else share


def _names(device: Device) -> tuple[Any, ...]:
    return device, device.index, device.uuid, device.name, device.label, str(device)
