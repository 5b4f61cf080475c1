"""Facts of the operating system about this process: limits, control groups, devices on the bus. Makes no findings.

Everything is read below a root folder, so that a test can provide the files of another machine.
"""

from __future__ import annotations

import os
import re
import resource
from dataclasses import dataclass, field
from pathlib import Path

from director._devices.host import control_groups, text_of, usable_cores

_DISPLAY = ("0x0300", "0x0302", "0x0380")  # PCI classes of graphics cards, with and without a monitor
_NVIDIA = "0x10de"


@dataclass(frozen=True, slots=True)
class System:
    """The facts; `None` is unlimited or unknown.

    Args:
        cpus: CPUs that this process may use, by affinity and quota.
        threads_left: How many more threads this process may have, by the lowest limit.
        threads_limit: The name of that limit.
        open_files: Most open files.
        address_space: Most bytes of addresses.
        memory: Most bytes of memory, by control group or machine.
        shared_memory: Bytes of /dev/shm.
        in_container: Whether this looks like a container.
        gpus_on_bus: PCI addresses of NVIDIA's graphics cards.
        device_files: NVIDIA's device files, and whether this process may use them.
    """

    cpus: float
    threads_left: int | None = None
    threads_limit: str = ""
    open_files: int | None = None
    address_space: int | None = None
    memory: int | None = None
    shared_memory: int | None = None
    in_container: bool = False
    gpus_on_bus: tuple[str, ...] = ()
    device_files: dict[str, bool] = field(default_factory=dict)


def gather(root: Path = Path("/")) -> System:
    """Read the facts of the system whose files are below `root`."""
    groups = control_groups(root)
    left, limit = _threads(root, groups)
    return System(
        cpus=usable_cores(root),
        threads_left=left,
        threads_limit=limit,
        open_files=_limit(resource.RLIMIT_NOFILE),
        address_space=_limit(resource.RLIMIT_AS),
        memory=min([*_numbers(groups, "memory.max"), *_machine_memory(root)], default=None),
        shared_memory=_size(root / "dev/shm"),
        in_container=_is_container(root),
        gpus_on_bus=tuple(_cards(root)),
        device_files={
            f"/dev/{path.name}": os.access(path, os.R_OK | os.W_OK)
            for path in sorted((root / "dev").glob("nvidia*"))
            if not path.is_dir()
        },
    )


def _threads(root: Path, groups: list[Path]) -> tuple[int | None, str]:
    """How many more threads can be started, and by which limit."""
    rooms: list[tuple[int, str]] = []
    for group in groups:
        most, now = _number(group / "pids.max"), _number(group / "pids.current")
        if most is not None and now is not None:
            rooms.append((most - now, f"the control group's pids.max, {most}"))
    most = _limit(resource.RLIMIT_NPROC)
    if most is not None and os.getuid() != 0:  # root is exempt
        rooms.append((most - _own_threads(root), f"`ulimit -u`, {most}"))
    most = _number(root / "proc/sys/kernel/threads-max")
    if most is not None:
        rooms.append((most - _all_threads(root), f"kernel.threads-max, {most}"))
    return min(rooms, default=(None, ""))


def _own_threads(root: Path) -> int:
    count = 0
    for status in (root / "proc").glob("[0-9]*/status"):
        text = text_of(status)
        user, threads = re.search(r"^Uid:\s+(\d+)", text, re.M), re.search(r"^Threads:\s+(\d+)", text, re.M)
        if user and threads and int(user[1]) == os.getuid():
            count += int(threads[1])
    return count


def _all_threads(root: Path) -> int:
    found = re.search(r"\d+/(\d+)", text_of(root / "proc/loadavg"))
    return int(found[1]) if found else 0


def _numbers(groups: list[Path], name: str) -> list[int]:
    return [number for group in groups if (number := _number(group / name)) is not None]


def _machine_memory(root: Path) -> list[int]:
    found = re.search(r"^MemTotal:\s+(\d+) kB", text_of(root / "proc/meminfo"), re.M)
    return [int(found[1]) * 1024] if found else []


def _size(path: Path) -> int | None:
    try:
        system = os.statvfs(path)
    except OSError:
        return None
    return system.f_blocks * system.f_frsize


def _is_container(root: Path) -> bool:
    marks = (root / ".dockerenv", root / "run/.containerenv")
    return any(mark.exists() for mark in marks) or "KUBERNETES_SERVICE_HOST" in os.environ


def _cards(root: Path) -> list[str]:
    return [
        device.name
        for device in sorted((root / "sys/bus/pci/devices").glob("*"))
        if text_of(device / "vendor").strip() == _NVIDIA and text_of(device / "class").startswith(_DISPLAY)
    ]


def _limit(which: int) -> int | None:
    soft, _ = resource.getrlimit(which)
    return None if soft == resource.RLIM_INFINITY else soft


def _number(path: Path) -> int | None:
    text = text_of(path).strip()
    return int(text) if text.isdecimal() else None
