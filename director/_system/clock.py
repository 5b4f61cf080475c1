"""The clock of a Director. All its times and timers come from here, so that a test can replace it."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable


class Timer(Protocol):
    """A call that is scheduled."""

    def cancel(self) -> None:
        """Cancel the call; does nothing once it has been made."""


class Clock(Protocol):
    """The clock that a Director uses."""

    def time(self) -> float:
        """Seconds since a fixed time, never going back. Called on any thread, never under the scheduler's lock."""

    def call_later(self, delay: float, callback: Callable[[], None]) -> Timer:
        """Call `callback` on the event loop in `delay` seconds. Called on the loop only."""


class MonotonicClock:
    """The machine's monotonic clock, with the running event loop's timers.

    Not `loop.time`: uvloop caches that per iteration, so it does not advance while the loop is blocked.
    """

    time = staticmethod(time.monotonic)

    def call_later(self, delay: float, callback: Callable[[], None]) -> Timer:
        """Call `callback` on the running loop in `delay` seconds."""
        return asyncio.get_running_loop().call_later(delay, callback)
