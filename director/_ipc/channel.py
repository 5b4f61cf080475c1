"""One end of a socket that preserves message boundaries.

A thread that releases the GIL while the event loop computes gets it back after 5 ms. A slot's thread that has several
messages to receive or to send would do so for each of them, so `receive_at_once` and `send_all` keep the GIL and handle
many messages in one system call. For a single message they cost more than they save.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import sys
from array import array
from collections import deque
from functools import cache, partial
from struct import Struct
from typing import Any, NoReturn

from director._ipc.frames import LONGEST, WireBroken

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


class Receiver:
    """Receives whole messages.

    Args:
        source: The socket.
        most: Messages that `receive_at_once` receives by one system call.
    """

    def __init__(self, source: socket.socket, most: int = _AT_A_TIME) -> None:
        memory, control = bytearray(most * LONGEST), bytearray(most * ROOM)
        self._receive = source.recvmsg_into
        self._arrived: deque[tuple[memoryview, list[int], int]] = deque()  # received, and not returned yet
        self._views = [memoryview(memory)[n : n + LONGEST] for n in range(0, len(memory), LONGEST)]
        self._controls = [memoryview(control)[n : n + ROOM] for n in range(0, len(control), ROOM)]
        self._pieces = self._views[:1]
        # The same buffers as `recvmmsg` takes them:
        headers, pieces = (_Entry * most)(), (_Piece * most)()
        for header, piece, view, part in zip(headers, pieces, self._views, self._controls, strict=True):
            piece.base, piece.length = _address(view), LONGEST
            header.message = _Message(None, 0, ctypes.addressof(piece), 1, _address(part), ROOM, 0)
        self._headers, self._unused, self._kept = memoryview(headers).cast("B"), bytes(headers), pieces
        arguments = source.fileno(), ctypes.addressof(headers), most, _NOW, None
        self._receive_several = partial(_libc().recvmmsg, *arguments)

    def receive(self, flags: int = _NOW) -> tuple[memoryview, list[int]] | None:
        """The next message and its descriptors; an empty message at the end. The next call overwrites it.

        Args:
            flags: By default it does not wait, and returns `None` if there is none now.

        Raises:
            WireBroken: The message is too long, or can't be received.
        """
        if self._arrived:
            return self._next_arrived()
        try:
            size, control, told, _ = self._receive(self._pieces, ROOM, flags)
        except BlockingIOError:
            return None
        except ConnectionResetError:
            return self._views[0][:0], []
        except OSError as error:
            raise WireBroken(f"a message can't be received: {error}") from error
        descriptors = descriptors_of(control[0][2]) if control else []
        if told & CUT:
            _refuse_cut(descriptors)
        return self._views[0][:size], descriptors

    def receive_at_once(self) -> tuple[memoryview, list[int]] | None:
        """As `receive`, never waiting and never releasing the GIL; one system call receives all that has arrived."""
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
                descriptors: list[int] = []
                if length:
                    end = int.from_bytes(control[:8], sys.byteorder)  # `cmsg_len`: what comes after it is padding
                    descriptors = descriptors_of(bytes(control[_HEAD:end]))
                arrived.append((view[:size], descriptors, flags))
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
    if descriptor >= 0:
        socket.send_fds(target, [message], [descriptor], _AT_ONCE)
    else:
        target.send(message, _AT_ONCE)


def send_at_once(target: int, message: bytes) -> None:
    """As `send` to a socket's descriptor, without releasing the GIL; raises the same."""
    if _libc().send(target, message, len(message), _AT_ONCE) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def send_all(target: socket.socket, messages: list[bytes]) -> int:
    """Send messages without descriptors, as many as there is room for, without releasing the GIL; returns how many."""
    count = min(MOST, len(messages))
    pieces, headers = (_Piece * count)(), (_Entry * count)()
    for piece, header, message in zip(pieces, headers, messages, strict=False):
        piece.base, piece.length = message, len(message)
        header.message.pieces, header.message.piece_count = ctypes.addressof(piece), 1
    sent: int = _libc().sendmmsg(target.fileno(), headers, count, _AT_ONCE)
    return max(0, sent)


def close_all(descriptors: list[int]) -> None:
    """Close descriptors of a message that is dropped."""
    for descriptor in descriptors:
        os.close(descriptor)


def wake_at_once(descriptor: int) -> None:
    """Write to an eventfd without releasing the GIL. Its count never overflows, so the write does not block."""
    _libc().eventfd_write(descriptor, 1)


@cache
def _libc() -> Any:
    libc = ctypes.PyDLL(None, use_errno=True)  # unlike `CDLL`, keeps the GIL
    libc.recvmmsg.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int, ctypes.c_void_p)
    libc.sendmmsg.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int)
    libc.send.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int)
    libc.eventfd_write.argtypes = (ctypes.c_int, ctypes.c_uint64)
    return libc
