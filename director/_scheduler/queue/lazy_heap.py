"""A heap of jobs by a time or another number, with lazy deletion.

The entry of a job that has left is removed when it comes to the front, or by `tidy`. Dropping an entry may run user
code, which must not happen under the scheduler's lock: the entries are put into a list of the caller's.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from director._jobs.job import ScheduledJob

_SWEEP_AT = 64  # entries of jobs that have left, before they are removed, once they outnumber those that wait


class LazyHeap:
    """A heap of jobs, lowest number first. For one thread at a time."""

    __slots__ = ("_entries",)

    def __init__(self) -> None:
        self._entries: list[tuple[float, int, ScheduledJob[Any]]] = []

    def push(self, number: float, job: ScheduledJob[Any]) -> None:
        """Add a job; it may be there already."""
        heappush(self._entries, (number, job.id, job))

    def first(
        self, waits: Callable[[ScheduledJob[Any]], bool], discarded: list[Any]
    ) -> tuple[float, ScheduledJob[Any]] | None:
        """The lowest number of the jobs that wait, and its job; entries that are passed over go to `discarded`."""
        entries = self._entries
        while entries:
            number, _, job = entries[0]
            if waits(job):
                return number, job
            discarded.append(heappop(entries))
        return None

    def pop(self) -> None:
        """Remove the entry that `first` has returned."""
        heappop(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def tidy(self, waiting: int, waits: Callable[[ScheduledJob[Any]], bool], discarded: list[Any]) -> bool:
        """Remove the entries of jobs that have left when they are many more than the `waiting` ones.

        Returns whether it did.
        """
        if len(self._entries) <= _SWEEP_AT + 2 * waiting:
            return False
        discarded.append(self._entries)
        self._entries = [entry for entry in self._entries if waits(entry[2])]
        heapify(self._entries)
        return True

    def clear(self, discarded: list[Any]) -> None:
        """Remove all."""
        discarded.append(self._entries)
        self._entries = []
