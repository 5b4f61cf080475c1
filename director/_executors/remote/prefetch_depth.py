"""How many calls a child should have prefetched: enough until the slot's thread reads its answers. Pure.

The delay is many milliseconds beside an event loop that holds the GIL, and nearly none when it is idle. It is measured
for each answer; the depth is for somewhat more than the largest recent delay.
"""

from __future__ import annotations

import math

MOST = 64  # calls; far fewer than the child's socket holds
# Seconds of work, at least: an event loop that begins to compute keeps the GIL for 5 ms, and the threads of other slots
# may come first.
_SHORTEST = 0.02
_LONGEST = 0.05
_MARGIN = 1.5  # times the measured delay
_FADING = 0.1  # seconds in which a past delay loses two thirds of its weight
_FOLLOWING = 0.2  # weight of the last call in the mean
_TOO_LONG = 0.5  # seconds of a call from which the time between two calls does not matter
_DELAYED_PART = 0.25  # part of the prefetched work during which answers are not read
_LONGEST_DELAY = 0.005  # seconds that an answer may be read late, at most
_RETURN_AFTER = 2.0  # times the mean (or the horizon) that a call may take before prefetched ones are given back


class PrefetchDepth:
    """Run times of one slot's calls, and delays of their answers."""

    __slots__ = ("_noted_at", "horizon", "mean")

    def __init__(self) -> None:
        self.mean = 0.0  # seconds of a call; 0 while unknown
        self.horizon = _SHORTEST  # seconds of work to prefetch
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
        """Calls to prefetch."""
        if not self.mean or self.mean > _TOO_LONG:
            return 0
        return min(MOST, math.ceil(self.horizon / self.mean))

    def read_delay(self, prefetched: int) -> float:
        """Seconds for which the answers of a child with so many prefetched calls need not be read."""
        return min(_LONGEST_DELAY, _DELAYED_PART * self.mean * prefetched)

    @property
    def return_after(self) -> float:
        """Seconds that a call may take before the prefetched ones behind it are given back."""
        return _RETURN_AFTER * max(self.mean, self.horizon)
