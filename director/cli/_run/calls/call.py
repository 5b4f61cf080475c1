"""The calls of items: how they are submitted, each by itself or in batches, and what runs on the slots' threads."""

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
    from collections.abc import Callable, Sequence

    from director import Device, Director, Job, Model
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


_AUTO = 64  # items of a batch with `--batch-size auto`, which the Director halves when the memory is full


class PlainJobs:
    """A job for each item."""

    def __init__(self, director: Director, model: Model[Any] | None, name: str) -> None:
        self._director = director
        self._options: dict[str, Any] = {"model": model, "name": name}

    def window(self, slots: int) -> int:
        """The fewest items between input and output that keep the slots busy."""
        return 2 * slots

    def submit(
        self, function: Callable[[Any, Any], Any], value: Any, timeout: float | None, avoided: Sequence[Device]
    ) -> Job[Any]:
        """Queue a call; see `rules.Jobs`."""
        devices = others(self._director, avoided) if avoided else None
        return self._director.submit(function, value, timeout=timeout, devices=devices, **self._options)

    def slots_of(self, device: str) -> int:
        """How many slots a device has."""
        return slots_of(self._director, device)


class BatchJobs:
    """A job for each item, whose calls the Director makes for many items together.

    Args:
        director: Open.
        function: Called with the resource and a list of values.
        model: The model whose replica the function gets.
        name: Of the function.
        size: Most items of a call; 0 for as many as the memory allows.
    """

    def __init__(
        self, director: Director, function: Callable[[Any, Any], Any], model: Model[Any] | None, name: str, size: int
    ) -> None:
        self._director = director
        self._size = size or _AUTO
        self._function = director.function(
            function, max_batch_size=self._size, isolate_failures=True, model=model, name=name
        )

    def window(self, slots: int) -> int:
        """The fewest items between input and output that keep the slots busy: two full batches for each."""
        return 2 * slots * self._size

    def submit(
        self, function: Callable[[Any, Any], Any], value: Any, timeout: float | None, avoided: Sequence[Device]
    ) -> Job[Any]:
        """Queue an item; see `rules.Jobs`."""
        if timeout is None and not avoided:
            return self._function.submit(value)
        devices = others(self._director, avoided) if avoided else None
        return self._function.with_options(timeout=timeout, devices=devices).submit(value)

    def slots_of(self, device: str) -> int:
        """How many slots a device has."""
        return slots_of(self._director, device)


def others(director: Director, avoided: Sequence[Device]) -> list[Device] | None:
    """The devices that get work, without the avoided ones; `None`, which is all, if there is no other."""
    rest = [each.device for each in director.stats().devices if each.reason is None and each.device not in avoided]
    return rest or None


def slots_of(director: Director, device: str) -> int:
    """How many slots a device has."""
    return next((stats.slots for stats in director.stats().devices if stats.device.label == device), 1)
