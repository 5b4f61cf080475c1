"""What calls cost, learned as they end: seconds as a line over the batch size, by function and device.

Guarded by `scheduler`'s lock.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary, ref

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator

    from director._jobs.options import BatchRule
    from director._scheduler.slots import DeviceSlots


_KEEP = 0.98  # weight of the past against one new call: the line follows about the last 50
_NOTED = 64  # calls that have ended, before somebody has asked
_DOUBTED = 16  # times as long as a call takes, without one: then the line is not believed if it says `too late`


class LinearCost:
    """Least squares over (size, seconds) with exponential forgetting, and how far calls stray from it."""

    __slots__ = (
        "_fit",
        "_margin",
        "_seconds",
        "_seconds2",
        "_size",
        "_size2",
        "_size_seconds",
        "_weight",
        "at",
        "calls",
        "items",
    )

    def __init__(self) -> None:
        self.calls = self.items = 0
        self.at = math.inf  # when the last call began
        self._clear()

    def _clear(self) -> None:
        self._fit: tuple[float, float] | None = None  # as long as nothing is added; so is the next
        self._margin: float | None = None
        self._weight = self._size = self._seconds = 0.0  # sums, in which the past counts less and less
        self._size2 = self._seconds2 = self._size_seconds = 0.0

    def add(self, size: int, seconds: float, at: float = math.inf) -> None:
        """A call with `size` items, begun `at` a moment, has taken `seconds`."""
        if self.is_stale(at) and 2 * seconds < self.seconds(size):
            self._clear()
        self._fit = self._margin = None
        self.at = at
        self.calls += 1
        self.items += size
        self._weight = self._weight * _KEEP + 1
        self._size = self._size * _KEEP + size
        self._seconds = self._seconds * _KEEP + seconds
        self._size2 = self._size2 * _KEEP + size * size
        self._seconds2 = self._seconds2 * _KEEP + seconds * seconds
        self._size_seconds = self._size_seconds * _KEEP + size * seconds

    def fit(self) -> tuple[float, float]:
        """Seconds of a call whatever its size, and seconds for each item. Neither is negative."""
        if self._fit is None:
            self._fit = self._line()
        return self._fit

    def _line(self) -> tuple[float, float]:
        weight = self._weight
        if not weight:
            return 0.0, 0.0
        size, seconds = self._size / weight, self._seconds / weight
        spread = self._size2 / weight - size * size
        if spread < 1e-6:  # one size only: nothing tells the two apart
            return 0.0, seconds / size
        slope = max(0.0, (self._size_seconds / weight - size * seconds) / spread)
        fixed = seconds - slope * size
        return (fixed, slope) if fixed >= 0 else (0.0, seconds / size)

    def is_stale(self, now: float) -> bool:
        """It was long ago that a call was measured: only another one tells whether the line still holds."""
        return now - self.at > _DOUBTED * self.seconds(1)

    def seconds(self, size: int) -> float:
        """Predicted for a call with `size` items; 0 while nothing was measured."""
        fixed, slope = self.fit()
        return fixed + slope * size

    @property
    def margin(self) -> float:
        """Seconds to be added where being late is worse than being small: two standard deviations from the line.

        Of the same calls as the line, and not of how far each was from the line of its time: that one knows nothing yet
        while the first calls are of one size, and what it gets wrong then would be remembered.
        """
        if self._margin is None:
            self._margin = self._residual()
        return self._margin

    def _residual(self) -> float:
        weight = self._weight
        if not weight:
            return 0.0
        fixed, slope = self.fit()
        squares = self._seconds2 - 2 * slope * self._size_seconds + slope * slope * self._size2
        about_fixed = fixed * fixed * weight - 2 * fixed * (self._seconds - slope * self._size)
        return 2 * math.sqrt(max(0.0, (squares + about_fixed) / weight))


class CostModel:
    """The lines of all functions on all devices; a function that nobody holds any more is forgotten.

    A call that has ended is only noted: a slot is between two calls then, and its device waits. What was noted is
    learned when somebody asks, or when it has become much.
    """

    __slots__ = ("_lines", "_noted")

    def __init__(self) -> None:
        self._lines: WeakKeyDictionary[BatchRule, dict[DeviceSlots, LinearCost]] = WeakKeyDictionary()
        self._noted: list[tuple[ref[BatchRule], DeviceSlots, int, float, float]] = []

    def add(self, rule: BatchRule, place: DeviceSlots, size: int, seconds: float, at: float = math.inf) -> None:
        """A call of the function, begun `at` a moment, has ended on a device."""
        self._noted.append((ref(rule), place, size, seconds, at))
        if len(self._noted) >= _NOTED:
            self._learn()

    def line(self, rule: BatchRule, place: DeviceSlots, now: float) -> LinearCost | None:
        """What is known of a function on a device; `None` also if that is in doubt."""
        line = self._lines_of(rule).get(place)
        return None if line is None or line.is_stale(now) else line

    def safe_seconds(self, rule: BatchRule, size: int) -> float:
        """What a call takes at most on the slowest device that is known; infinite while nothing was measured."""
        return max((line.seconds(size) + line.margin for line in self._lines_of(rule).values()), default=math.inf)

    def least_seconds(self, rule: BatchRule, size: int) -> float:
        """Predicted on the fastest device that is known; 0 while nothing was measured."""
        return min((line.seconds(size) for line in self._lines_of(rule).values()), default=0.0)

    def __iter__(self) -> Iterator[tuple[BatchRule, DeviceSlots, LinearCost]]:
        self._learn()
        for rule, lines in list(self._lines.items()):
            for place, line in lines.items():
                yield rule, place, line

    def _lines_of(self, rule: BatchRule) -> dict[DeviceSlots, LinearCost]:
        if self._noted:
            self._learn()
        return self._lines.get(rule, {})

    def _learn(self) -> None:
        noted, self._noted = self._noted, []
        for known, place, size, seconds, at in noted:
            if (rule := known()) is None:
                continue
            lines = self._lines.setdefault(rule, {})
            line = lines.get(place)
            if line is None:
                line = lines[place] = LinearCost()
            line.add(size, seconds, at)


_RAISE_AFTER = 32  # full calls that fit before one item more is tried: memory comes back, but not for long
_KEYS = 1024  # limits of one function that are remembered; then it learns them anew


class Limit:
    """The largest call that is tried."""

    __slots__ = ("calls", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        self.calls = 0  # of that size, that have fitted


class BatchSizeLimits:
    """Limits by function, batch key and device; where none was met there is none."""

    __slots__ = ("_limits", "_met")

    def __init__(self) -> None:
        self._limits: WeakKeyDictionary[BatchRule, dict[tuple[Hashable, DeviceSlots], Limit]] = WeakKeyDictionary()
        self._met = False  # any: most often none is, and each call asks

    def most(self, rule: BatchRule, key: Hashable, place: DeviceSlots) -> int:
        """Most items that a call should have."""
        limits = self._limits.get(rule) if self._met else None
        limit = None if limits is None else limits.get((key, place))
        return rule.max_size if limit is None else min(limit.size, rule.max_size)

    def lower(self, rule: BatchRule, key: Hashable, place: DeviceSlots, fits: int) -> None:
        """A call lacked memory; one with `fits` items did not (0: none did)."""
        self._met = True
        limits = self._limits.setdefault(rule, {})
        if len(limits) >= _KEYS:
            limits.clear()
        limits[key, place] = Limit(max(1, fits))

    def note_fit(self, rule: BatchRule, key: Hashable, place: DeviceSlots, size: int) -> None:
        """A call with `size` items has fitted: after many at the limit, one item more is tried."""
        limits = self._limits.get(rule) if self._met else None
        limit = None if limits is None else limits.get((key, place))
        if limits is None or limit is None or size < limit.size:
            return
        limit.calls += 1
        if limit.calls >= _RAISE_AFTER:
            limit.size, limit.calls = limit.size + 1, 0
            if limit.size >= rule.max_size:
                del limits[key, place]
