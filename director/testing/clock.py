"""A clock that a test moves."""

from __future__ import annotations

import heapq
import itertools
import threading
from typing import TYPE_CHECKING

from director._untrusted import numbers

if TYPE_CHECKING:
    from collections.abc import Callable


class TestClock:
    """A clock that stands still until it is moved: ``Director(clock=TestClock())``.

    Deadlines, timeouts and measured times follow it; threads and the event loop do not.
    """

    __test__ = False  # not a test case, whatever pytest thinks of the name

    def __init__(self) -> None:
        self._now = 0.0
        self._lock = threading.RLock()  # a finalizer or a signal handler may submit, and time a job, in the midst
        self._order = itertools.count()
        self._calls: list[tuple[float, int, TestTimer]] = []

    def time(self) -> float:
        """Seconds since it was made."""
        return self._now

    def call_later(self, delay: float, callback: Callable[[], None]) -> TestTimer:
        """Call `callback` when the clock is moved past `delay` seconds from now."""
        timer = TestTimer(callback)
        with self._lock:
            heapq.heappush(self._calls, (self._now + delay, next(self._order), timer))
        return timer

    def advance(self, seconds: float) -> None:
        """Move on, making the calls that fall due in order; on the event loop only.

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
    """A call that a `TestClock` will make."""

    __test__ = False

    def __init__(self, callback: Callable[[], None]) -> None:
        self._callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        """Don't make it."""
        self._callback = None

    def wake(self) -> None:
        """Make it, unless it was cancelled."""
        callback, self._callback = self._callback, None
        if callback is not None:
            callback()
