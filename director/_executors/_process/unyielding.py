"""Reading and writing that keep the GIL.

Whoever gives the GIL up beside a loop that computes gets it back 5 ms later. A slot's thread that looks after its child
would do so three times: to wait, to read, to write. Waiting it has to; the other two don't block. They cost some
microseconds more than the usual ones, so they are for looks at several answers at once.
"""

from __future__ import annotations

import ctypes
import os
import socket
from functools import cache
from typing import Any

_ROOM = 1 << 16  # bytes of one read: all that a pipe holds, for a part of it might end in the midst of an answer


class Reader:
    """Reads a descriptor that has something to read.

    Args:
        descriptor: Of it.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._buffer = ctypes.create_string_buffer(_ROOM)

    def read(self) -> bytes:
        """What is there, empty at its end."""
        size = _libc().read(self._descriptor, self._buffer, _ROOM)
        if size < 0:  # interrupted, or worse: the usual way says what it is
            return os.read(self._descriptor, _ROOM)
        return ctypes.string_at(self._buffer, size)


def send(target: socket.socket, content: bytes) -> None:
    """Send all of `content`; what the other side's inbox has no room for in the usual way."""
    size = _libc().send(target.fileno(), content, len(content), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
    if size < len(content):
        target.sendall(content[max(0, size) :])


@cache
def _libc() -> Any:
    libc = ctypes.PyDLL(None)  # unlike `CDLL`, it keeps the GIL
    libc.read.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t)
    libc.send.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int)
    libc.read.restype = libc.send.restype = ctypes.c_ssize_t
    return libc
