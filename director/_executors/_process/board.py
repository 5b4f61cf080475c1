"""A page of memory that both sides see: the parent writes on it, the child looks, and nobody waits for anybody."""

from __future__ import annotations

import mmap

from director._executors._remote import Notice

__all__ = ["PLACES", "SIZE", "Board", "Notice"]

PLACES = 1024  # more than there are requests under way
_ENDING = PLACES  # the byte behind the places
SIZE = 4096


class Board:
    """Notices about requests, and whether the child is to end.

    Each is one byte, so that there is no moment at which half of it is written.

    Args:
        descriptor: Of a file of `SIZE` bytes that both sides have.
    """

    def __init__(self, descriptor: int) -> None:
        self._page = mmap.mmap(descriptor, SIZE)

    def post(self, number: int, notice: int) -> None:
        """Say something about a request; `Notice.NONE` clears the place before a new request takes it."""
        self._page[number % PLACES] = notice

    def look(self, number: int) -> int:
        """What was said about a request: a `Notice`."""
        return self._page[number % PLACES]

    @property
    def is_ending(self) -> bool:
        """The child is to end; else a SIGTERM is not from its parent, and the parent decides."""
        return bool(self._page[_ENDING])

    def end(self) -> None:
        """Tell the child to end."""
        self._page[_ENDING] = 1
