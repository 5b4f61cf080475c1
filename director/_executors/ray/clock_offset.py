"""The offset of an actor's clock: for each call, when it has ended by the clock of this process. Pure."""

from __future__ import annotations

import math

_DRIFT = 1e-4  # seconds in a second, at most, by which two clocks may drift apart


class ClockOffset:
    """Bounds of the difference of two clocks, by which `to_local` estimates it."""

    __slots__ = ("_at", "_least", "_most")

    def __init__(self) -> None:
        self._least, self._most = -math.inf, math.inf
        self._at = 0.0

    def to_local(self, began: float, ended: float, sent: float, read: float) -> float:
        """When a call has ended, by the local clock.

        Args:
            began: When it began, by the other clock.
            ended: When it has ended, by the other clock.
            sent: When it was sent, by the local clock: before `began`.
            read: When its answer was received, by the local clock: after `ended`.
        """
        slack = _DRIFT * max(0.0, read - self._at)
        self._at = read
        least, most = max(self._least - slack, sent - began), min(self._most + slack, read - ended)
        if least > most:  # a clock was set, or the actor is on another machine
            least, most = sent - began, read - ended
        self._least, self._most = least, most
        return ended + (least + most) / 2
