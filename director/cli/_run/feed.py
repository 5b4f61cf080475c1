"""Reading on a thread of its own, so that a slow or endless input never holds the event loop.

The thread owns the iterator. `_items` goes from the thread to the loop; whoever finds it empty waits, the loop on
`_arrived`, and the thread waits on `_room` when it is `ahead` items in front.
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
    """An async iterator over a blocking iterable.

    Its thread is a daemon: an input that never says another word doesn't keep the process.

    Args:
        items: Read on the feed's thread.
        ahead: Most items read and not yet taken; what bounds the memory.

    Raises:
        DirectorError: The system can't start another thread.
    """

    def __init__(self, items: Iterable[T], ahead: int) -> None:
        self._source = items
        self._room = threading.Semaphore(ahead)
        self._items: deque[T] = deque()
        self._loop = asyncio.get_running_loop()
        self._arrived = asyncio.Event()
        self._rung = False  # a wake-up is on its way; one is enough for all that arrived until then
        self._ended = False
        self._error: BaseException | None = None
        start_thread(self._read, "director-feed")

    def __aiter__(self) -> Feed[T]:
        return self

    async def __anext__(self) -> T:
        """The next item.

        Raises:
            OSError: Or whatever else reading raised, after the items that came before it.
        """
        while not self._items:
            if self._ended:
                raise StopAsyncIteration if self._error is None else self._error
            self._rung = False
            if not (self._items or self._ended):  # again: it may have come before the thread saw that nobody rang
                await self._arrived.wait()
            self._arrived.clear()
        self._room.release()
        return self._items.popleft()

    def close(self) -> None:
        """End the iteration where it is; the thread leaves when its read returns."""
        self._ended = True
        self._items.clear()
        self._room.release()
        self._arrived.set()

    def _read(self) -> None:
        try:
            for item in self._source:
                self._room.acquire()
                if self._ended:
                    return
                self._items.append(item)
                self._ring()
        except BaseException as error:  # noqa: BLE001 -- it is raised where the items are taken
            self._error = error
        self._ended = True
        self._ring()

    def _ring(self) -> None:
        if self._rung:
            return
        self._rung = True
        try:
            self._loop.call_soon_threadsafe(self._arrived.set)
        except RuntimeError:  # the loop has been closed: nobody waits any more
            self._ended = True
