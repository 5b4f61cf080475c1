"""When to look at held groups again. Guarded by `dispatch`'s lock."""

from __future__ import annotations

import itertools
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from director._core.group import Group

_NEVER = float("inf")
_SWEEP_AT = 64  # entries, before those that mean nothing any more are swept out


class Holds:
    """Moments at which held groups may be ripe: an entry means something while it is the group's `looked_at`.

    Args:
        spent: Takes the others, to be let go of outside of the lock.
    """

    __slots__ = ("_numbers", "_spent", "_sweep_at", "entries")

    def __init__(self, spent: list[Any]) -> None:
        self.entries: list[tuple[float, int, Group]] = []
        self._numbers = itertools.count()
        self._spent = spent
        self._sweep_at = _SWEEP_AT

    def look_at(self, group: Group, moment: float) -> None:
        """Look at a held group at `moment`, if nobody does before."""
        if moment >= group.looked_at:
            return
        group.looked_at = moment
        heappush(self.entries, (moment, next(self._numbers), group))
        if len(self.entries) > self._sweep_at:
            self._sweep()

    def next_look(self) -> float:
        """The next moment at which a held group may be ripe."""
        entries = self.entries
        while entries:
            moment, _, group = entries[0]
            if moment == group.looked_at:
                return moment
            self._spent.append(heappop(entries))
        return _NEVER

    def take_due(self, now: float) -> list[Group]:
        """Take out the groups to be looked at."""
        groups = []
        while self.next_look() <= now:
            group = heappop(self.entries)[2]
            group.looked_at = _NEVER
            groups.append(group)
        return groups

    def clear(self) -> None:
        """Look at nothing more."""
        if self.entries:
            self._spent.append(self.entries)
            self.entries = []

    def _sweep(self) -> None:
        self._spent.append(self.entries)
        self.entries = [entry for entry in self.entries if entry[0] == entry[2].looked_at]
        heapify(self.entries)
        self._sweep_at = max(_SWEEP_AT, 2 * len(self.entries))
