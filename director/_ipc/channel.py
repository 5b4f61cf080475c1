"""One end of a socket that preserves message boundaries. Nothing here waits, or releases the GIL.

`receive_at_once` and `send_all` handle many messages in one system call. For a single message they take longer.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import sys
from array import array
from collections import deque
from functools import partial
from struct import Struct
from typing import NoReturn

from director._ipc.frames import LONGEST, WireBroken
from director._ipc.libc import checked, failure, libc

_DESCRIPTORS = 4  # most that are received with one message; none has more
_HEAD, _INT = 16, 4  # bytes of a `cmsghdr`, and of a descriptor
ROOM = socket.CMSG_SPACE(_DESCRIPTORS * _INT)
# As plain ints: combining enum flags takes longer than receiving a message.
KEPT = int(socket.MSG_CMSG_CLOEXEC)
_NOW, CUT = KEPT | int(socket.MSG_DONTWAIT), int(socket.MSG_TRUNC)
_AT_ONCE = int(socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
MOST = 64  # most messages sent by one system call
_AT_A_TIME = 16  # most messages received by one, usually


class _Piece(ctypes.Structure):
    _fields_ = (("base", ctypes.c_char_p), ("length", ctypes.c_size_t))


class _Message(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("pieces", ctypes.c_void_p),
        ("piece_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Entry(ctypes.Structure):
    _fields_ = (("message", _Message), ("length", ctypes.c_uint))


_ENTRY = Struct("@40xNi4xI4x")  # of an `_Entry`: length of the control data, flags, length
assert _ENTRY.size == ctypes.sizeof(_Entry)
_RIGHTS = Struct("@Nii i4x")  # a `cmsghdr` with one descriptor
assert _RIGHTS.size == socket.CMSG_SPACE(_INT)


class Receiver:
    """Receives whole messages.

    Args:
        source: The socket.
        most: Messages that `receive_at_once` receives by one system call.
    """

    def __init__(self, source: socket.socket, most: int = _AT_A_TIME) -> None:
        memory, control = bytearray(most * LONGEST), bytearray(most * ROOM)
        self._arrived: deque[tuple[memoryview, list[int], int]] = deque()  # received, and not returned yet
        self._views = [memoryview(memory)[n : n + LONGEST] for n in range(0, len(memory), LONGEST)]
        self._controls = [memoryview(control)[n : n + ROOM] for n in range(0, len(control), ROOM)]
        # The same buffers as the system takes them:
        headers, pieces = (_Entry * most)(), (_Piece * most)()
        for header, piece, view, part in zip(headers, pieces, self._views, self._controls, strict=True):
            piece.base, piece.length = _address(view), LONGEST
            header.message = _Message(None, 0, ctypes.addressof(piece), 1, _address(part), ROOM, 0)
        self._headers, self._unused, self._kept = memoryview(headers).cast("B"), bytes(headers), pieces
        at = ctypes.addressof(headers)
        self._receive = partial(libc().recvmsg, source.fileno(), at, _NOW)
        self._receive_several = partial(libc().recvmmsg, source.fileno(), at, most, _NOW, None)

    def receive(self) -> tuple[memoryview, list[int]] | None:
        """The next message and its descriptors, or `None`; an empty message at the end. The next call overwrites it.

        Raises:
            WireBroken: The message is too long, or can't be received.
        """
        if self._arrived:
            return self._next_arrived()
        self._headers[: _ENTRY.size] = self._unused[: _ENTRY.size]
        size = self._receive()
        if size < 0:
            error = failure()
            if isinstance(error, BlockingIOError):
                return None
            if isinstance(error, ConnectionResetError):
                return self._views[0][:0], []
            raise WireBroken(f"a message can't be received: {error}") from error
        length, told, _ = _ENTRY.unpack_from(self._headers)
        descriptors = _descriptors_in(self._controls[0]) if length else []
        if told & CUT:
            _refuse_cut(descriptors)
        return self._views[0][:size], descriptors

    def receive_at_once(self) -> tuple[memoryview, list[int]] | None:
        """As `receive`; one system call receives all that has arrived."""
        arrived = self._arrived
        if not arrived:
            self._headers[:] = self._unused
            count = self._receive_several()
            if count < 0:  # no message, or an error, which `receive` raises
                return None if ctypes.get_errno() == errno.EAGAIN else self.receive()
            told = _ENTRY.iter_unpack(self._headers)
            for _, view, control, (length, flags, size) in zip(
                range(count), self._views, self._controls, told, strict=False
            ):
                arrived.append((view[:size], _descriptors_in(control) if length else [], flags))
        return self._next_arrived()

    def close(self) -> None:
        """Close the descriptors of messages that were received and not returned."""
        while self._arrived:
            close_all(self._arrived.popleft()[1])

    def _next_arrived(self) -> tuple[memoryview, list[int]]:
        whole, descriptors, told = self._arrived.popleft()
        if told & CUT:
            _refuse_cut(descriptors)
        return whole, descriptors


def _refuse_cut(descriptors: list[int]) -> NoReturn:
    close_all(descriptors)
    raise WireBroken("a message is too long")


def _descriptors_in(control: memoryview) -> list[int]:
    end = int.from_bytes(control[:8], sys.byteorder)  # `cmsg_len`: what comes after it is padding
    return descriptors_of(bytes(control[_HEAD:end]))


def _address(memory: memoryview) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


def descriptors_of(control: bytes) -> list[int]:
    """The descriptors in `SCM_RIGHTS` data."""
    return array("i", control[: len(control) - len(control) % _INT]).tolist()


def send(target: socket.socket, message: bytes, descriptor: int = -1) -> None:
    """Send a message, with a descriptor unless that is negative.

    Raises:
        BlockingIOError: There is no room for it now.
        OSError: It can't be sent.
    """
    if descriptor < 0:
        checked(libc().send(target.fileno(), message, len(message), _AT_ONCE))
        return
    rights = _RIGHTS.pack(socket.CMSG_LEN(_INT), socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptor)
    control = ctypes.create_string_buffer(rights, len(rights))
    piece = _Piece(message, len(message))
    head = _Message(None, 0, ctypes.addressof(piece), 1, ctypes.addressof(control), len(rights), 0)
    checked(libc().sendmsg(target.fileno(), ctypes.addressof(head), _AT_ONCE))


def send_all(target: socket.socket, messages: list[bytes]) -> int:
    """Send messages without descriptors, as many as there is room for; returns how many."""
    count = min(MOST, len(messages))
    pieces, headers = (_Piece * count)(), (_Entry * count)()
    for piece, header, message in zip(pieces, headers, messages, strict=False):
        piece.base, piece.length = message, len(message)
        header.message.pieces, header.message.piece_count = ctypes.addressof(piece), 1
    sent: int = libc().sendmmsg(target.fileno(), headers, count, _AT_ONCE)
    return max(0, sent)


def close_all(descriptors: list[int]) -> None:
    """Close descriptors of a message that is dropped."""
    for descriptor in descriptors:
        os.close(descriptor)


def wake_at_once(descriptor: int) -> None:
    """Write to an eventfd. Its count never overflows, so the write does not block."""
    libc().eventfd_write(descriptor, 1)
