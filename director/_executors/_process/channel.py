"""One end of a socket that keeps the borders between messages; its calls don't block, and keep the GIL.

A thread that gives the GIL up beside a loop that computes gets it back 5 ms later. A slot's thread would do so three
times for each call: to wait, to receive, to send. It has to for a wait; the others don't block.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import sys
from array import array
from functools import cache
from typing import Any

from director._executors._process.wire import LONGEST, WireBroken

_DESCRIPTORS = 4  # that a message is read with; more than one may have
_HEAD, _INT = 16, 4  # bytes of a `cmsghdr`, and of a descriptor
_CUT = socket.MSG_TRUNC
_FLAGS = socket.MSG_DONTWAIT | getattr(socket, "MSG_CMSG_CLOEXEC", 0)


class _Piece(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Message(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("pieces", ctypes.POINTER(_Piece)),
        ("piece_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class Receiver:
    """Receives whole messages.

    Args:
        descriptor: Of the socket.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._content = ctypes.create_string_buffer(LONGEST)
        self._control = ctypes.create_string_buffer(_HEAD + _DESCRIPTORS * _INT)
        piece = _Piece(ctypes.addressof(self._content), LONGEST)
        self._room = len(self._control)
        self._message = _Message(None, 0, ctypes.pointer(piece), 1, ctypes.addressof(self._control), self._room, 0)
        self._pointer = ctypes.byref(self._message)

    def receive(self) -> tuple[bytes, list[int]] | None:
        """The next message and its descriptors; `None` if there is none now, an empty one at the end.

        Raises:
            WireBroken: It is longer than any message, or can't be received.
        """
        message = self._message
        message.control_length = self._room
        size = _libc().recvmsg(self._descriptor, self._pointer, _FLAGS)
        if size < 0:
            number = ctypes.get_errno()
            if number in (errno.EAGAIN, errno.EINTR):
                return None
            if number == errno.ECONNRESET:
                return b"", []
            raise WireBroken(f"a message can't be received: {os.strerror(number)}")
        descriptors: list[int] = []
        if message.control_length > _HEAD:
            control = self._control.raw
            end = int.from_bytes(control[:8], sys.byteorder)  # `cmsg_len`: what comes after it is padding
            descriptors = array("i", control[_HEAD:end]).tolist()
        if message.flags & _CUT:
            close_all(descriptors)
            raise WireBroken("a message that is too long")
        return ctypes.string_at(self._content, size), descriptors


def send(target: socket.socket, message: bytes, descriptor: int = -1) -> None:
    """Send a message, with a descriptor or none, as one piece.

    Raises:
        BlockingIOError: There is no room for it now.
        OSError: It can't be sent.
    """
    if descriptor >= 0:
        socket.send_fds(target, [message], [descriptor], socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        return
    while _libc().send(target.fileno(), message, len(message), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL) < 0:
        number = ctypes.get_errno()
        if number != errno.EINTR:
            raise OSError(number, os.strerror(number))  # of the class that belongs to the number


def close_all(descriptors: list[int]) -> None:
    """Close what came with a message that nobody needs."""
    for descriptor in descriptors:
        os.close(descriptor)


@cache
def _libc() -> Any:
    libc = ctypes.PyDLL(None, use_errno=True)  # unlike `CDLL`, it keeps the GIL
    libc.recvmsg.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_int)
    libc.send.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int)
    libc.recvmsg.restype = libc.send.restype = ctypes.c_ssize_t
    return libc
