"""A clock that a test advances."""

from __future__ import annotations

import heapq
import itertools
import threading
from typing import TYPE_CHECKING

from director._untrusted import numbers

if TYPE_CHECKING:
    from collections.abc import Callable


class TestClock:
    """A clock that stands still until it is advanced: ``Director(clock=TestClock())``.

    Deadlines, timeouts and measured times follow it; threads and the event loop do not.
    """

    __test__ = False  # not a test case, although pytest collects such names

    def __init__(self) -> None:
        self._now = 0.0
        # Reentrant: a finalizer or a signal handler that runs while it is held may submit a job and start a timer.
        self._lock = threading.RLock()
        self._order = itertools.count()
        self._calls: list[tuple[float, int, TestTimer]] = []

    def time(self) -> float:
        """Seconds since it was made."""
        return self._now

    def call_later(self, delay: float, callback: Callable[[], None]) -> TestTimer:
        """Call `callback` when the clock has been advanced by `delay` seconds."""
        timer = TestTimer(callback)
        with self._lock:
            heapq.heappush(self._calls, (self._now + delay, next(self._order), timer))
        return timer

    def advance(self, seconds: float) -> None:
        """Advance the time and make the calls that are due, in order; on the event loop only.

        Raises:
            TypeError: It is no number.
            ValueError: It is negative, or more than 1,000,000,000 seconds.
        """
        until = self._now + numbers.seconds("seconds", seconds, zero=True)
        while (call := self._take(until)) is not None:
            when, _, timer = call
            self._now = max(self._now, when)
            timer.wake()
        self._now = max(self._now, until)

    def _take(self, until: float) -> tuple[float, int, TestTimer] | None:
        with self._lock:
            return heapq.heappop(self._calls) if self._calls and self._calls[0][0] <= until else None


class TestTimer:
    """A scheduled call of a `TestClock`."""

    __test__ = False

    def __init__(self, callback: Callable[[], None]) -> None:
        self._callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        """Cancel the call."""
        self._callback = None

    def wake(self) -> None:
        """Make the call, unless it was cancelled."""
        callback, self._callback = self._callback, None
        if callback is not None:
            callback()
