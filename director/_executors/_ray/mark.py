"""The number of the last call that an actor has begun, where it outlives the actor.

An actor that dies takes its answers along, and Ray can't tell whether a call had begun. The one that Ray starts in its
place, on the same machine, reads it here.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from struct import pack_into, unpack_from

NONE = -1
_SIZE = 8


class Mark:
    """A number in a small file of the machine's; the actor's call thread writes it.

    Args:
        name: Of the file, the same for all actors of a slot.
    """

    def __init__(self, name: str) -> None:
        self._path = Path(tempfile.gettempdir()) / name
        self._page: mmap.mmap | None = None  # made with the first number
        self._highest = NONE

    def write(self, number: int) -> None:
        """The call with that number begins."""
        if self._page is None:
            self._page = self._open()
            self._highest = number
        if number >= self._highest:  # calls may overtake one another; those before the number count as begun
            self._highest = number
            pack_into("<q", self._page, 0, number)

    def read(self) -> int:
        """The last that has begun; `NONE` if none has."""
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            return NONE
        number: int = unpack_from("<q", content)[0] if len(content) == _SIZE else NONE
        return number

    def _open(self) -> mmap.mmap:
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            os.ftruncate(descriptor, _SIZE)
            return mmap.mmap(descriptor, _SIZE)
        finally:
            os.close(descriptor)

    def remove(self) -> None:
        """No actor comes after this one."""
        with suppress(OSError):
            self._path.unlink()
