"""The server process: started by `director._client.starter`, serves until the last application has left."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import signal
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from director._ipc.log_relay import redirect
from director._ipc.main_module import LazyMainModule
from director._ipc.sharing import name_server
from director._ipc.sharing.lock_file import LockFile, private_folder
from director._ipc.sharing.server_socket import SOCKET, START
from director._server.host import Host
from director._server.lifetime import Lifetime

if TYPE_CHECKING:
    from collections.abc import Callable

    from director._server.shown import Dashboards, ShownDirector

logger = logging.getLogger("director")


def main(facts: dict[str, Any], dashboards: Callable[[ShownDirector], Dashboards]) -> None:
    """Serve.

    Args:
        facts: Written by the application that has started this process.
        dashboards: Makes what shows the Director to people.
    """
    os.set_inheritable(facts["listener"], False)  # not for processes that a job starts
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the applications decide
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    name_server(facts["name"])
    LazyMainModule(facts["main"]).install()
    _raise_limit()
    asyncio.run(_serve(facts, dashboards))


async def _serve(facts: dict[str, Any], dashboards: Callable[[ShownDirector], Dashboards]) -> None:
    listener = socket.socket(fileno=facts["listener"])
    home = private_folder("server", facts["name"])
    path = home.path / SOCKET

    def remove() -> None:
        with suppress(FileNotFoundError):
            if path.stat().st_ino == facts["inode"]:  # else it is that of the next server
                path.unlink()

    lifetime = Lifetime(LockFile(home, START), remove, facts["linger"])
    host = Host(facts["name"], listener, lifetime, facts["linger"], home, dashboards)
    redirect(facts["levels"], host.relay)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, lifetime.hurry)
    lifetime.watch(host)
    await lifetime.over.wait()
    await host.close()


def _raise_limit() -> None:
    """Each large argument of a job that waits takes a descriptor."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
