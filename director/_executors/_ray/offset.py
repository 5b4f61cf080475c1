"""How the clock of another machine stands against ours. Pure.

A call begins after it was sent, and its answer is read after it has ended: each call bounds the offset from both sides.
The bounds are let go of slowly, for clocks drift.
"""

from __future__ import annotations

import math

_DRIFT = 1e-4  # seconds in a second, more than any quartz


class Offset:
    """What to add to another clock's seconds."""

    __slots__ = ("_at", "_least", "_most")

    def __init__(self) -> None:
        self._least, self._most = -math.inf, math.inf
        self._at = 0.0

    def here(self, began: float, ended: float, sent: float, read: float) -> float:
        """When a call has ended, in our time.

        Args:
            began: By the other clock.
            ended: The same.
            sent: By ours, before the one.
            read: The same, after the other.
        """
        slack = _DRIFT * max(0.0, read - self._at)
        self._at = read
        least, most = max(self._least - slack, sent - began), min(self._most + slack, read - ended)
        if least > most:  # a clock was set, or it is another machine's
            least, most = sent - began, read - ended
        self._least, self._most = least, most
        return ended + (least + most) / 2
