"""Wakes the event loop from a thread, as cheaply as the system lets us."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable


class Doorbell:
    """Has the loop call `answer` soon; any thread rings.

    Where there is one, an eventfd: the loop then reads eight bytes and is there. `call_soon_threadsafe` makes a handle,
    writes to a socket, reads it until that raises, and was a fifth of the round trip of a job.

    Args:
        loop: The event loop.
        answer: Called on it, once for any number of rings before.
    """

    lost: Callable[[], None]
    """Called by who closes the loop before `stop`, where there is an eventfd."""

    def __init__(self, loop: asyncio.AbstractEventLoop, answer: Callable[[], None]) -> None:
        self.lost = _nothing
        self._loop = loop
        self._answer = answer
        self._is_over = False
        self._fd = _eventfd()
        self._write = _writer()
        if self._fd >= 0:
            try:
                loop.add_reader(self._fd, _Reader(self).read)
            except (NotImplementedError, OSError):  # a proactor loop watches no descriptors, or the system no more
                self._drop()

    def ring(self) -> None:
        """From any thread: wake the loop."""
        if self._fd >= 0:
            self._write(self._fd, 1)
            return
        try:
            self._loop.call_soon_threadsafe(self._answer)
        except RuntimeError:
            if not self._loop.is_closed():
                raise
            # The loop was closed under the Director: nobody is left who could wait for this.

    def stop(self, nobody_rings: bool) -> None:
        """On the loop: answer no more. Rings of threads that are left behind go nowhere.

        Args:
            nobody_rings: No such thread is left, so that the descriptor can be closed at once.
        """
        self._is_over = True
        if self._fd < 0:
            return
        if not self._loop.is_closed():
            self._loop.remove_reader(self._fd)
        if nobody_rings:
            self._drop()

    def _drop(self) -> None:
        os.close(self._fd)
        self._fd = -1

    def __del__(self) -> None:
        # Not always in `stop`: a thread that is left behind would write to a number that is another file's by then.
        if self._fd >= 0:
            self._drop()


class _Reader:
    """What the loop calls when it was rung. Only the loop holds it, so that its end tells of a loop that was closed."""

    __slots__ = ("_answer", "_doorbell", "_fd")

    def __init__(self, doorbell: Doorbell) -> None:
        self._doorbell = doorbell
        self._fd = doorbell._fd
        self._answer = doorbell._answer

    def read(self) -> None:
        os.eventfd_read(self._fd)
        self._answer()

    def __del__(self) -> None:
        if not self._doorbell._is_over and self._doorbell._loop.is_closed():
            self._doorbell.lost()


def _nothing() -> None:
    """Nobody wants to know."""


def _writer() -> Callable[[int, int], object]:
    """`eventfd_write` that keeps the GIL: beside a busy loop, whoever gives it up waits 5 ms until he gets it back."""
    import ctypes  # not at the top: it costs `import director` some milliseconds, and a start has them

    try:
        write = ctypes.PyDLL(None).eventfd_write
    except (OSError, AttributeError):
        return os.eventfd_write
    write.argtypes = (ctypes.c_int, ctypes.c_uint64)
    return write


def _eventfd() -> int:
    """A new eventfd, or -1 where there is none (macOS, Windows) or no descriptor is left."""
    try:
        return os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
    except (AttributeError, OSError):
        return -1
