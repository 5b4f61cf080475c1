"""How much memory of the host this process may use: by its size, and by the limits of its control groups."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

from director._devices.cores import control_groups, text_of


@cache
def usable_memory(root: Path = Path("/")) -> int:
    """Bytes of the host's memory, or of the smallest limit of a control group; 0 where the system does not tell.

    Args:
        root: Where the system's files are; tests provide those of another machine.
    """
    groups = control_groups(root) or [root / "sys/fs/cgroup"]
    limits = [text_of(group / "memory.max").strip() for group in groups]
    limits.append(text_of(root / "sys/fs/cgroup/memory/memory.limit_in_bytes").strip())  # version 1
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0  # not on Windows
    return min([total, *(int(limit) for limit in limits if limit.isdigit())])
