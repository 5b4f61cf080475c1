"""Where the applications of this user find the server process with a name, and how the first of them starts it.

The socket is a file in a folder that no other user can enter. The kernel tells whether a server is there: without one,
`connect` fails. The application that has to start one holds a lock meanwhile, and makes the socket itself, so that its
connection and those of others wait until the new process accepts them.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from director._ipc.sharing.lock_file import LockFile, private_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from director._ipc.sharing.lock_file import Folder

SOCKET, START = "socket", "start"
_BACKLOG = 128
_NOBODY = {errno.ENOENT, errno.ECONNREFUSED, errno.ECONNRESET}
_PEERCRED = struct.Struct("3i")


def connect(name: str, start: Callable[[socket.socket, int], None]) -> socket.socket | None:
    """A connection to the server with a name, which is started if there is none. Blocks, not on the event loop.

    `None` if the server that was started has ended already.

    Args:
        name: The server's.
        start: Starts it, with the listening socket and the inode of its file.

    Raises:
        RuntimeError: The folder for the socket can't be used, or the server belongs to another user.
        OSError: The server can't be started.
    """
    home = private_folder("server", name)
    if (found := _try(home)) is not None:
        return found
    lock = LockFile(home, START)
    lock.lock()
    try:
        if (found := _try(home)) is not None:
            return found
        listener, inode = _listen(home)
        try:
            start(listener, inode)
        finally:
            listener.close()
        return _try(home)
    finally:
        lock.close()


def _try(home: Folder) -> socket.socket | None:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        with _short(home) as path:
            connection.connect(path)
    except OSError as error:
        connection.close()
        if error.errno in _NOBODY:
            return None
        raise
    pid, user, _ = _PEERCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEERCRED.size))
    if user != os.geteuid():
        connection.close()
        raise RuntimeError(f"process {pid} of user {user} listens in {home.path}: it is not this user's server")
    return connection


def _listen(home: Folder) -> tuple[socket.socket, int]:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        with suppress(FileNotFoundError):
            (home.path / SOCKET).unlink()
        with _short(home) as path:
            listener.bind(path)
        (home.path / SOCKET).chmod(0o600)
        listener.listen(_BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener, (home.path / SOCKET).stat().st_ino


@contextmanager
def _short(home: Folder) -> Iterator[str]:
    """A path of the socket that is short enough for the kernel (107 bytes), whatever the folder's is."""
    descriptor = os.open(home.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{SOCKET}"
    finally:
        os.close(descriptor)
