"""What calls cost, learned as they end: seconds as a linear function of the batch size, by function and device.

Device seconds are charged to tenants. Guarded by `scheduler`'s lock.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, ref

from director._scheduler.slots import CallUsage

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator

    from director._jobs.job import ScheduledJob
    from director._jobs.options import BatchRule
    from director._scheduler.queue.fair_share import FairShare
    from director._scheduler.slots import DeviceSlots, Slot

_KEEP = 0.98  # weight of the past against one new call: about the last 50 calls count
_NOTED = 64  # measurements that are buffered before they are learned
_DOUBTED = 16  # without a call for this many times its duration, a fit is stale and fails no job


class LinearCost:
    """Least squares over (size, seconds) with exponential forgetting, and the deviation of calls from it."""

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
        self._fit: tuple[float, float] | None = None  # cached until the next call is added, like the next
        self._margin: float | None = None
        self._weight = self._size = self._seconds = 0.0  # exponentially weighted sums
        self._size2 = self._seconds2 = self._size_seconds = 0.0

    def add(self, size: int, seconds: float, at: float = math.inf) -> None:
        """A call with `size` items, begun at the time `at`, has taken `seconds`."""
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
        """Fixed seconds of a call, and seconds for each item. Neither is negative."""
        if self._fit is None:
            self._fit = self._line()
        return self._fit

    def _line(self) -> tuple[float, float]:
        weight = self._weight
        if not weight:
            return 0.0, 0.0
        size, seconds = self._size / weight, self._seconds / weight
        spread = self._size2 / weight - size * size
        if spread < 1e-6:  # one size only: the two can't be told apart
            return 0.0, seconds / size
        slope = max(0.0, (self._size_seconds / weight - size * seconds) / spread)
        fixed = seconds - slope * size
        return (fixed, slope) if fixed >= 0 else (0.0, seconds / size)

    def is_stale(self, now: float) -> bool:
        """Whether the last measured call is so long ago that the fit may be wrong by now."""
        return now - self.at > _DOUBTED * self.seconds(1)

    def seconds(self, size: int) -> float:
        """Predicted for a call with `size` items; 0 while nothing was measured."""
        fixed, slope = self.fit()
        return fixed + slope * size

    @property
    def margin(self) -> float:
        """Seconds to add where being late is worse than a small batch: two standard deviations from the fit.

        Measured against the current fit, not against the one at the time of each call: early fits, made from calls
        of one size, are wrong, and their errors would stay in the margin.
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
    """The costs of all functions on all devices; a function is forgotten with its last reference.

    A call that has ended is only buffered, because its device is idle until the slot has its next job. The buffer is
    learned at the next query, or when it is full.
    """

    __slots__ = ("_lines", "_noted")

    def __init__(self) -> None:
        self._lines: WeakKeyDictionary[BatchRule, dict[DeviceSlots, LinearCost]] = WeakKeyDictionary()
        self._noted: list[tuple[ref[BatchRule], DeviceSlots, int, float, float]] = []

    def add(self, rule: BatchRule, place: DeviceSlots, size: int, seconds: float, at: float = math.inf) -> None:
        """A call of the function, begun at the time `at`, has taken `seconds` on a device."""
        self._noted.append((ref(rule), place, size, seconds, at))
        if len(self._noted) >= _NOTED:
            self._learn()

    def line(self, rule: BatchRule, place: DeviceSlots, now: float) -> LinearCost | None:
        """The cost of a function on a device; `None` if it is unknown or stale."""
        line = self._lines_of(rule).get(place)
        return None if line is None or line.is_stale(now) else line

    def safe_seconds(self, rule: BatchRule, size: int) -> float:
        """Seconds of a call with its margin on the slowest device; infinite while nothing was measured."""
        return max((line.seconds(size) + line.margin for line in self._lines_of(rule).values()), default=math.inf)

    def least_seconds(self, rule: BatchRule, size: int) -> float:
        """Seconds of a call on the fastest device; 0 while nothing was measured."""
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


