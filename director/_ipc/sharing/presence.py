"""Detects that another process uses the same GPU without sharing it.

Each open Director holds a shared lock on a file per GPU for as long as it is open. The first one writes its process
and the name it shares its slots under into the file.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from director._ipc.sharing.lock_file import HAS_LOCKS, LockFile, folder

if TYPE_CHECKING:
    from director._device import Device

_PATIENCE = 1.0  # seconds

logger = logging.getLogger("director")


class Presence:
    """Registers one Director on all of its GPUs, and warns of processes that don't share. Not used while jobs run."""

    def __init__(self, gpus: list[Device], shared: str | None) -> None:
        self._files: list[LockFile] = []
        if not HAS_LOCKS:
            return
        try:
            home = folder("devices")
            self._files = [LockFile(home, gpu.uuid.replace("/", "-")) for gpu in gpus]
            others = {gpu: _announce(file, shared) for gpu, file in zip(gpus, self._files, strict=True)}
        except (OSError, RuntimeError) as error:
            # A missing warning must not fail any job.
            logger.info("can't tell whether other processes use the same GPUs: %s", error)
            return
        for gpu, other in others.items():
            if other is not None:
                logger.warning(
                    "%s (%s) is used by %s too, so each of them runs jobs and loads models on it as if it were alone. "
                    "Use one process for all GPUs, or give every one of them the same Director(shared='a-name').",
                    gpu.label,
                    gpu.uuid,
                    other,
                )

    def close(self) -> None:
        """Unregister."""
        for file in self._files:
            file.close()


def _announce(file: LockFile, shared: str | None) -> str | None:
    """Register on one device; returns the other process on it, if that does not share its slots."""
    mine = b""
    if file.try_lock():
        program = " ".join([Path(sys.argv[0]).name, *sys.argv[1:3]])[:200]
        here = {"pid": os.getpid(), "program": program, "shared": shared, "at": time.monotonic_ns()}
        mine = json.dumps(here).encode()
        os.ftruncate(file.fd, 0)
        os.pwrite(file.fd, mine, 0)
    # `share` releases an exclusive lock before it acquires the shared one: another process may acquire it in between
    # and register as the first one too.
    until = time.monotonic() + _PATIENCE
    # The first process holds the lock exclusively until it has written its entry, and longer if it was stopped then.
    while not file.share():
        if time.monotonic() > until:
            return "another process"
        time.sleep(0.001)
    found = os.pread(file.fd, 4096, 0)
    if found == mine:
        return None
    try:
        first = json.loads(found)
        pid, program, theirs = int(first["pid"]), ascii(str(first["program"]))[1:-1], first["shared"]
    except (ValueError, KeyError, TypeError, RecursionError):
        # The first process died while it wrote its entry.
        return "another process"
    if shared is not None and theirs == shared:
        return None
    if pid == os.getpid():
        return "another Director of this process"
    return f"process {pid} ({program})" if Path(f"/proc/{pid}").exists() else "another process"
