"""Anonymous shared memory: a segment is filled for one message, which carries its descriptor to the receiver.

A segment is a memfd. It has no name, so nothing remains when either side is killed: the kernel frees it with the last
descriptor and mapping. It is not in /dev/shm, whose size containers limit. It is filled by `pwrite`, which releases the
GIL and raises `OSError` when memory runs out, where a mapping would end the process by SIGBUS. The sender keeps no
reference to it, and the receiver's mapping is private.
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
    """The descriptor of a new segment with `payload`, and its length; closed at the end of the block.

    Raises:
        OSError: There is no memory or no descriptor left.
    """
    descriptor, length = os.memfd_create("director", os.MFD_CLOEXEC), 0
    try:
        for offset, piece in payload.pieces():
            length = offset
            rest = memoryview(piece)
            while rest:
                written = os.pwrite(descriptor, rest, length)
                rest, length = rest[written:], length + written
        os.ftruncate(descriptor, length)  # for an empty last piece
        yield descriptor, length
    finally:
        os.close(descriptor)


def read(descriptor: int, length: int) -> Any:
    """The object in a received segment; closes the descriptor.

    Raises:
        OSError: The descriptor was not received, or memory can't be mapped.
        BaseException: The object can't be unpickled here.
    """
    if descriptor < 0:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    try:
        memory = mapped(descriptor, length)
    finally:
        os.close(descriptor)
    return unwrap(memory)


def mapped(descriptor: int, length: int) -> memoryview:
    """A private mapping of a segment, which lives as long as a view of it.

    Raises:
        OSError: The segment is too short, or memory can't be mapped.
    """
    if os.fstat(descriptor).st_size < length:
        raise OSError(errno.EINVAL, "a segment of shared memory is shorter than its message says")
    address = _libc().mmap(None, length, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE, descriptor, 0)
    if address == _FAILED:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    # Not an `mmap.mmap`, which keeps a descriptor open. Views of the memory keep `memory` alive.
    memory = (ctypes.c_ubyte * length).from_address(address)
    finalize(memory, _libc().munmap, address, length).atexit = False
    return memoryview(memory).cast("B")


@cache
def _libc() -> Any:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *(3 * [ctypes.c_int]), ctypes.c_long)
    libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
    libc.mmap.restype = ctypes.c_void_p
    return libc
