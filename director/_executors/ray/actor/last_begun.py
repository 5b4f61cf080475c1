"""The numbers of the last calls that an actor has begun, in a file that outlives the actor.

When an actor dies, its answers are lost, and Ray can't tell whether a call had begun. The actor that replaces it, on
the same machine, reads that here. Both take a lock on the file, so the second reads when the first has ended, and the
first begins no call once the second has the lock.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from struct import pack_into, unpack

KEPT = 8  # numbers: more calls than are ever in flight to one actor
_FORM = f"<{KEPT}q"
_SIZE = 8 * KEPT


class LastBegun:
    """A few numbers in a small file, written by the actor's call thread.

    Args:
        name: The name of the file, the same for all actors of a slot.
        is_first: Whether it is the first actor of the slot, whose file is created with the first number. Any other
            waits here for the end of the one before.
    """

    def __init__(self, name: str, *, is_first: bool) -> None:
        self._path = Path(tempfile.gettempdir()) / name
        self._page: mmap.mmap | None = None
        self._count = 0
        if not is_first:
            self._open(fcntl.LOCK_EX)

    def write(self, number: int) -> None:
        """The call with this number begins.

        Raises:
            OSError: Another actor has replaced this one, which must not begin a call.
        """
        if self._page is None:
            self._open(fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert self._page is not None
        pack_into("<q", self._page, 8 * (self._count % KEPT), number)
        self._count += 1

    def read(self) -> tuple[int, ...]:
        """The numbers, in no order; calls are counted from 1."""
        return () if self._page is None else tuple(number for number in unpack(_FORM, self._page[:]) if number)

    def remove(self) -> None:
        """Remove the file: no actor replaces this one."""
        with suppress(OSError):
            self._path.unlink()

    def _open(self, lock: int) -> None:
        # Not closed, which would release the lock. Processes that a job forks don't inherit it.
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.lockf(descriptor, lock)
        except OSError:
            os.close(descriptor)
            raise
        os.ftruncate(descriptor, _SIZE)
        self._page = mmap.mmap(descriptor, _SIZE)
