"""A device: the frozen identity of a GPU, a MIG slice, or a CPU or simulated device. Its fields never change."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias

from director._untrusted.numbers import MOST_SECONDS, MOST_SLOTS, bytes_of, real, whole
from director._untrusted.objects import is_a

DeviceKind: TypeAlias = Literal["cuda", "cpu", "simulated"]


@dataclass(frozen=True, slots=True)
class Device:
    """A GPU or MIG slice, or a CPU or simulated device, that jobs run on.

    ``str(device)`` is what frameworks take: ``"cuda:0"`` for a GPU, ``"cpu"`` for everything else.

    Args:
        index: Position in this process's own order; for a GPU the CUDA ordinal.
        uuid: Identifies the device. NVML index, CUDA ordinal and PCI order may differ from each other; the UUID is the
            same everywhere.
        name: The product name, such as ``"NVIDIA H100 80GB HBM3"`` or ``"cpu:0"``.
        kind: ``"cuda"``, ``"cpu"`` or ``"simulated"``.
        total_memory: Bytes of device memory, `None` where unknown.
        node: Name of the machine that has it, in a cluster; `None` for this one.

    Raises:
        TypeError: `index` or `total_memory` is no int.
        ValueError: It needs more than 64 bits.
    """

    index: int
    uuid: str
    name: str
    kind: DeviceKind
    total_memory: int | None = None
    node: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "index", whole("index", self.index))
        if self.total_memory is not None:
            object.__setattr__(self, "total_memory", whole("total_memory", self.total_memory, 0))

    def __str__(self) -> str:
        return f"cuda:{self.index}" if self.kind == "cuda" else "cpu"

    @property
    def label(self) -> str:
        """Short unique name for tables and logs: ``"cuda:0"``, ``"cpu:1"``, ``"simulated:2"``, ``"cuda:0@node-a"``."""
        return f"{self.kind}:{self.index}" if self.node is None else f"{self.kind}:{self.index}@{self.node}"


class SimulatedMemory(Protocol):
    """The memory of a simulated device, of which a test says who has how much."""

    def free(self) -> tuple[int, int]:
        """Bytes that are free, and the total."""

    def allocation(self) -> tuple[int, int, int] | None:
        """Bytes that this process has allocated, the peak of these, and its pool; `None`: no framework tells."""

    def reset_peak(self) -> None:
        """Let the peak begin at what is allocated now."""

    def free_caches(self) -> None:
        """Give back what is in the pool and not allocated."""


@dataclass(frozen=True, slots=True)
class SimulatedDevice(Device):
    """A device that only passes time: for tests and demonstrations on machines without GPUs.

    Args:
        speed: How much faster than 1.0 this device works through `work`.
    """

    speed: float = 1.0
    _memory: SimulatedMemory | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        Device.__post_init__(self)
        object.__setattr__(self, "speed", _speed(self.speed))

    def work(self, seconds: float) -> None:
        """Occupy the calling thread as a kernel of `seconds` on a device of speed 1.0 would; releases the GIL."""
        time.sleep(min(MOST_SECONDS, real("seconds", seconds, 0) / self.speed))


def _speed(speed: Any) -> float:
    return real("speed", speed, 1e-9, 1e9)


def cpu_devices(count: int = 1) -> list[Device]:
    """`count` devices that run jobs on CPU threads."""
    count = whole("count", count, 1, MOST_SLOTS)
    return [Device(i, f"CPU-{i}", f"cpu:{i}", "cpu") for i in range(count)]


def simulated_devices(
    count: int, *, speed: float | list[float] = 1.0, memory: int | str | None = None
) -> list[SimulatedDevice]:
    """Devices for tests and demonstrations without GPUs.

    Args:
        count: How many, at least 1.
        speed: Relative speed of `SimulatedDevice.work`, one for all or one for each.
        memory: Bytes of memory that each reports, or a text such as ``"6GiB"``.

    Raises:
        TypeError: One of them is no number.
        ValueError: One is out of range, `memory` is no size, or there is not one speed for each device.
    """
    count = whole("count", count, 1, MOST_SLOTS)
    speeds = [_speed(each) for each in (speed if is_a(speed, (list, tuple)) else [speed] * count)]
    if len(speeds) != count:
        raise ValueError(f"{count} devices need {count} speeds, not {len(speeds)}")
    if memory is not None:
        memory = bytes_of("memory", memory)
    return [
        SimulatedDevice(i, f"SIM-{i}", f"simulated:{i}", "simulated", memory, speed=s) for i, s in enumerate(speeds)
    ]
