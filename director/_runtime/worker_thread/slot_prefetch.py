"""Jobs that a runner takes for its slot before their turn, and gives back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from director._jobs.job import ScheduledJob
    from director._scheduler.scheduler import Scheduler
    from director._scheduler.slots import Slot


class SlotPrefetch:
    """Prefetched jobs for one slot; its worker gets them from `Scheduler.next_work` in the same order.

    Args:
        slot: The slot.
        scheduler: Gives the jobs.
        end_returned: Has the event loop end a job that was given back while the Director closes.
    """

    __slots__ = ("_end_returned", "_prefetch", "_scheduler", "_slot")

    def __init__(self, slot: Slot, scheduler: Scheduler, end_returned: Callable[[ScheduledJob[Any]], None]) -> None:
        self._slot = slot
        self._scheduler = scheduler
        self._end_returned = end_returned
        self._prefetch = scheduler.prefetched

    @property
    def is_short(self) -> bool:
        """Whether there is none; read without the lock, so it may be outdated."""
        return self._prefetch.is_short

    def take(self) -> ScheduledJob[Any] | None:
        """One more, if there are enough."""
        return self._scheduler.prefetch(self._slot)

    def return_prefetched(self, jobs: Iterable[ScheduledJob[Any]]) -> None:
        """Put jobs that have not begun back into the queue."""
        jobs = list(jobs)
        wake = self._scheduler.return_prefetched(self._slot, jobs)
        if wake is not None:
            wake()
        if self._scheduler.is_shut:
            for job in jobs:
                self._end_returned(job)
