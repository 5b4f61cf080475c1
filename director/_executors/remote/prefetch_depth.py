"""How much work a child is to have ahead: enough for the time that its thread here may need to come round. Pure.

Beside a loop that holds the GIL that can be many milliseconds; at rest it is next to none. What is measured is how late
an answer is read; what is kept is a little more than the worst of late.
"""

from __future__ import annotations

import math

MOST = 64  # calls; far fewer than the child's inbox holds
_SHORTEST = 0.02  # seconds of work, however quick the thread is: a loop that begins to compute keeps the GIL for 5 ms
# at once, and has the threads of other slots go first
_LONGEST = 0.05
_MARGIN = 1.5  # times the lateness that was seen
_FADING = 0.1  # seconds in which a lateness that does not come again loses two thirds of its weight
_FOLLOWING = 0.2  # weight of the last call in the mean
_TOO_LONG = 0.5  # seconds of a call against which the time between two is nothing
_RESTING = 0.25  # part of the work ahead in which nobody looks at answers
_LONGEST_REST = 0.005  # seconds: what an answer may be late by, whatever is ahead
_PATIENCE = 2.0  # times the mean (or the work ahead) that a call may take before what is ahead goes back


class PrefetchDepth:
    """Run times and lateness of one slot's calls."""

    __slots__ = ("_noted_at", "horizon", "mean")

    def __init__(self) -> None:
        self.mean = 0.0  # seconds of a call; 0 while nothing is known
        self.horizon = _SHORTEST  # seconds of work to have ahead
        self._noted_at = 0.0

    def note(self, began: float, ended: float, read: float) -> None:
        """A call ran from `began` to `ended`, and its answer was read at `read`."""
        run = ended - began
        self.mean += (run - self.mean) * _FOLLOWING if self.mean else run
        faded = self.horizon * math.exp((self._noted_at - read) / _FADING) if self._noted_at else 0.0
        self._noted_at = read
        self.horizon = min(_LONGEST, max(_SHORTEST, faded, _MARGIN * (read - ended)))

    @property
    def depth(self) -> int:
        """Calls to have ahead."""
        if not self.mean or self.mean > _TOO_LONG:
            return 0
        return min(MOST, math.ceil(self.horizon / self.mean))

    def rest(self, ahead: int) -> float:
        """Seconds for which a child with so many calls `ahead` needs nobody, and its answers can wait."""
        return min(_LONGEST_REST, _RESTING * self.mean * ahead)

    @property
    def patience(self) -> float:
        """Seconds that a call may take, before those behind it are better off elsewhere."""
        return _PATIENCE * max(self.mean, self.horizon)