_RAISE_AFTER = 32  # calls at the limit that have to fit before one item more is tried
_KEYS = 1024  # limits of one function; with more it starts over


class Limit:
    """The largest batch that is tried."""

    __slots__ = ("calls", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        self.calls = 0  # of that size that have fitted


class BatchSizeLimits:
    """Batch size limits learned from out-of-memory errors, by function, batch key and device."""

    __slots__ = ("_limits", "_met")

    def __init__(self) -> None:
        self._limits: WeakKeyDictionary[BatchRule, dict[tuple[Hashable, DeviceSlots], Limit]] = WeakKeyDictionary()
        self._met = False  # any limit: usually none, and each call asks

    def most(self, rule: BatchRule, key: Hashable, place: DeviceSlots) -> int:
        """Most items that a call should have."""
        limits = self._limits.get(rule) if self._met else None
        limit = None if limits is None else limits.get((key, place))
        return rule.max_size if limit is None else min(limit.size, rule.max_size)

    def lower(self, rule: BatchRule, key: Hashable, place: DeviceSlots, fits: int) -> None:
        """A call ran out of memory; one with `fits` items did not (0: none fitted)."""
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


class Accounting:
    """Charges calls as they start and settles them as they end.

    Args:
        tenants: Charged as soon as there are any.
        discarded: Takes what may hold the last reference to a function, to be dropped without the lock.
    """

    __slots__ = ("_discarded", "_tenants", "costs", "limits", "unsettled")

    def __init__(self, tenants: FairShare, discarded: list[Any]) -> None:
        self._tenants = tenants
        self._discarded = discarded
        self.costs = CostModel()
        self.limits = BatchSizeLimits()
        self.unsettled = 0  # calls that have not ended

    def open(self, slot: Slot, jobs: list[ScheduledJob[Any]], is_resident: bool, now: float) -> None:
        """A call for `jobs` starts on `slot`; `is_resident`: its model is loaded there already."""
        rule, tenants = jobs[0].options.batch_rule, self._tenants
        extra = jobs[0].extras
        usage = slot.usage = CallUsage(
            now, slot.busy_seconds, rule, None if extra is None else extra.batch_key, len(jobs)
        )
        usage.is_typical = is_resident
        self.unsettled += 1
        if tenants.known:
            served = [tenants.of(job.options.account) for job in jobs]
            usage.tenants = [(tenant, tenants.start(tenant)) for tenant in served]

    def repair(self, slots: list[Slot]) -> None:
        """Rebuild the counts of calls that have not ended from the slots."""
        usages = [slot.usage for slot in slots if slot.usage is not None]
        self.unsettled = len(usages)
        self._tenants.recount_running(tenant for usage in usages for tenant, _ in usage.tenants)

    def counts(self, job: ScheduledJob[Any]) -> bool:
        """Whether the call of `job` is charged to a tenant or a function."""
        return job.options.batch_rule is not None or bool(self._tenants.known)

    def settle(self, slot: Slot) -> None:
        """The call on `slot` has ended."""
        usage, slot.usage = slot.usage, None
        assert usage is not None
        self.unsettled -= 1
        seconds = slot.busy_seconds - usage.before
        if usage.rule is not None:
            self._learn(usage, usage.rule, slot.place, seconds)
            self._discarded.append(usage)
        for tenant, charged in usage.tenants:
            self._tenants.finish(tenant, charged, seconds / len(usage.tenants))

    def _learn(self, usage: CallUsage, rule: BatchRule, place: DeviceSlots, seconds: float) -> None:
        """Learn cost and size limit from a call of a batch function."""
        if usage.fits is not None:
            self.limits.lower(rule, usage.key, place, usage.fits)
        elif usage.is_typical and seconds > 0:
            self.costs.add(rule, place, usage.size, seconds, usage.at)
            self.limits.note_fit(rule, usage.key, place, usage.size)
