"""Reads and writes on threads of their own, so that a slow input or output never blocks the event loop.

The reading thread owns the iterator and appends to `_items`. The loop waits on `_arrived` when that is empty, and the
thread waits on `_room` when it is `ahead` items ahead.
"""

from __future__ import annotations

import asyncio
import os
import queue
import select
import stat
import threading
from collections import deque
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from director.cli._console import shown_json
from director.errors import DirectorError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

T = TypeVar("T")


class Feed(Generic[T]):
    """An async iterator over a blocking iterable.

    Its thread is a daemon: an input that never ends doesn't keep the process from exiting.

    Args:
        items: Read on the feed's thread.
        ahead: Most items that are read and not yet taken, which bounds the memory.

    Raises:
        DirectorError: The system can't start another thread.
    """

    def __init__(self, items: Iterable[T], ahead: int) -> None:
        self._source = items
        self._room = threading.Semaphore(ahead)
        self._items: deque[T] = deque()
        self._loop = asyncio.get_running_loop()
        self._arrived = asyncio.Event()
        self._notified = False  # a wake-up of the loop is scheduled; one is enough for all items that arrive until then
        self._ended = False
        self._error: BaseException | None = None
        start_thread(self._read, "director-feed")

    def __aiter__(self) -> Feed[T]:
        return self

    async def __anext__(self) -> T:
        """The next item.

        Raises:
            BaseException: What reading raised, after all items that were read before.
        """
        while not self._items:
            if self._ended:
                raise StopAsyncIteration if self._error is None else self._error
            self._notified = False
            if not (self._items or self._ended):  # checked again: an item may have arrived before `_notified` was reset
                await self._arrived.wait()
            self._arrived.clear()
        self._room.release()
        return self._items.popleft()

    def close(self) -> None:
        """End the iteration; the thread ends when its current read returns."""
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
                self._notify()
        except BaseException as error:  # noqa: BLE001 -- raised again by `__anext__`
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


def start_thread(work: Callable[[], object], name: str) -> None:
    """Call `work` on a daemon thread, which does not keep the process from exiting.

    Raises:
        DirectorError: The system can't start another thread.
    """
    try:
        threading.Thread(target=work, name=name, daemon=True).start()
    except (RuntimeError, MemoryError) as error:
        raise DirectorError(
            f"{error}: {name} needs a thread. Raise the limit of processes and threads (ulimit -u, pids.max), "
            "or that of memory (ulimit -v)."
        ) from None


class Stream(Protocol):
    """A destination of lines."""

    def write(self, lines: bytes, /) -> None:
        """Write all of it without buffering; may block."""

    def close(self) -> None:
        """Close it; nothing more will be written."""


class Descriptor:
    """A file descriptor as a stream, without a buffer and its lock.

    A thread that is blocked in a buffered write while the interpreter exits would abort it.

    Args:
        number: Open for writing; closed by `close`.
    """

    def __init__(self, number: int) -> None:
        self._number = number

    def write(self, lines: bytes, /) -> None:
        """Write all of it."""
        rest = memoryview(lines)
        while rest:
            try:
                rest = rest[os.write(self._number, rest) :]
            except BlockingIOError:  # another process that shares this pipe or terminal has made it non-blocking
                select.select([], [self._number], [])

    def clear(self) -> None:
        """Truncate a regular file.

        Called when the first results are there, not on opening, so that a failed start keeps the file.
        """
        if stat.S_ISREG(os.fstat(self._number).st_mode):
            os.ftruncate(self._number, 0)

    @property
    def on_terminal(self) -> bool:
        """Whether it is a terminal."""
        return os.isatty(self._number)

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self._number)


class OnTerminal:
    """Lines of JSON on a terminal, with control characters escaped.

    Args:
        stream: The terminal's.
    """

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def write(self, lines: bytes, /) -> None:
        """Write all of it without buffering; may block."""
        self._stream.write(shown_json(lines))

    def close(self) -> None:
        """Close it; nothing more will be written."""
        self._stream.close()


class Writer:
    """Accepts lines without blocking, and writes them on a thread.

    Args:
        stream: Written, and closed by `finish`, on the writer's thread.
        written: Called on the loop with how many more lines have been written.
        failed: Called on the loop, once, when writing fails; later lines are dropped.

    Raises:
        DirectorError: The system can't start another thread.
    """

    def __init__(self, stream: Stream, written: Callable[[int], None], failed: Callable[[OSError], None]) -> None:
        self._stream = stream
        self._written = written
        self._failed = failed
        self._loop = asyncio.get_running_loop()
        self._lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._idle = asyncio.Event()
        start_thread(self._write, "director-writer")

    def put(self, line: bytes) -> None:
        """Queue `line` to be written."""
        self._lines.put(line)

    async def finish(self) -> None:
        """Wait until all lines are written, or writing has failed."""
        self._lines.put(None)
        await self._idle.wait()

    def _write(self) -> None:
        broken = False
        while True:
            lines, last = self._take()
            if lines and not broken:
                broken = not self._write_out(lines)
            self._call_on_loop(self._written, len(lines))
            if last:
                self._stream.close()
                self._call_on_loop(self._idle.set)
                return

    def _take(self) -> tuple[list[bytes], bool]:
        """All queued lines, at least one; and whether they are the last."""
        lines = []
        line = self._lines.get()
        while line is not None:
            lines.append(line)
            try:
                line = self._lines.get_nowait()
            except queue.Empty:
                return lines, False
        return lines, True

    def _write_out(self, lines: list[bytes]) -> bool:
        try:
            self._stream.write(b"".join(lines))
        except OSError as error:
            self._call_on_loop(self._failed, error)
            return False
        return True

    def _call_on_loop(self, callback: Callable[..., Any], *args: object) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, *args)
        except RuntimeError:  # the loop has been closed
            return
