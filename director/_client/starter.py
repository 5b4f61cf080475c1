"""Starts the server process: a new interpreter in a session of its own, which outlives this process."""

from __future__ import annotations

import marshal
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from director._executors.process.spawn import above_stdio, interpreter_options
from director._ipc import log_relay as logs
from director._ipc import main_module

if TYPE_CHECKING:
    import socket

_BOOT = Path(__file__).parents[1] / "cli/_serve.py"


def start(name: str, linger: float, listener: socket.socket, inode: int) -> None:
    """Start the server.

    Args:
        name: Its name.
        linger: Seconds that it stays without an application.
        listener: The listening socket, which it inherits.
        inode: Of the socket's file.

    Raises:
        OSError: The system can't start another process.
    """
    facts = {
        "path": [entry for entry in sys.path if isinstance(entry, str)],
        "argv": list(sys.argv),
        "main": main_module.origin(),
        "levels": logs.levels(),
        "name": name,
        "linger": linger,
        "listener": listener.fileno(),
        "inode": inode,
    }
    facts_file = above_stdio(os.memfd_create("director", os.MFD_CLOEXEC))
    try:
        os.pwrite(facts_file, marshal.dumps(facts), 0)
        command = [sys.executable, *interpreter_options(), str(_BOOT), str(facts_file), f"server {name}"]
        server = subprocess.Popen(  # noqa: S603 - our own interpreter
            command,
            stdin=subprocess.DEVNULL,
            pass_fds=[facts_file, listener.fileno()],
            start_new_session=True,  # the terminal's Ctrl-C and the end of this process are not for it
        )
    finally:
        os.close(facts_file)
    server.wait()  # the process has forked: the server is the copy
