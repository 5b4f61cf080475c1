"""From the slots' threads to the event loop: many entries, one wake-up.

Each finished job is appended; the event loop is woken only if no wake-up is on its way, and then delivers all entries.
(A wake-up for each job would write to the self-pipe each time, which releases the GIL between two jobs.) The jobs of a
batch are one entry, which is unpacked on the event loop.
"""

from __future__ import annotations

import asyncio
import os
from asyncio import _get_running_loop
from collections import deque
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

    from director._jobs.job import ScheduledJob

_Future = asyncio.Future  # as it is now: nest_asyncio replaces it
# A job that has returned (with its result as payload), or a call.
Post: TypeAlias = "ScheduledJob[Any] | tuple[Callable[..., object], tuple[Any, ...]]"


class LoopChannel:
    """Jobs that have returned, and calls, in FIFO order. Any thread posts; the event loop delivers.

    Args:
        loop: The event loop of the Director.
        take_posts: Called on the event loop to take `left` entries off `entries`.
        lost: Called if the event loop is closed before `stop`, on the closing thread; only with an eventfd.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, take_posts: Callable[[], None], lost: Callable[[], None]
    ) -> None:
        self.entries: deque[Post] = deque()
        self.ringing = False
        self.left = 0  # entries that the current delivery still has to take; on the event loop only
        self._loop = loop
        self._take_posts = take_posts
        self.wakeup = LoopWakeup(loop, self.deliver, lost)

    def call(self, fn: Callable[..., object], *args: Any) -> None:
        """Have the event loop call `fn`, after all entries before."""
        self.entries.append((fn, args))
        if not self.ringing:
            self.notify()

    def on_loop(self, fn: Callable[..., object], *args: Any) -> None:
        """Call `fn` on the event loop: now if this is its thread, else soon."""
        if _get_running_loop() is self._loop:
            fn(*args)
        else:
            self.call(fn, *args)

    def notify(self) -> None:
        """Wake the event loop, after an entry was appended while not `ringing`."""
        self.ringing = True  # if two threads both wake it, the second delivery finds nothing
        try:
            self.wakeup.notify()
        except BaseException:  # of a signal handler
            self.ringing = False
            self.wakeup.notify()  # another thread may have left it to this one
            raise

    def stop(self, has_no_threads: bool) -> None:
        """Deliver all entries, and stop; `has_no_threads`: no thread is left that could post."""
        self.deliver()
        self.wakeup.stop(has_no_threads)

    def deliver(self) -> None:
        """On the event loop: deliver the entries of now; later ones come with the next wake-up."""
        try:
            self.ringing = False  # first: an entry too late for this delivery must wake again
            self.left = len(self.entries)
            self._take_posts()
        except BaseException:
            self.notify()  # for entries that were not delivered
            raise

    def unpack(self, jobs: list[ScheduledJob[Any]]) -> None:
        """On the event loop, within a delivery: make the jobs of one entry the next entries."""
        self.entries.extendleft(reversed(jobs))
        self.left += len(jobs)

    def __bool__(self) -> bool:
        return bool(self.entries)

    def jobs(self) -> list[ScheduledJob[Any]]:
        """Jobs whose outcomes are not delivered yet."""
        jobs: list[ScheduledJob[Any]] = []
        for post in self.entries.copy():
            first = post[1][0] if isinstance(post, tuple) and post[1] else post
            if isinstance(first, _Future):
                jobs.append(first)  # type: ignore[arg-type]  # only jobs are
            elif isinstance(first, list):  # those of a batch
                jobs += first
        return jobs


class LoopWakeup:
    """Has the event loop call `answer` soon; for any thread.

    Uses an eventfd where there is one, which the event loop reads by one system call. `call_soon_threadsafe` makes a
    handle, writes to a socket and reads it until that raises: a fifth of the round trip of a job.

    Args:
        loop: The event loop.
        answer: Called on it, once for any number of `notify` before.
        lost: Called if the event loop is closed before `stop`, on the closing thread; only with an eventfd.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, answer: Callable[[], None], lost: Callable[[], None]) -> None:
        self._lost = lost
        self._loop = loop
        self._answer = answer
        self._is_over = False
        self._fd = _eventfd()
        self._write = _writer()
        if self._fd >= 0:
            try:
                loop.add_reader(self._fd, _Reader(self).read)
            except (NotImplementedError, OSError):  # a proactor loop, or no more descriptors can be watched
                self._drop()

    def notify(self) -> None:
        """From any thread: wake the loop."""
        if self._fd >= 0:
            self._write(self._fd, 1)
            return
        try:
            self._loop.call_soon_threadsafe(self._answer)
        except RuntimeError:
            if not self._loop.is_closed():
                raise
            # The event loop was closed before the Director: there is nothing to wake.

    def stop(self, has_no_threads: bool) -> None:
        """On the event loop: stop answering. A `notify` of an abandoned thread has no effect.

        Args:
            has_no_threads: No thread is left that could notify: the descriptor is closed at once.
        """
        self._is_over = True
        if self._fd < 0:
            return
        if not self._loop.is_closed():
            self._loop.remove_reader(self._fd)
        if has_no_threads:
            self._drop()

    def _drop(self) -> None:
        os.close(self._fd)
        self._fd = -1

    def __del__(self) -> None:
        # Not always in `stop`: an abandoned thread would write to a descriptor that may be another file by then.
        if self._fd >= 0:
            self._drop()


class _Reader:
    """Called by the event loop when the eventfd is readable. Only the loop refers to it: closing it deletes this."""

    __slots__ = ("_answer", "_fd", "_wakeup")

    def __init__(self, wakeup: LoopWakeup) -> None:
        self._wakeup = wakeup
        self._fd = wakeup._fd
        self._answer = wakeup._answer

    def read(self) -> None:
        os.eventfd_read(self._fd)
        self._answer()

    def __del__(self) -> None:
        if not self._wakeup._is_over and self._wakeup._loop.is_closed():
            self._wakeup._lost()


def _writer() -> Callable[[int, int], object]:
    """`eventfd_write` that keeps the GIL: a thread that releases it beside a busy event loop waits 5 ms for it."""
    import ctypes  # not at the top: it would add some milliseconds to `import director`

    try:
        write = ctypes.PyDLL(None).eventfd_write
    except (OSError, AttributeError):
        return os.eventfd_write
    write.argtypes = (ctypes.c_int, ctypes.c_uint64)
    return write


def _eventfd() -> int:
    """A new eventfd, or -1 where there is none (macOS, Windows) or no descriptor is left."""
    try:
        return os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
    except (AttributeError, OSError):
        return -1
