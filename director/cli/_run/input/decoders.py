"""Makes the values of items on threads of their own, before a device is taken: reading and decoding files."""

from __future__ import annotations

import asyncio
import itertools
import queue
import time
from collections import deque
from typing import TYPE_CHECKING, Any, TypeAlias

from director.cli._run.threads import start_thread
from director.errors import JobTimeout

if TYPE_CHECKING:
    from collections.abc import Callable

    from director.cli._run.input.items import Item

Decoded: TypeAlias = "Callable[[Item, Any, BaseException | None], None]"


class _Decoding:
    """One call; made by its thread, ended on the loop: by the thread's answer, or given up."""

    __slots__ = ("began", "done", "is_over", "item")

    def __init__(self, item: Item, done: Decoded) -> None:
        self.item = item
        self.done = done
        self.began = time.monotonic()
        self.is_over = False

    def end(self, value: Any, error: BaseException | None) -> None:
        """Pass on the value or the error, the first time."""
        if not self.is_over:
            self.is_over = True
            self.done(self.item, value, error)


class _DecodeTimeout(JobTimeout):
    """The decoder has taken longer than --timeout allows; records show it as `JobTimeout`."""

    __module__ = JobTimeout.__module__
    __qualname__ = JobTimeout.__qualname__

    def __str__(self) -> str:
        return "The decoder took longer than --timeout allows, and its thread was abandoned."


class Decoders:
    """Threads that call a function of an item's value. Daemons: one that hangs keeps nothing from exiting.

    Args:
        function: Called as ``function(value)``; what it returns is the item's value for the device.
        threads: How many of them.

    Raises:
        DirectorError: The system can't start another thread.
    """

    def __init__(self, function: Callable[[Any], Any], threads: int) -> None:
        self._function = function
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[tuple[Item, Decoded]] = deque()
        self._wakeups: queue.SimpleQueue[bool] = queue.SimpleQueue()  # True for each entry of `_waiting`; False: end
        self._threads = threads
        self._decoding: set[_Decoding] = set()  # each thread adds and removes its own
        self._numbers = itertools.count()
        for _ in range(threads):
            self._start()

    def put(self, item: Item, done: Decoded) -> None:
        """Queue an item; `done` is called on the loop with the item, the value, and the error if there is none."""
        self._waiting.append((item, done))
        self._wakeups.put(True)

    def drop(self) -> list[Item]:
        """Take the items that no thread has begun."""
        dropped = []
        while self._waiting:
            try:
                dropped.append(self._waiting.popleft()[0])
            except IndexError:  # a thread has taken the last one
                break
        return dropped

    def give_up(self, seconds: float) -> None:
        """Fail the items whose calls run for longer than that; another thread takes the place of each of theirs.

        Raises:
            DirectorError: The system can't start another thread.
        """
        before = time.monotonic() - seconds
        for late in [each for each in self._decoding.copy() if each.began < before and not each.is_over]:
            late.end(None, _DecodeTimeout("running"))
            self._start()

    def close(self) -> None:
        """Have each thread end after its current call."""
        for _ in range(self._threads):
            self._wakeups.put(False)

    def _start(self) -> None:
        start_thread(self._work, f"director-decode-{next(self._numbers)}")

    def _work(self) -> None:
        while True:
            if not self._wakeups.get():
                return
            try:
                item, done = self._waiting.popleft()
            except IndexError:  # it was dropped
                continue
            decoding = _Decoding(item, done)
            self._decoding.add(decoding)
            value, error = None, None
            try:
                value = self._function(item.value)
            except BaseException as raised:  # noqa: BLE001 -- of the user's function; it is the item's error
                error = raised
            self._decoding.discard(decoding)
            if decoding.is_over:  # another thread has its place
                return
            try:
                self._loop.call_soon_threadsafe(decoding.end, value, error)
            except RuntimeError:  # the loop has been closed
                return
            del item, done, value, error, decoding
