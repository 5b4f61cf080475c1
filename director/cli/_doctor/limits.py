"""Limits of the operating system, held against what the GPUs need."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from director.cli import _words
from director.cli._doctor.finding import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from director import Device
    from director.cli._doctor.system import System

_finding = partial(Finding, "limits")
_GIB = 2**30
_FEW_THREADS = 64  # frameworks start dozens at once
_FEW_FILES = 1024
_LITTLE_SHARED = _GIB


def examine_limits(system: System, devices: Sequence[Device]) -> Iterator[Finding]:
    """Findings about CPUs, threads, files and memory."""
    yield _finding("limits", "ok", _summary(system))
    if system.threads_left is not None and system.threads_left < _FEW_THREADS + len(devices):
        text = f"only {_words.counted(system.threads_left, 'thread')} more can be started, by {system.threads_limit}"
        yield _finding("few-threads", "wrong", text, "raise the limit (docker run --pids-limit, ulimit -u, TasksMax=)")
    if system.open_files is not None and system.open_files < _FEW_FILES:
        text = f"a process may open only {_words.counted(system.open_files, 'file')}"
        yield _finding("few-files", "wrong", text, "ulimit -n 65536, or LimitNOFILE= of the service")
    if system.address_space is not None and devices:
        text = f"addresses are limited to {_gib(system.address_space)}; CUDA reserves more than all GPUs have memory"
        yield _finding("little-address-space", "wrong", text, "ulimit -v unlimited")
    if devices and system.cpus < len(devices):
        text = f"{_words.counted(len(devices), 'GPU')} are fed by {system.cpus:.3g} CPUs: they will wait for each other"
        yield _finding("few-cpus", "note", text, "give the container or service more CPUs")
    yield from _memory(system, devices)


def _memory(system: System, devices: Sequence[Device]) -> Iterator[Finding]:
    biggest = max((device.total_memory or 0 for device in devices), default=0)
    if system.memory is not None and system.memory < biggest:
        text = f"a GPU has {_gib(biggest)} of memory and this machine {_gib(system.memory)}: big models load through it"
        yield _finding("little-memory", "note", text, "load models in pieces (safetensors), or raise the limit")
    if system.shared_memory is not None and system.shared_memory < _LITTLE_SHARED:
        text = f"shared memory is {_gib(system.shared_memory)}; arrays between processes travel through it"
        yield _finding("little-shared-memory", "note", text, "docker run --shm-size=8g, or --ipc=host")


def _summary(system: System) -> str:
    parts = [
        f"{system.cpus:.3g} CPUs",
        f"memory {_gib(system.memory)}",
        f"shared memory {_gib(system.shared_memory)}",
        f"open files {'unlimited' if system.open_files is None else _words.count(system.open_files)}",
        f"threads left {'unlimited' if system.threads_left is None else _words.count(system.threads_left)}",
    ]
    return ", ".join(parts) + (", in a container" if system.in_container else "")


def _gib(size: int | None) -> str:
    return "unlimited" if size is None else f"{size / _GIB:.3g} GiB"
