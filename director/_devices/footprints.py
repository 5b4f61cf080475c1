"""What a load takes of a device's memory: measured in the process that makes it, on the thread that makes it.

A framework's own count of allocated bytes is exact, whatever else happens on the device. What its pool has reserved is
not: the same work shows several GB more or less, by the pool's history. Where no framework tells, what a load takes is
the free memory of the device before it less that after it, if no other process has allocated or freed any meanwhile.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from director._device import SimulatedDevice
from director._devices.device_errors import free_caches
from director.errors import DiscoveryError

if TYPE_CHECKING:
    from director._device import Device

_PATIENCE = 2.0  # seconds for NVML's answer on the thread of a slot: then the load is not measured


class Allocation(NamedTuple):
    """What this process has of a device, as a framework tells.

    Args:
        allocated: Bytes of tensors.
        peak: The most of these since `reset_peak`.
        pool: Bytes that its allocator has reserved for these.
    """

    allocated: int
    peak: int
    pool: int


class LoadSize(NamedTuple):
    """What a load has taken, in bytes; `None` where it was not measured.

    Args:
        allocated: As the framework tells; `None` if none does, or if it has allocated nothing.
        peak: The most during the load, as the framework tells.
        pool: What the process has reserved for all that it has allocated, as the framework tells.
        taken: Free memory of the device before the load less that after it.
        free: Free memory of the device before the load.
        is_first: The process has begun to use the device with this load.
        is_apart: That process is the slot's own.
    """

    allocated: int | None = None
    peak: int | None = None
    pool: int | None = None
    taken: int | None = None
    free: int | None = None
    is_first: bool = False
    is_apart: bool = False

    @property
    def context(self) -> int | None:
        """What the process takes of the device beside its pool: CUDA's context, and workspaces of libraries."""
        if not self.is_first or self.taken is None or self.pool is None:
            return None
        return max(0, self.taken - self.pool)


def load_size(told: tuple[Any, ...] | None, before: int | None, after: int | None) -> LoadSize | None:
    """What a load has taken in another process.

    Args:
        told: A `LoadSize` of that process, which does not know how much was free; `None` if nothing there tells.
        before: Bytes of the device that were free before; `None` if not known.
        after: Bytes that are free now.
    """
    size = LoadSize() if told is None else LoadSize(*told)
    if before is not None and after is not None:
        size = size._replace(taken=before - after, free=before)
    return None if size.allocated is None and size.taken is None else size


def freed_since(before: Allocation | None, device: Device) -> int | None:
    """Bytes of a device that are back, of those that were allocated before; `None` if no framework tells."""
    if before is None:
        return None
    free_caches(device=device)
    after = allocation(device)
    return None if after is None else before.allocated - after.allocated


class LoadMeter:
    """Measures one load, from when it is made.

    Args:
        device: The device.
        has_free: Also by the free memory of the device, which is read on a thread of its own.
    """

    def __init__(self, device: Device, has_free: bool = True) -> None:
        self._device = device
        self._free = free_memory(device) if has_free else None
        self._before = allocation(device)
        if self._before is not None:
            reset_peak(device)

    def size(self) -> LoadSize | None:
        """What the load has taken, now that it has ended; `None` if nothing tells."""
        after = allocation(self._device)
        before = self._before.allocated if self._before is not None else 0
        told = None
        if after is not None and after.allocated > before:
            peak = after.peak - before
            told = LoadSize(after.allocated - before, peak, after.pool, is_first=self._before is None)
        return load_size(told, self._free, None if self._free is None else free_memory(self._device))


def allocation(device: Device) -> Allocation | None:
    """What this process has of a device; `None` where no framework tells, as before the first use of the device."""
    if isinstance(device, SimulatedDevice):
        told = None if device._memory is None else device._memory.allocation()
        return None if told is None else Allocation(*told)
    if device.kind != "cuda":
        return None
    with suppress(Exception):
        torch: Any = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_initialized():
            stats = torch.cuda.memory_stats(device.index)
            allocated = int(stats["allocated_bytes.all.current"])
            pool = int(stats.get("reserved_bytes.all.current", allocated))
            return Allocation(allocated, max(allocated, int(torch.cuda.max_memory_allocated(device.index))), pool)
    return None


def reset_peak(device: Device) -> None:
    """Let the peak of `allocation` begin at what is allocated now."""
    if isinstance(device, SimulatedDevice):
        if device._memory is not None:
            device._memory.reset_peak()
        return
    with suppress(Exception):
        torch: Any = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_initialized():
            torch.cuda.reset_peak_memory_stats(device.index)


def free_memory(device: Device) -> int | None:
    """Bytes of a device that are free, for the thread of a slot; `None` where that is not known."""
    if device.kind != "cuda":
        reading = read_free(device)
        return None if reading is None else reading[0]
    from director._devices.nvml import within  # not with the package: it is a fifth of its import

    with suppress(DiscoveryError):
        reading = within(_PATIENCE, lambda: read_free(device))
        return None if reading is None else reading[0]
    return None


def read_free(device: Device) -> tuple[int, int] | None:
    """The free memory of a device and its total; `None` where that is not known. Blocks, perhaps for ever.

    Raises:
        DiscoveryError: There is a driver and it can't be used.
    """
    if isinstance(device, SimulatedDevice):
        return None if device._memory is None else device._memory.free()
    if device.kind != "cuda" or device.node is not None:
        return None
    from director._devices.readings import read_memory

    return read_memory(device.uuid)


def is_metered(device: Device) -> bool:
    """Whether the free memory of a device can be read here, as far as is known without asking."""
    if isinstance(device, SimulatedDevice):
        return device._memory is not None
    return device.kind == "cuda" and device.node is None and device.total_memory is not None
