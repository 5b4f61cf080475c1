"""Notices that another process uses the same GPU without sharing it.

Each open Director has a lock on a file for each of its GPUs, together with others, for as long as it is open. Who comes
first writes who he is.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from director._sharing.lock_file import HAS_LOCKS, LockFile, folder

if TYPE_CHECKING:
    from director._device import Device

_PATIENCE = 1.0  # seconds

logger = logging.getLogger("director")


class Presence:
    """This Director's own, on all of its GPUs; warns of others who don't share. Made and closed off the hot path.

    Args:
        gpus: Those of the Director.
        shared: The name under which it shares its slots, if it does.
    """

    def __init__(self, gpus: list[Device], shared: str | None) -> None:
        self._files: list[LockFile] = []
        if not HAS_LOCKS:
            return
        try:
            home = folder("devices")
            self._files = [LockFile(home, gpu.uuid.replace("/", "-")) for gpu in gpus]
            others = {gpu: _announce(file, shared) for gpu, file in zip(gpus, self._files, strict=True)}
        except (OSError, RuntimeError) as error:  # nobody's jobs may fail for a warning that can't be given
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
        """Be there no more."""
        for file in self._files:
            file.close()


def _announce(file: LockFile, shared: str | None) -> str | None:
    """Be present on one device; returns who else is, if that is a stranger."""
    mine = b""
    if file.try_lock():
        here = {"pid": os.getpid(), "program": _program(), "shared": shared, "at": time.monotonic_ns()}
        mine = json.dumps(here).encode()
        os.ftruncate(file.fd, 0)
        os.pwrite(file.fd, mine, 0)
    # This gives up what it has for a moment: another may come then, and believe that it is the first.
    until = time.monotonic() + _PATIENCE
    while not file.share():  # a process writes that it is the first
        if time.monotonic() > until:  # or was stopped as it did
            return "another process"
        time.sleep(0.001)
    found = os.pread(file.fd, 4096, 0)
    if found == mine:
        return None
    try:
        first = json.loads(found)
        pid, program, theirs = int(first["pid"]), ascii(str(first["program"]))[1:-1], first["shared"]
    except (ValueError, KeyError, TypeError, RecursionError):  # it died while it wrote
        return "another process"
    if shared is not None and theirs == shared:
        return None
    if pid == os.getpid():
        return "another Director of this process"
    return f"process {pid} ({program})" if Path(f"/proc/{pid}").exists() else "another process"


def _program() -> str:
    return " ".join([Path(sys.argv[0]).name, *sys.argv[1:3]])[:200]
