"""The memory of simulated devices: a test says who has how much of it, and everything that measures it sees that."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from director.testing import simulated_devices

if TYPE_CHECKING:
    from director import Device

GIB = 2**30


class DeviceMemory:
    """The memory of one device, of which processes have parts.

    Args:
        total: Bytes.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self.lock = threading.RLock()
        self.users: list[ProcessMemory] = []
        self.foreign = 0  # bytes of processes that no test looks into
        self.reads = 0

    def process(self, *, tells: bool = True) -> ProcessMemory:
        """One more process."""
        self.users.append(ProcessMemory(self, tells))
        return self.users[-1]

    def free(self) -> tuple[int, int]:
        """As NVML tells it."""
        with self.lock:
            self.reads += 1
            used = self.foreign + sum(user.context + user.pool for user in self.users)
            return max(0, self.total - used), self.total


class ProcessMemory:
    """What one process has of a device; the `_memory` of a simulated device in it.

    Args:
        memory: The device's.
        tells: Whether its framework tells what it has allocated.
    """

    def __init__(self, memory: DeviceMemory, tells: bool) -> None:
        self.memory = memory
        self.tells = tells
        self.is_used = False
        self.allocated = self.peak = self.pool = self.context = 0

    def attach(self, device: Device) -> Device:
        """Let a simulated device have it."""
        object.__setattr__(device, "_memory", self)
        return device

    def allocate(self, size: int) -> None:
        """Allocate."""
        with self.memory.lock:
            self.is_used = True
            self.allocated += size
            self.peak = max(self.peak, self.allocated)
            self.pool = max(self.pool, self.allocated)

    def release(self, size: int) -> None:
        """Free what was allocated; it stays in the pool where a framework has one."""
        with self.memory.lock:
            self.allocated -= size
            if not self.tells:
                self.pool = self.allocated

    def free(self) -> tuple[int, int]:
        """Bytes that are free, and the total."""
        return self.memory.free()

    def allocation(self) -> tuple[int, int, int] | None:
        """As torch tells it."""
        with self.memory.lock:
            return (self.allocated, self.peak, self.pool) if self.tells and self.is_used else None

    def reset_peak(self) -> None:
        with self.memory.lock:
            self.peak = self.allocated

    def free_caches(self) -> None:
        with self.memory.lock:
            self.pool = self.allocated

    def __reduce__(self) -> Any:  # the child of a slot has what it allocates itself
        return _of_child, (self.memory.total, self.tells)


def _of_child(total: int, tells: bool) -> ProcessMemory:
    return DeviceMemory(total).process(tells=tells)


def metered(count: int = 1, total: int = 16 * GIB, *, tells: bool = True) -> tuple[list[Any], list[ProcessMemory]]:
    """Simulated devices, and what this process has of each."""
    devices = simulated_devices(count, memory=total)
    views = [DeviceMemory(total).process(tells=tells) for _ in devices]
    for device, view in zip(devices, views, strict=True):
        view.attach(device)
    return list(devices), views
