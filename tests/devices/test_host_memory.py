"""How much of the host's memory this process may use."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from director._devices.host import usable_memory

if TYPE_CHECKING:
    from pathlib import Path

ALL = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def machine(root: Path, **files: str) -> Path:
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("memory_max", "memory.max").replace("limit_in", "memory.limit_in")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(("limit", "expected"), [("1073741824\n", 2**30), ("max\n", ALL), (str(2**62), ALL), ("", ALL)])
def test_it_is_that_of_the_control_group_or_of_the_machine(tmp_path: Path, limit: str, expected: int) -> None:
    root = machine(tmp_path, proc__self__cgroup="0::/app\n", sys__fs__cgroup__app__memory_max=limit)
    assert usable_memory(root) == expected


def test_the_smallest_limit_counts(tmp_path: Path) -> None:
    files = {"sys__fs__cgroup__pod__memory_max": "4096", "sys__fs__cgroup__pod__app__memory_max": "8192"}
    assert usable_memory(machine(tmp_path, proc__self__cgroup="0::/pod/app\n", **files)) == 4096


def test_version_1_of_control_groups_too(tmp_path: Path) -> None:
    assert usable_memory(machine(tmp_path, sys__fs__cgroup__memory__limit_in_bytes="4096")) == 4096
