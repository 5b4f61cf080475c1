"""Jobs by a moment (or another number), lowest first. Guarded by `scheduler`'s lock.

A job that has left stays where it stands and is passed over when it comes to the front, or swept.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from director._jobs.job import ScheduledJob

_SWEEP_AT = 64  # entries of jobs that have left, before they are swept out, once they outnumber those who wait


class LazyHeap:
    """A heap of jobs, whatever they are ordered by."""

    __slots__ = ("_entries",)

    def __init__(self) -> None:
        self._entries: list[tuple[float, int, ScheduledJob[Any]]] = []

    def push(self, moment: float, job: ScheduledJob[Any]) -> None:
        """Add a job; it may be there already."""
        heappush(self._entries, (moment, job.id, job))

    def first(
        self, waits: Callable[[ScheduledJob[Any]], bool], spent: list[Any]
    ) -> tuple[float, ScheduledJob[Any]] | None:
        """The lowest moment of those that wait, and its job; what is passed over goes to `spent`."""
        entries = self._entries
        while entries:
            moment, _, job = entries[0]
            if waits(job):
                return moment, job
            spent.append(heappop(entries))
        return None

    def tidy(self, live: int, waits: Callable[[ScheduledJob[Any]], bool], spent: list[Any]) -> None:
        """Sweep when those that have left are many more than the `live` ones."""
        if len(self._entries) > _SWEEP_AT + 2 * live:
            spent.append(self._entries)
            self._entries = [entry for entry in self._entries if waits(entry[2])]
            heapify(self._entries)

    def clear(self, spent: list[Any]) -> None:
        """Remove all."""
        spent.append(self._entries)
        self._entries = []
