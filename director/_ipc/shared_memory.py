"""Anonymous shared memory: a segment is filled for one message, which carries its descriptor to the receiver.

A segment is a memfd. It has no name, so nothing remains when either side is killed: the kernel frees it with the last
descriptor and mapping. It is not in /dev/shm, whose size containers limit. It is filled by `pwrite`, which
raises `OSError` when memory runs out, where a mapping would end the process by SIGBUS. The sender keeps no reference to
it, and the receiver's mapping is private. Only what copies or frees large memory releases the GIL; see `libc`.
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

from director._ipc.libc import checked, failure, libc
from director._ipc.pickling import LARGE, unwrap

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
    descriptor, length = checked(libc().memfd_create(b"director", os.MFD_CLOEXEC)), 0
    try:
        for offset, piece in payload.pieces():
            length = offset
            rest = memoryview(piece)
            while rest:
                written = _write(descriptor, rest, length)
                rest, length = rest[written:], length + written
        checked(libc().ftruncate(descriptor, length))  # for an empty last piece
        yield descriptor, length
    finally:
        libc().close(descriptor)


def _write(descriptor: int, content: memoryview, offset: int) -> int:
    if len(content) >= LARGE:
        return os.pwrite(descriptor, content, offset)
    return checked(libc().pwrite(descriptor, bytes(content), len(content), offset))


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
        libc().close(descriptor)
    return unwrap(memory)


def mapped(descriptor: int, length: int) -> memoryview:
    """A private mapping of a segment, which lives as long as a view of it.

    Raises:
        OSError: The segment is too short, or memory can't be mapped.
    """
    if checked(libc().lseek(descriptor, 0, os.SEEK_END)) < length:
        raise OSError(errno.EINVAL, "a segment of shared memory is shorter than its message says")
    address = libc().mmap(None, length, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE, descriptor, 0)
    if address == _FAILED:
        raise failure()
    # Not an `mmap.mmap`, which keeps a descriptor open. Views of the memory keep `memory` alive.
    memory = (ctypes.c_ubyte * length).from_address(address)
    munmap = libc().munmap if length < LARGE else _munmap()
    finalize(memory, munmap, address, length).atexit = False
    return memoryview(memory).cast("B")


@cache
def _munmap() -> Any:
    munmap = ctypes.CDLL(None).munmap  # releases the GIL
    munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
    return munmap
