"""Other processes of this machine, as Linux tells of them: which ones, their memory and their processor time."""

from __future__ import annotations

import time
from pathlib import Path


def those_with(name: str, value: str) -> list[int]:
    """Processes that were started with that variable in their environment."""
    entry, found = f"{name}={value}".encode(), []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if entry in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
        except OSError:  # it has ended, or belongs to another user
            continue
    return found


def memory(pid: int) -> int:
    """Bytes of a process; pages that several processes share count in parts that add up to one."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def processor_time(pid: int) -> float:
    """Seconds of all threads of a process so far, by the clock that `clock_getcpuclockid` finds."""
    return time.clock_gettime((~pid << 3) | 2)


def main_thread_time(pid: int) -> float:
    """The same of its main thread."""
    return int(Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()[0]) / 1e9


def processor_ticks(pid: int) -> int:
    """The same in ticks of `sysconf`, of a process that may have ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return int(fields[11]) + int(fields[12])
