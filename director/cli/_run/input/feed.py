"""Reads the input on a thread of its own, so that a slow one never blocks the event loop.

The reading thread owns the iterator and appends to `_items`. The loop waits on `_arrived` when that is empty, and the
thread waits on `_room` when it is `ahead` items ahead.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from typing import TYPE_CHECKING, Generic, TypeVar

from director.cli._run.threads import start_thread

if TYPE_CHECKING:
    from collections.abc import Iterable

T = TypeVar("T")


class Feed(Generic[T]):
    """Items of a blocking iterable, read on a thread.

    Its thread is a daemon: an input that never ends doesn't keep the process from exiting.

    Args:
        items: Read on the feed's thread.
        ahead: Most items that are read and not yet taken, which bounds the memory.

    Raises:
        DirectorError: The system can't start another thread.
    """

    def __init__(self, items: Iterable[T], ahead: int) -> None:
        self._source = items
        self._ahead = ahead
        self._room = threading.Event()  # set by `take` when the thread waits for room
        self._items: deque[T] = deque()
        self._loop = asyncio.get_running_loop()
        self._arrived = asyncio.Event()
        self._notified = False  # a wake-up of the loop is scheduled; one is enough for all items that arrive until then
        self._ended = False
        self._error: BaseException | None = None
        start_thread(self._read, "director-feed")

    async def take(self, most: int) -> list[T]:
        """The next items, at least one and at most `most`; none at the end.

        Raises:
            BaseException: What reading raised, after all items that were read before.
        """
        while not self._items:
            if self._ended:
                if self._error is not None:
                    raise self._error
                return []
            self._notified = False
            if not (self._items or self._ended):  # checked again: an item may have arrived before `_notified` was reset
                await self._arrived.wait()
            self._arrived.clear()
        items = self._items
        taken = [items.popleft() for _ in range(min(most, len(items)))]
        if not self._room.is_set():
            self._room.set()
        return taken

    def close(self) -> None:
        """End the iteration; the thread ends when its current read returns."""
        self._ended = True
        self._items.clear()
        self._room.set()
        self._arrived.set()

    def _read(self) -> None:
        items = self._items
        try:
            for item in self._source:
                while len(items) >= self._ahead:
                    self._room.clear()
                    if (
                        len(items) >= self._ahead and not self._ended
                    ):  # checked again: some may have been taken meanwhile
                        self._room.wait()
                if self._ended:
                    return
                items.append(item)
                if not self._notified:
                    self._notify()
        except BaseException as error:  # noqa: BLE001 -- raised again by `take`
            self._error = error
        self._ended = True
        self._notify()

    def _notify(self) -> None:
        if self._notified:
            return
        self._notified = True
        try:
            self._loop.call_soon_threadsafe(self._arrived.set)
        except RuntimeError:  # the loop has been closed
            self._ended = True
