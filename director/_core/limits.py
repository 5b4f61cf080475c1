"""Sizes of batches that fit into a device's memory, learned from those that did not. Guarded by `dispatch`'s lock."""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from collections.abc import Hashable

    from director._core.batch_rule import BatchRule
    from director._core.slot import Place

_RAISE_AFTER = 32  # full calls that fit before one item more is tried: memory comes back, but not for long
_KEYS = 1024  # limits of one function that are remembered; then it learns them anew


class Limit:
    """The largest call that is tried."""

    __slots__ = ("calls", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        self.calls = 0  # of that size, that have fitted


class Limits:
    """Limits by function, batch key and device; where none was met there is none."""

    __slots__ = ("_limits", "_met")

    def __init__(self) -> None:
        self._limits: WeakKeyDictionary[BatchRule, dict[tuple[Hashable, Place], Limit]] = WeakKeyDictionary()
        self._met = False  # any: most often none is, and each call asks

    def most(self, rule: BatchRule, key: Hashable, place: Place) -> int:
        """Most items that a call should have."""
        limits = self._limits.get(rule) if self._met else None
        limit = None if limits is None else limits.get((key, place))
        return rule.max_size if limit is None else min(limit.size, rule.max_size)

    def lower(self, rule: BatchRule, key: Hashable, place: Place, fits: int) -> None:
        """A call lacked memory; one with `fits` items did not (0: none did)."""
        self._met = True
        limits = self._limits.setdefault(rule, {})
        if len(limits) >= _KEYS:
            limits.clear()
        limits[key, place] = Limit(max(1, fits))

    def note_fit(self, rule: BatchRule, key: Hashable, place: Place, size: int) -> None:
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
