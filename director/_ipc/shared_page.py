"""A page of memory that a slot's thread and its child both map: the parent writes, the child reads, and neither waits.

Each entry is eight bytes, written at once, and says whose it is: one that comes late means nothing to another call.
"""

from __future__ import annotations

import mmap

from director._ipc.protocol import Notice

__all__ = ["SIZE", "WINDOW", "Notice", "SharedPage"]

SIZE = 4096  # bytes
# Values of a stream that are on their way; each that the reader's channel has taken makes room for another. One in a
# segment counts twice: small ones cost little memory, and the fewer the window holds, the more often both sides wait.
WINDOW = 8
_ENDING, _TAKEN, PLACES = 511, 510, 510  # entries; more calls than `PLACES` are never under way
_LOW = 0xFFFFFFFF


class SharedPage:
    """Notices about calls, how much of a stream was taken, and whether the child is to end.

    Args:
        descriptor: Of a file of `SIZE` bytes that both sides have.
    """

    def __init__(self, descriptor: int) -> None:
        self._memory = mmap.mmap(descriptor, SIZE)
        self._entries = memoryview(self._memory).cast("Q")

    def post(self, number: int, notice: int) -> None:
        """In the parent, on any thread: tell a call something."""
        self._entries[number % PLACES] = number << 2 | notice

    def look(self, number: int) -> int:
        """In the child: what was told to a call, a `Notice`."""
        entry = self._entries[number % PLACES]
        return entry & 3 if entry >> 2 == number else 0

    def take(self, number: int, count: int) -> None:
        """In the parent: of the stream that is the call `number`, `count` of the window's units were taken."""
        self._entries[_TAKEN] = (number & _LOW) << 32 | count & _LOW

    def is_full(self, number: int, count: int) -> bool:
        """In the child: whether all `WINDOW` is used up when `count` of its units were sent."""
        entry = self._entries[_TAKEN]
        taken = entry & _LOW if entry >> 32 == number & _LOW else 0
        return (count - taken) & _LOW >= WINDOW

    @property
    def is_ending(self) -> bool:
        """The child is to end; else a SIGTERM is not from its parent, and the parent decides."""
        return bool(self._entries[_ENDING])

    def end(self) -> None:
        """Tell the child to end."""
        self._entries[_ENDING] = 1

    def close(self) -> None:
        """Unmap it."""
        self._entries.release()
        self._memory.close()
