"""The call of an item on its slot's thread."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from director.errors import JobTimeout, WorkerDied

if TYPE_CHECKING:
    from collections.abc import Callable

    from director.cli._run.calls.rules import Halt


class NotStarted(Exception):
    """Raised in place of a call that would begin after the run has been ended."""


class Call:
    """Calls the user's function until the run is ended; from then on no call begins.

    It counts on the slot's thread: when the event loop handles one end, that slot has begun its next call already.

    Args:
        function: The user's.
        halt: When the run ends.
        counts: Each failure counts; else only the event loop knows which ones do.
    """

    def __init__(self, function: Callable[[Any, Any], Any], halt: Halt, *, counts: bool) -> None:
        self._function = function
        self._halt = halt
        self._counts = counts and halt.when != "never" and not halt.is_percent
        self._failed = self._succeeded = 0
        self._lock = threading.Lock()
        self.ended = False
        self.__name__ = getattr(function, "__name__", type(function).__name__)

    def __call__(self, resource: Any, value: Any) -> Any:
        if self.ended:
            raise NotStarted
        if not self._counts:
            return self._function(resource, value)
        try:
            result = self._function(resource, value)
        except BaseException:
            self._count(failed=1)
            raise
        self._count(failed=0)
        return result

    def _count(self, failed: int) -> None:
        with self._lock:
            self._failed += failed
            self._succeeded += 1 - failed
            self.ended = self.ended or self._halt.reached(self._failed, self._succeeded)


class LimitedCall:
    """Calls a function in a child process, which the system ends when the call takes too long.

    The time begins with the call: what the child takes to import modules and to load a model is no part of it. The
    default action of SIGALRM ends a process even if its code never releases the GIL.
    """

    def __init__(self, function: Callable[[Any, Any], Any], seconds: float) -> None:
        self.function = function
        self.seconds = seconds

    def __call__(self, resource: Any, value: Any) -> Any:
        if signal.getsignal(signal.SIGALRM) is not signal.SIG_DFL:
            with contextlib.suppress(ValueError):  # not the main thread
                signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, self.seconds)
        try:
            return self.function(resource, value)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0.0)


class WatchedCall:
    """Calls a function in a child process whose limit of time is known only while the call runs.

    The child says in a file who it is and since when it makes the call, so that `end_if_late` can end it as its own
    alarm would.

    Args:
        function: The user's.
        path: Of the file; there while the call runs.
    """

    def __init__(self, function: Callable[[Any, Any], Any], path: str) -> None:
        self.function = function
        self.path = path
        self.__name__ = getattr(function, "__name__", type(function).__name__)

    def __call__(self, resource: Any, value: Any) -> Any:
        with contextlib.suppress(ValueError):  # not the main thread
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
        new = Path(f"{self.path}.new")
        new.write_text(f"{os.getpid()} {time.monotonic()}")
        new.rename(self.path)
        try:
            return self.function(resource, value)
        finally:
            with contextlib.suppress(ValueError):
                signal.signal(signal.SIGALRM, signal.SIG_IGN)  # an end that comes too late ends no other call
            Path(self.path).unlink(missing_ok=True)

    def end_if_late(self, seconds: float) -> None:
        """End the process if its call has run for longer than `seconds`. In the parent."""
        try:
            process, began = Path(self.path).read_text().split()
        except OSError:  # it has not begun, or has ended
            return
        if time.monotonic() - float(began) > seconds:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(process), signal.SIGALRM)


class _ProcessEnded(JobTimeout):
    """`JobTimeout` of a call whose process was ended; records show it as that."""

    __module__ = JobTimeout.__module__
    __qualname__ = JobTimeout.__qualname__

    def __str__(self) -> str:
        return "The call took longer than --timeout allows, and its process was ended."


def cause_of(error: BaseException) -> BaseException:
    """`JobTimeout` for the death of a child that `LimitedCall` has ended, else the error itself."""
    if isinstance(error, WorkerDied) and error.exitcode == -signal.SIGALRM:
        return _ProcessEnded("running")
    return error
