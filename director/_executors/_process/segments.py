"""Shared memory without names: each side fills segments of its own and sends their descriptors over a socket.

A segment is an anonymous file (memfd). It has no name, so nothing is left when either side is killed: the system frees
it with the last descriptor and mapping. It lies outside of /dev/shm, whose size containers bound. It is filled by
`pwrite`, which gives up the GIL, and raises where a mapping would die of SIGBUS when memory runs out.

A few segments are kept and filled again once the other side has let go of them: their pages are there already. The
other side maps them and hands out views; it says so when nobody looks any more (the `freed` bits of each frame).
Everything beyond that travels once. `Shipments` belong to one sender and `Arrivals` to one receiver; neither locks.
"""

from __future__ import annotations

import errno
import os
import pickle
import socket
from mmap import mmap
from typing import TYPE_CHECKING, Any
from weakref import finalize

from director._executors._process.parcels import Parcel, unwrap
from director._executors._process.wire import NOWHERE, Load

if TYPE_CHECKING:
    from collections.abc import Iterable

KEPT = 4  # segments for each direction
KEPT_SIZE = 64 << 20  # bytes of the largest one that is kept
VIEWED = 16  # mappings that the receiver's objects may live in; each holds a descriptor. Beyond that they get a copy
_ONCE, _FRESH = 0x20, 0x40  # beside the number of a segment: it is not kept; its descriptor comes over the socket
_NUMBER = 0x1F


class Shipments:
    """Segments that this side fills.

    Args:
        control: Takes their descriptors to the other side.
    """

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._kept: list[int] = []  # descriptors, by number
        self._idle = 0  # a bit for each kept segment that nobody looks at

    def freed(self, bits: int) -> None:
        """The other side has let go of these."""
        self._idle |= bits

    def send(self, parcel: Parcel, room: int) -> Load:
        """Put `parcel` where the other side finds it: into the frame if it takes no more than `room`.

        Raises:
            OSError: There is no memory, or no descriptor, for it.
        """
        if not parcel.buffers and len(parcel.stream) <= room:
            return Load(parcel.stream)
        pieces = list(parcel.pieces())
        offset, last = pieces[-1]
        length = offset + len(last)
        segment, descriptor = self._choose(length)
        try:
            _fill(descriptor, pieces)
            if segment & _FRESH:
                socket.send_fds(self._control, [b"."], [descriptor])
        except BaseException:
            self._forget(segment)
            raise
        finally:
            if segment & _ONCE:
                os.close(descriptor)
        return Load(b"", segment, length)

    def close(self) -> None:
        """Let go of everything."""
        while self._kept:
            os.close(self._kept.pop())

    def _choose(self, length: int) -> tuple[int, int]:
        if length > KEPT_SIZE or not (self._idle or len(self._kept) < KEPT):
            return _ONCE | _FRESH, _new()
        if not self._idle:
            self._kept.append(_new())
            return (len(self._kept) - 1) | _FRESH, self._kept[-1]
        number = (self._idle & -self._idle).bit_length() - 1
        self._idle &= ~(1 << number)
        return number, self._kept[number]

    def _forget(self, segment: int) -> None:
        """A kept one could not be filled, or its descriptor not be sent."""
        if segment & _ONCE:
            return
        if segment & _FRESH:
            os.close(self._kept.pop())
        else:
            self._idle |= 1 << segment


class Arrivals:
    """Segments that the other side has filled.

    Args:
        control: Brings their descriptors.
    """

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._kept: dict[int, int] = {}  # descriptors, by number
        # Changed by whichever thread lets go of the last view, in single steps that need no lock:
        self._live: set[object] = set()  # a token for each mapping in use
        self.freed: list[int] = []  # numbers of kept segments that nobody looks at any more

    def take_freed(self) -> int:
        """The segments that were let go of since the last call, as bits."""
        bits = 0
        while self.freed:
            try:
                bits |= 1 << self.freed.pop()
            except IndexError:  # another thread was quicker
                break
        return bits

    def put_back(self, bits: int) -> None:
        """What was let go of has not been told after all."""
        self.freed.extend(number for number in range(KEPT) if bits >> number & 1)

    def receive(self, load: Load) -> Any:
        """The object that a frame carries; `None` for an empty one.

        Raises:
            BaseException: It can't be unpickled here.
        """
        if load.segment == NOWHERE:
            return pickle.loads(load.inline) if load.inline else None  # noqa: S301 - our own child's, or parent's
        descriptor = self._descriptor(load.segment)
        number = None if load.segment & _ONCE else load.segment & _NUMBER
        try:
            if len(self._live) >= VIEWED:
                return self._copy(descriptor, load.length, number)
            return self._map(descriptor, load.length, number)
        finally:
            if number is None:
                os.close(descriptor)

    def close(self) -> None:
        """Let go of the descriptors; objects that live in a segment go on doing so."""
        while self._kept:
            os.close(self._kept.popitem()[1])

    def _descriptor(self, segment: int) -> int:
        if not segment & _FRESH:
            return self._kept[segment]
        _, descriptors, _, _ = socket.recv_fds(self._control, 1, 1)
        if not descriptors:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        descriptor = descriptors[0]
        if not segment & _ONCE:
            self._kept[segment & _NUMBER] = descriptor
        return descriptor

    def _map(self, descriptor: int, length: int, number: int | None) -> Any:
        mapping, token = mmap(descriptor, length), object()
        self._live.add(token)
        finalize(mapping, _let_go, self._live, token, self.freed, number).atexit = False
        with memoryview(mapping) as memory:
            value, is_used = unwrap(memory)
        if not is_used:
            mapping.close()
        return value

    def _copy(self, descriptor: int, length: int, number: int | None) -> Any:
        memory = bytearray(length)
        _read_into(descriptor, memoryview(memory))
        if number is not None:
            self.freed.append(number)
        return unwrap(memoryview(memory))[0]


def _let_go(live: set[object], token: object, freed: list[int], number: int | None) -> None:
    """Nobody looks at a mapping any more."""
    live.discard(token)
    if number is not None:
        freed.append(number)


def _new() -> int:
    return os.memfd_create("director", os.MFD_CLOEXEC)


def _fill(descriptor: int, pieces: Iterable[tuple[int, bytes | memoryview]]) -> None:
    for offset, piece in pieces:
        rest = memoryview(piece)
        while rest:
            written = os.pwrite(descriptor, rest, offset)
            rest, offset = rest[written:], offset + written


def _read_into(descriptor: int, memory: memoryview) -> None:
    offset = 0
    while offset < len(memory):
        read = os.preadv(descriptor, [memory[offset:]], offset)
        if not read:  # the holes after the last piece
            return
        offset += read
