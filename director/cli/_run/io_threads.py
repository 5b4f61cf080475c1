"""Reading on a thread of its own, so that a slow or endless input never holds the event loop.

The thread owns the iterator. `_items` goes from the thread to the loop; whoever finds it empty waits, the loop on
`_arrived`, and the thread waits on `_room` when it is `ahead` items in front.
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
        self._notified = False  # a wake-up is on its way; one is enough for all that arrived until then
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
            self._notified = False
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
                self._notify()
        except BaseException as error:  # noqa: BLE001 -- it is raised where the items are taken
            self._error = error
        self._ended = True
        self._notify()

    def _notify(self) -> None:
        if self._notified:
            return
        self._notified = True
        try:
            self._loop.call_soon_threadsafe(self._arrived.set)
        except RuntimeError:  # the loop has been closed: nobody waits any more
            self._ended = True


def start_thread(work: Callable[[], object], name: str) -> None:
    """Call `work` on a daemon thread, which does not keep the process.

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
    """Where lines go."""

    def write(self, lines: bytes, /) -> None:
        """Write all of it, so that others see it; may block."""

    def close(self) -> None:
        """Nothing more will be written."""


class Descriptor:
    """A file descriptor as a stream, without a buffer and its lock.

    A thread that is stuck in a buffered write while the interpreter leaves would end it with an abort.

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
            except BlockingIOError:  # whoever shares this pipe or terminal with us has made it non-blocking
                select.select([], [self._number], [])

    def clear(self) -> None:
        """Forget what a regular file held; not when it was opened, for then nothing may have come of it yet."""
        if stat.S_ISREG(os.fstat(self._number).st_mode):
            os.ftruncate(self._number, 0)

    @property
    def on_terminal(self) -> bool:
        """Whether it leads to a terminal."""
        return os.isatty(self._number)

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self._number)


class OnTerminal:
    """Lines of JSON on a terminal, which obeys nothing of them.

    Args:
        stream: Leads to the terminal.
    """

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def write(self, lines: bytes, /) -> None:
        """Write all of it, so that others see it; may block."""
        self._stream.write(shown_json(lines))

    def close(self) -> None:
        """Nothing more will be written."""
        self._stream.close()


class Writer:
    """Takes lines without blocking.

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
        """Have `line` written after those before it."""
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
        """All lines that wait, at least one; and whether that is the end."""
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
        except RuntimeError:  # the loop has been closed: nobody waits any more
            return
