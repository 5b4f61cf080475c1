"""How many cores, and how much memory of the host, this process may use: also by its control groups' limits."""

from __future__ import annotations

import os
import re
from functools import cache
from pathlib import Path


def usable_cores(root: Path = Path("/")) -> float:
    """Cores, perhaps a fraction of one."""
    return min([float(len(os.sched_getaffinity(0))), *_quotas(root)])


def control_groups(root: Path) -> list[Path]:
    """The control group of this process and those around it (version 2), the innermost first."""
    return _around(root / "sys/fs/cgroup", root, "0::")


def text_of(path: Path) -> str:
    """The content of a file of the system; ``""`` if it can't be read."""
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError):
        return ""


def _around(top: Path, root: Path, entry: str) -> list[Path]:
    found = re.search(rf"^{entry}/(.*)$", text_of(root / "proc/self/cgroup"), re.M)
    if found is None:
        return []
    own = top / found[1]
    return [own, *(parent for parent in own.parents if parent.is_relative_to(top))]


def _quotas(root: Path) -> list[float]:
    """Cores that the control groups grant, of either version."""
    pairs = [text_of(group / "cpu.max") for group in control_groups(root)]
    pairs += [
        f"{text_of(group / 'cpu.cfs_quota_us').strip()} {text_of(group / 'cpu.cfs_period_us')}"
        for group in _around(root / "sys/fs/cgroup/cpu", root, r"\d+:(?:[\w=,]*,)?cpu(?:,[\w=,]*)?:")
    ]
    found = (re.match(r"(\d+) (\d+)", pair) for pair in pairs)
    return [int(match[1]) / int(match[2]) for match in found if match and int(match[1]) and int(match[2])]


@cache
def usable_memory(root: Path = Path("/")) -> int:
    """Bytes of the host's memory, or of the smallest limit of a control group; 0 where the system does not tell."""
    groups = control_groups(root) or [root / "sys/fs/cgroup"]
    limits = [text_of(group / "memory.max").strip() for group in groups]
    limits.append(text_of(root / "sys/fs/cgroup/memory/memory.limit_in_bytes").strip())  # version 1
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0  # not on Windows
    return min([total, *(int(limit) for limit in limits if limit.isdigit())])
