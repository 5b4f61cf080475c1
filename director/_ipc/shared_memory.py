"""Shared memory without names: a segment is filled for one message, whose descriptor hands it to the receiver.

A segment is an anonymous file (memfd). It has no name, so nothing is left when either side is killed: the system frees
it with the last descriptor and mapping. It lies outside of /dev/shm, whose size containers bound. It is filled by
`pwrite`, which gives up the GIL, and raises where a mapping would die of SIGBUS when memory runs out. The sender keeps
nothing of it, and the receiver's mapping is private: no one else ever reads or writes what is in it.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any
from weakref import finalize

from director._ipc.pickling import unwrap

if TYPE_CHECKING:
    from collections.abc import Iterator

    from director._ipc.pickling import Payload

_FAILED = ctypes.c_void_p(-1).value


@contextmanager
def filled(payload: Payload) -> Iterator[tuple[int, int]]:
    """The descriptor of a new segment with `payload` in it, to be sent within the block, and its length.

    Raises:
        OSError: There is no memory, or no descriptor, for it.
    """
    descriptor, length = os.memfd_create("director", os.MFD_CLOEXEC), 0
    try:
        for offset, piece in payload.pieces():
            length = offset
            rest = memoryview(piece)
            while rest:
                written = os.pwrite(descriptor, rest, length)
                rest, length = rest[written:], length + written
        os.ftruncate(descriptor, length)  # an empty last piece
        yield descriptor, length
    finally:
        os.close(descriptor)


def read(descriptor: int, length: int) -> Any:
    """The object in a segment that has arrived; closes the descriptor.

    Raises:
        OSError: The descriptor has not arrived, or there is no room for another mapping.
        BaseException: The object can't be unpickled here.
    """
    if descriptor < 0:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    try:
        if os.fstat(descriptor).st_size < length:
            raise OSError(errno.EINVAL, "a segment of shared memory is shorter than its message says")
        address = _libc().mmap(None, length, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE, descriptor, 0)
    finally:
        os.close(descriptor)
    if address == _FAILED:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    # Not an `mmap.mmap`, which holds a descriptor for as long as it lives. Views of the memory hold `memory`.
    memory = (ctypes.c_ubyte * length).from_address(address)
    finalize(memory, _libc().munmap, address, length).atexit = False
    return unwrap(memoryview(memory).cast("B"))


@cache
def _libc() -> Any:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *(3 * [ctypes.c_int]), ctypes.c_long)
    libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
    libc.mmap.restype = ctypes.c_void_p
    return libc
