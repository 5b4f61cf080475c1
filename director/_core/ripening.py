"""When to look at batches that wait for company: one timer, for the earliest moment that was asked for. On the loop."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from director._core.clock import Clock, Timer


class Ripening:
    """Makes a call at a moment.

    Args:
        clock: Makes the timer.
        ripen: The call.
    """

    def __init__(self, clock: Clock, ripen: Callable[[], None]) -> None:
        self._clock = clock
        self._ripen = ripen
        self._timer: Timer | None = None
        self._moment = 0.0  # while there is such a timer

    def set(self, moment: float) -> None:
        """Call at `moment`, unless that is about to be done earlier."""
        if self._timer is not None:
            if self._moment <= moment:
                return  # two threads have asked, and the one with the earlier moment was here first
            self._timer.cancel()
        self._moment = moment
        self._timer = self._clock.call_later(max(0.0, moment - self._clock.time()), self._due)

    def stop(self) -> None:
        """Call no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _due(self) -> None:
        self._timer = None
        self._ripen()
