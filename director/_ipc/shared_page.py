"""A page of memory that a slot's thread and its child both map: the parent writes, the child reads, neither waits.

Each entry is eight bytes, written atomically, with the number of its call: a late one does not affect another call.
"""

from __future__ import annotations

import mmap

from director._ipc.protocol import Notice

__all__ = ["SIZE", "WINDOW", "Notice", "SharedPage"]

SIZE = 4096  # bytes
# Flow control of a stream, in units: a child sends at most so many more than the reader's channel has taken. A value in
# a segment is two units, any other is one: small values cost little memory, and a small window makes both sides wait.
WINDOW = 8
_ENDING, _TAKEN, PLACES = 511, 510, 510  # entries; more calls than `PLACES` are never under way
_LOW = 0xFFFFFFFF


class SharedPage:
    """Notices about calls, units taken of a stream, and whether the child has to exit."""

    def __init__(self, descriptor: int) -> None:
        self._memory = mmap.mmap(descriptor, SIZE)
        self._entries = memoryview(self._memory).cast("Q")

    def post(self, number: int, notice: int) -> None:
        """In the parent, on any thread: post a `Notice` to a call."""
        self._entries[number % PLACES] = number << 2 | notice

    def look(self, number: int) -> int:
        """In the child: the `Notice` posted to a call."""
        entry = self._entries[number % PLACES]
        return entry & 3 if entry >> 2 == number else 0

    def take(self, number: int, count: int) -> None:
        """In the parent: the reader of the stream `number` has taken `count` units so far."""
        self._entries[_TAKEN] = (number & _LOW) << 32 | count & _LOW

    def is_full(self, number: int, count: int) -> bool:
        """In the child: whether the window is full after `count` units were sent."""
        entry = self._entries[_TAKEN]
        taken = entry & _LOW if entry >> 32 == number & _LOW else 0
        return (count - taken) & _LOW >= WINDOW

    @property
    def is_ending(self) -> bool:
        """Whether the parent wants the child to exit; without it a SIGTERM has another sender."""
        return bool(self._entries[_ENDING])

    def end(self) -> None:
        """Tell the child to exit."""
        self._entries[_ENDING] = 1

    def close(self) -> None:
        """Unmap it."""
        self._entries.release()
        self._memory.close()
