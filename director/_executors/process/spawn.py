"""Starting a child: a fresh interpreter, never a fork, with the device in its environment before it begins."""

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
from director._ipc import main_module as program

if TYPE_CHECKING:
    from collections.abc import Mapping

    from director._device import Device

logger = logging.getLogger("director")
_BOOT = Path(__file__).with_name("child") / "boot.py"
_FIRST = 3  # a descriptor below would take the place of a closed stdin, stdout or stderr


def check_platform() -> None:
    """Raise what keeps children from being started here.

    Raises:
        RuntimeError: Something does.
    """
    if not hasattr(os, "memfd_create"):
        raise RuntimeError('executor="process" needs Linux; use executor="thread"')
    if getattr(sys, "frozen", False) or not sys.executable:
        raise RuntimeError('executor="process" starts a Python interpreter, and this program has none; use "thread"')
    program.refuse_while_importing()


def start(device: Device, descriptors: Mapping[str, int]) -> subprocess.Popen[bytes]:
    """Start a child.

    Args:
        device: Which it is for; a GPU is the only one that it sees.
        descriptors: What it inherits, by the names that `inside` knows.

    Raises:
        OSError: The system can't start another process.
    """
    facts = {
        "path": [entry for entry in sys.path if isinstance(entry, str)],
        "argv": list(sys.argv),
        "parent": os.getpid(),
        "main": program.origin(),
        "device": pickle.dumps(inner(device)),
        "levels": logs.levels(),
        **descriptors,
    }
    letter = above_stdio(os.memfd_create("director", os.MFD_CLOEXEC))
    try:
        os.pwrite(letter, marshal.dumps(facts), 0)
        command = [sys.executable, *_interpreter_options(), str(_BOOT), str(letter), device.label]
        return subprocess.Popen(  # noqa: S603 - our own interpreter
            command,
            stdin=subprocess.DEVNULL,
            env=environment(device),
            pass_fds=[letter, *descriptors.values()],
            start_new_session=True,  # what it starts is ended with it
        )
    finally:
        os.close(letter)


def inner(device: Device) -> Device:
    """A device as its child knows it: the only GPU there is the first."""
    return replace(device, index=0) if device.kind == "cuda" else device


def environment(device: Device) -> dict[str, str]:
    """The variables that a child for `device` begins with."""
    return {**os.environ, **({"CUDA_VISIBLE_DEVICES": device.uuid} if device.kind == "cuda" else {})}


def above_stdio(descriptor: int) -> int:
    """The same file under a number that no standard stream has."""
    if descriptor >= _FIRST:
        return descriptor
    try:
        return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _FIRST)
    finally:
        os.close(descriptor)


def _interpreter_options() -> list[str]:
    """Those that this interpreter was started with: -W, -X, -O and their like."""
    options: list[Any] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]  # what multiprocessing uses
    return options
