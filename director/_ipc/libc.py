"""Short system calls that keep the GIL.

A thread that releases the GIL while the event loop computes gets it back after 5 ms. A slot's thread makes half a dozen
system calls between two jobs, each of them quicker than that by far.
"""

from __future__ import annotations

import ctypes
import os
from functools import cache
from typing import Any


@cache
def libc() -> Any:
    """The C library; its functions set `ctypes.get_errno()`."""
    libc = ctypes.PyDLL(None, use_errno=True)  # unlike `CDLL`, keeps the GIL
    number, size, pointer, text = ctypes.c_int, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_char_p
    offset = ctypes.c_long
    libc.send.argtypes = (number, text, size, number)
    libc.sendmsg.argtypes = libc.recvmsg.argtypes = (number, pointer, number)
    libc.sendmmsg.argtypes = (number, pointer, ctypes.c_uint, number)
    libc.recvmmsg.argtypes = (number, pointer, ctypes.c_uint, number, pointer)
    libc.eventfd_write.argtypes = (number, ctypes.c_uint64)
    libc.memfd_create.argtypes = (text, ctypes.c_uint)
    libc.pwrite.argtypes = (number, text, size, offset)
    libc.ftruncate.argtypes = (number, offset)
    libc.lseek.argtypes = (number, offset, number)
    libc.mmap.argtypes = (pointer, size, number, number, number, offset)
    libc.munmap.argtypes = (pointer, size)
    libc.close.argtypes = (number,)
    libc.send.restype = libc.sendmsg.restype = libc.recvmsg.restype = libc.pwrite.restype = ctypes.c_ssize_t
    libc.lseek.restype, libc.mmap.restype = offset, pointer
    return libc


def checked(result: int) -> int:
    """What a function of `libc` has returned.

    Raises:
        OSError: It was negative.
    """
    if result < 0:
        raise failure()
    return result


def failure() -> OSError:
    """The error of the last call on this thread."""
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
