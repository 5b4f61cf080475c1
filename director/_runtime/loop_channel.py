"""The way from the slots' threads to the event loop: many posts, one wake-up.

Each finished job is appended; the loop is rung only if no wake is on its way, and then delivers everything that is
there. (A wake for each job writes to the loop's self-pipe each time, which gives up the GIL between two jobs.) Those of
a batch come as one post, which the loop unpacks.
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

_Future = asyncio.Future  # as it is now: nest_asyncio puts another in its place
# A job that has returned (with its value as cargo), or a call.
Post: TypeAlias = "ScheduledJob[Any] | tuple[Callable[..., object], tuple[Any, ...]]"


class LoopChannel:
    """Jobs that have returned, and calls, on their way to the loop, in order. Any thread posts; the loop delivers.

    Args:
        loop: The event loop of the Director.
        take_posts: Called on the loop to take `left` posts off `entries`.
        lost: Called by who closes the loop before `stop`, where there is an eventfd.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, take_posts: Callable[[], None], lost: Callable[[], None]
    ) -> None:
        self.entries: deque[Post] = deque()
        self.ringing = False
        self.left = 0  # of the posts, how many the delivery that goes on is still to take; the loop's
        self._loop = loop
        self._take_posts = take_posts
        self.wakeup = LoopWakeup(loop, self.deliver, lost)

    def call(self, fn: Callable[..., object], *args: Any) -> None:
        """Have the loop call `fn`, after what was posted before."""
        self.entries.append((fn, args))
        if not self.ringing:
            self.notify()

    def on_loop(self, fn: Callable[..., object], *args: Any) -> None:
        """Have the loop call `fn`: now if we are there, else soon."""
        if _get_running_loop() is self._loop:
            fn(*args)
        else:
            self.call(fn, *args)

    def notify(self) -> None:
        """Have the loop deliver; for whoever has appended a post and found that nobody is `ringing`."""
        self.ringing = True  # two threads may both wake: harmless, the second delivery finds nothing
        try:
            self.wakeup.notify()
        except BaseException:  # a signal's handler has raised: the next post must wake
            self.ringing = False
            raise

    def stop(self, nobody_rings: bool) -> None:
        """Deliver what is there, and then no more; `nobody_rings`: no thread is left that could post."""
        self.deliver()
        self.wakeup.stop(nobody_rings)

    def deliver(self) -> None:
        """On the loop: have what is there now taken; what arrives meanwhile comes with the next wake."""
        try:
            self.ringing = False  # before looking: a post that comes too late for this delivery must wake again
            self.left = len(self.entries)
            self._take_posts()
        except BaseException:
            self.notify()  # for those that have arrived and were not looked at
            raise

    def unpack(self, jobs: list[ScheduledJob[Any]]) -> None:
        """On the loop, while it delivers: these came in one post, and are next."""
        self.entries.extendleft(reversed(jobs))
        self.left += len(jobs)

    def __bool__(self) -> bool:
        return bool(self.entries)

    def jobs(self) -> list[ScheduledJob[Any]]:
        """Jobs whose outcome is on its way."""
        jobs: list[ScheduledJob[Any]] = []
        for post in self.entries.copy():
            first = post[1][0] if isinstance(post, tuple) and post[1] else post
            if isinstance(first, _Future):
                jobs.append(first)  # type: ignore[arg-type]  # only jobs are
            elif isinstance(first, list):  # those of a batch
                jobs += first
        return jobs


class LoopWakeup:
    """Has the loop call `answer` soon; any thread rings.

    Where there is one, an eventfd: the loop then reads eight bytes and is there. `call_soon_threadsafe` makes a handle,
    writes to a socket, reads it until that raises, and was a fifth of the round trip of a job.

    Args:
        loop: The event loop.
        answer: Called on it, once for any number of rings before.
        lost: Called by who closes the loop before `stop`, where there is an eventfd.
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
            except (NotImplementedError, OSError):  # a proactor loop watches no descriptors, or the system no more
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
            # The loop was closed under the Director: nobody is left who could wait for this.

    def stop(self, nobody_rings: bool) -> None:
        """On the loop: answer no more. Rings of threads that are left behind go nowhere.

        Args:
            nobody_rings: No such thread is left, so that the descriptor can be closed at once.
        """
        self._is_over = True
        if self._fd < 0:
            return
        if not self._loop.is_closed():
            self._loop.remove_reader(self._fd)
        if nobody_rings:
            self._drop()

    def _drop(self) -> None:
        os.close(self._fd)
        self._fd = -1

    def __del__(self) -> None:
        # Not always in `stop`: a thread that is left behind would write to a number that is another file's by then.
        if self._fd >= 0:
            self._drop()


class _Reader:
    """What the loop calls when it was rung. Only the loop holds it, so that its end tells of a loop that was closed."""

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
    """`eventfd_write` that keeps the GIL: beside a busy loop, whoever gives it up waits 5 ms until he gets it back."""
    import ctypes  # not at the top: it costs `import director` some milliseconds, and a start has them

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
