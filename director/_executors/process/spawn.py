"""Starts a child: a new interpreter, never a fork, with the device in its environment."""

from __future__ import annotations

import fcntl
import logging
import marshal
import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from director._ipc import log_relay as logs
from director._ipc import main_module

if TYPE_CHECKING:
    from collections.abc import Mapping

    from director._device import Device

logger = logging.getLogger("director")
_BOOT = Path(__file__).with_name("child") / "boot.py"
_FIRST = 3  # lower descriptors are stdin, stdout and stderr, if they are closed


def check_platform() -> None:
    """Check that children can be started.

    Raises:
        RuntimeError: They can't.
    """
    if not hasattr(os, "memfd_create"):
        raise RuntimeError('executor="process" needs Linux; use executor="thread"')
    if getattr(sys, "frozen", False) or not sys.executable:
        raise RuntimeError('executor="process" starts a Python interpreter, and this program has none; use "thread"')
    main_module.refuse_while_importing()


def start(device: Device, descriptors: Mapping[str, int]) -> subprocess.Popen[bytes]:
    """Start a child.

    Args:
        device: Its device; the only GPU that it sees.
        descriptors: What it inherits, by the names that `child.main` uses.

    Raises:
        OSError: The system can't start another process.
    """
    facts = {
        "path": [entry for entry in sys.path if isinstance(entry, str)],
        "argv": list(sys.argv),
        "parent": os.getpid(),
        "main": main_module.origin(),
        "device": pickle.dumps(inner(device)),
        "levels": logs.levels(),
        **descriptors,
    }
    facts_file = above_stdio(os.memfd_create("director", os.MFD_CLOEXEC))
    try:
        os.pwrite(facts_file, marshal.dumps(facts), 0)
        command = [sys.executable, *_interpreter_options(), str(_BOOT), str(facts_file), device.label]
        return subprocess.Popen(  # noqa: S603 - our own interpreter
            command,
            stdin=subprocess.DEVNULL,
            env=environment(device),
            pass_fds=[facts_file, *descriptors.values()],
            start_new_session=True,  # its descendants are killed with it
        )
    finally:
        os.close(facts_file)


def inner(device: Device) -> Device:
    """The device in its child, where the only GPU has the index 0."""
    return replace(device, index=0) if device.kind == "cuda" else device


def environment(device: Device) -> dict[str, str]:
    """The environment of a child for `device`."""
    return {**os.environ, **({"CUDA_VISIBLE_DEVICES": device.uuid} if device.kind == "cuda" else {})}


def above_stdio(descriptor: int) -> int:
    """Duplicate a descriptor above those of the standard streams, if it is one of them; closes the old one."""
    if descriptor >= _FIRST:
        return descriptor
    try:
        return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _FIRST)
    finally:
        os.close(descriptor)


def _interpreter_options() -> list[str]:
    """The options of this interpreter: -W, -X, -O and others."""
    options: list[Any] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]  # what multiprocessing uses
    return options
