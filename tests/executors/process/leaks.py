"""What children leave behind, as the system sees it."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENCE = 20.0


def children(of: int | None = None) -> set[int]:
    """Process ids of the children of a process, zombies too."""
    found: set[int] = set()
    for task in Path(f"/proc/{os.getpid() if of is None else of}/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # a thread that has just ended
            found.update(map(int, (task / "children").read_text().split()))
    return found


def state_of(process: int) -> str:
    """The letter of its state; X if there is none."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "X"


def is_alive(process: int) -> bool:
    """Whether a process runs: it exists, and is no zombie."""
    return state_of(process) not in "ZX"


def stop(process: int) -> None:
    """Stop a process: one that waits for a message may receive another until the signal has reached it."""
    os.kill(process, signal.SIGSTOP)
    wait_until(lambda: state_of(process) == "T")


def open_files() -> int:
    """How many descriptors this process has."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def shared_memory() -> int:
    """Bytes of shared memory in use on the whole machine: where anonymous files are counted."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith("Shmem:"))
    return int(line.split()[1]) * 1024


def shared_names() -> set[str]:
    """What has a name in shared memory, whosever it is: compare with patience, as other programs' names come and go."""
    return {path.name for path in Path("/dev/shm").iterdir()}


def wait_until(condition: Callable[[], object], patience: float = PATIENCE) -> None:
    """Wait for what another process does on its own."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < patience, "it does not happen"
        time.sleep(0.002)
