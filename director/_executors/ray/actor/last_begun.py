"""The numbers of the last calls that an actor has begun, where they outlive the actor.

An actor that dies takes its answers along, and Ray can't tell whether a call had begun. The one that is started in its
place, on the same machine, reads it here. Both hold a lock of the system's on the file, so that the second begins to
read when the first has ended, however it has, and the first begins nothing once the second is there.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from struct import pack_into, unpack

KEPT = 8  # numbers: more than are ever on their way to one actor
_FORM = f"<{KEPT}q"
_SIZE = 8 * KEPT


class LastBegun:
    """A few numbers in a small file; the actor's call thread writes them.

    Args:
        name: Of the file, the same for all actors of a slot.
        is_first: Whether no actor of the slot came before. Its file is made with the first number; another actor
            waits here for the end of the one before it.
    """

    def __init__(self, name: str, *, is_first: bool) -> None:
        self._path = Path(tempfile.gettempdir()) / name
        self._page: mmap.mmap | None = None
        self._count = 0
        if not is_first:
            self._open(fcntl.LOCK_EX)

    def write(self, number: int) -> None:
        """The call with that number begins.

        Raises:
            OSError: Another actor has come in place of this one, which must not begin anything more.
        """
        if self._page is None:
            self._open(fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert self._page is not None
        pack_into("<q", self._page, 8 * (self._count % KEPT), number)
        self._count += 1

    def read(self) -> tuple[int, ...]:
        """Those that have begun, in no order; calls are counted from 1."""
        return () if self._page is None else tuple(number for number in unpack(_FORM, self._page[:]) if number)

    def remove(self) -> None:
        """No actor comes after this one."""
        with suppress(OSError):
            self._path.unlink()

    def _open(self, lock: int) -> None:
        # Not closed: that would end the lock. A lock of this kind is not inherited by processes that a job forks.
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.lockf(descriptor, lock)
        except OSError:
            os.close(descriptor)
            raise
        os.ftruncate(descriptor, _SIZE)
        self._page = mmap.mmap(descriptor, _SIZE)
