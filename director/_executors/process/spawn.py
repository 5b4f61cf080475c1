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

from director._devices.host import usable_cores
from director._ipc import log_relay as logs
from director._ipc import main_module, spawn_state
from director._system import launched
from director._untrusted import objects

if TYPE_CHECKING:
    from collections.abc import Mapping

    from director._device import Device

logger = logging.getLogger("director")
_BOOT = Path(__file__).with_name("child") / "boot.py"
# How many threads libraries start for one computation; by default as many as the machine has cores, in each process.
_THREADS_OF_THEIR_OWN = ("VECLIB_MAXIMUM_THREADS", "NUMBA_NUM_THREADS", "RAYON_NUM_THREADS")
_THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",  # this one and the next three are those of OMP_NUM_THREADS if they are not set
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    *_THREADS_OF_THEIR_OWN,
)
_FIRST = 3  # lower descriptors are stdin, stdout and stderr, if they are closed


def check_platform() -> None:
    """Check that children can be started.

    Raises:
        RuntimeError: They can't.
    """
    if not hasattr(os, "memfd_create"):
        raise RuntimeError('executor="process" needs Linux; use executor="thread"')
    if getattr(sys, "frozen", False) or not launched.interpreter():
        raise RuntimeError('executor="process" starts a Python interpreter, and this program has none; use "thread"')
    if not _BOOT.is_file():
        raise RuntimeError(
            f'executor="process" runs a file of this package, and {_BOOT.parents[4]} is no folder: install '
            'gpu-director beside the archive, or use executor="thread"'
        )
    main_module.refuse_while_importing()


def start(device: Device, descriptors: Mapping[str, int], children: int) -> subprocess.Popen[bytes]:
    """Start a child.

    Args:
        device: Its device; the only GPU that it sees.
        descriptors: What it inherits, by the names that `child.main` uses.
        children: How many children share the machine's cores.

    Raises:
        OSError: The system can't start another process.
    """
    facts_file, tracker = -1, spawn_state.tracker()
    try:
        facts = {
            "path": launched.import_path(sys.path),
            "argv": [_text(argument) for argument in getattr(sys, "argv", ())],
            "parent": os.getpid(),
            "main": main_module.origin(),
            "device": pickle.dumps(inner(device)),
            "levels": logs.levels(),
            "tracker": tracker,
            **spawn_state.offer(),
            **descriptors,
        }
        facts_file = above_stdio(os.memfd_create("director", os.MFD_CLOEXEC))
        os.pwrite(facts_file, marshal.dumps(facts), 0)
        command = [launched.interpreter(), *interpreter_options(), str(_BOOT), str(facts_file), device.label]
        return subprocess.Popen(  # noqa: S603 - our own interpreter
            command,
            stdin=subprocess.DEVNULL,
            env=environment(device, children),
            pass_fds=[each for each in (facts_file, tracker, *descriptors.values()) if each >= 0],
            start_new_session=True,  # its descendants are killed with it
        )
    finally:
        for descriptor in (facts_file, tracker):
            if descriptor >= 0:
                os.close(descriptor)


def inner(device: Device) -> Device:
    """The device in its child, where the only GPU has the index 0."""
    return replace(device, index=0) if device.kind == "cuda" else device


def environment(device: Device, children: int) -> dict[str, str]:
    """The environment of one of so many children: its GPU, and its share of the cores for libraries with threads."""
    found = {**os.environ}
    share = str(max(1, int(usable_cores()) // max(1, children)))
    for name in _THREADS if "OMP_NUM_THREADS" not in found else _THREADS_OF_THEIR_OWN:
        found.setdefault(name, share)
    if device.kind == "cuda":
        found["CUDA_VISIBLE_DEVICES"] = device.uuid
    return found


def above_stdio(descriptor: int) -> int:
    """Duplicate a descriptor above those of the standard streams, if it is one of them; closes the old one."""
    if descriptor >= _FIRST:
        return descriptor
    try:
        return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _FIRST)
    finally:
        os.close(descriptor)


def _text(argument: object) -> str:
    """An entry of `sys.argv`, where programs put paths and numbers too."""
    try:
        return str.__str__(argument if isinstance(argument, str) else os.fspath(argument))  # type: ignore[call-overload]
    except TypeError:
        return objects.repr_of(argument)


def interpreter_options() -> list[str]:
    """The options of this interpreter: -W, -X, -O and others."""
    options: list[Any] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]  # what multiprocessing uses
    return options
