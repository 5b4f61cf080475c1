"""Counts of what happened, by the second, for the last minutes. Written only by the recorder, on the event loop.

Waits and run times are kept as histograms whose bins grow by a ninth, so a percentile over any number of jobs costs the
same and is off by 5 % at most; memory is bounded by the number of seconds.
"""

from __future__ import annotations

import math
from collections import deque
from math import log2
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

Histogram: TypeAlias = dict[int, int]

SECONDS = 300  # of history
_FINEST = 1e-6  # seconds; what is shorter counts as nothing
_BINS_PER_OCTAVE = 8


class Second:
    """What happened within one second, and the last counts of waiting and running jobs in it."""

    __slots__ = ("at", "calls", "ends", "queued", "rejected", "running", "runs", "waits")

    def __init__(self, at: int, queued: int, running: int) -> None:
        self.at = at
        self.ends = {"succeeded": 0, "failed": 0, "cancelled": 0}
        self.rejected = 0
        self.queued = queued
        self.running = running
        self.waits: Histogram = {}
        self.runs: Histogram = {}
        self.calls: dict[int, int] = {}  # by the number of their jobs

    def count_call(self, jobs: int) -> None:
        """One more job of a call has ended, `jobs` so far: the call was counted with one job less before."""
        calls = self.calls
        calls[jobs] = calls.get(jobs, 0) + 1
        if jobs > 1:
            calls[jobs - 1] = calls.get(jobs - 1, 0) - 1


class Tally:
    """The last `SECONDS` seconds.

    Args:
        now: The current time.
        count_jobs: Returns how many jobs wait and run; called when a second is over.
    """

    def __init__(self, now: float, count_jobs: Callable[[], tuple[int, int]]) -> None:
        self._count_jobs = count_jobs
        self._seconds: deque[Second] = deque([Second(math.floor(now), 0, 0)], maxlen=SECONDS)

    def at(self, moment: float) -> Second:
        """The second that `moment` is in; the latest one if it is earlier, because `Event.at` may go back a little."""
        last = self._seconds[-1]
        if moment < last.at + 1:
            return last
        last.queued, last.running = self._count_jobs()
        second = math.floor(moment)
        for missed in range(max(last.at + 1, second - SECONDS), second + 1):
            self._seconds.append(Second(missed, last.queued, last.running))
        return self._seconds[-1]

    def last(self, count: int, now: float) -> list[Second]:
        """The `count` latest whole seconds, oldest first; fewer in the beginning."""
        running = self.at(now)
        return [second for second in self._seconds if running.at - count <= second.at < running.at]


def note(histogram: Histogram, seconds: float) -> None:
    """Count a duration; one below the resolution falls into bin 0."""
    number = 1 + int(_BINS_PER_OCTAVE * log2(seconds / _FINEST)) if seconds > _FINEST else 0
    histogram[number] = histogram.get(number, 0) + 1


def seconds_of(number: int) -> float:
    """The middle of a bin."""
    return 0.0 if number == 0 else float(_FINEST * 2 ** ((number - 0.5) / _BINS_PER_OCTAVE))


def quantiles(histograms: Iterable[Histogram], *shares: float) -> list[float] | None:
    """Durations that these shares of all that was counted stay below; `None` if nothing was."""
    merged: Histogram = {}
    for histogram in histograms:
        for number, count in histogram.items():
            merged[number] = merged.get(number, 0) + count
    total = sum(merged.values())
    return [seconds_of(_bin_at(merged, share * total)) for share in shares] if total else None


def _bin_at(merged: Histogram, rank: float) -> int:
    counted = 0
    for number in sorted(merged):
        counted += merged[number]
        if counted >= rank:
            break
    return number
