"""Deadlines and timeouts: one heap, one timer for its head. Used on the event loop only."""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from director._clock import Clock, Timer
    from director._jobs.job import ScheduledJob


_SWEEP_AT = 64  # entries of jobs that are over before the heap is swept, once they are the majority


class DeadlineTimers:
    """Moments at which a job must have ended.

    Args:
        clock: Tells the time and makes the timer.
        wake: Called with a job whose moment has come and that is not over.
    """

    def __init__(self, clock: Clock, wake: Callable[[ScheduledJob[Any]], None]) -> None:
        self._clock = clock
        self._wake = wake
        self._heap: list[tuple[float, int, ScheduledJob[Any]]] = []
        self._timer: Timer | None = None
        self._over = 0

    def set(self, job: ScheduledJob[Any], when: float) -> None:
        """Ring for `job` at `when`, unless it is over by then."""
        if job.done():
            return
        heappush(self._heap, (when, job.id, job))
        if self._heap[0][2] is job:
            self._arm()

    def drop(self, job: ScheduledJob[Any]) -> None:
        """A timed job is over. Its entries go when they are due, or with a sweep: long deadlines must not pile up."""
        # One entry from its submission, with a timeout one from its start; counted too high means swept too early.
        self._over += 1 if job.options.timeout is None else 2
        if self._over > _SWEEP_AT and self._over * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if not entry[2].done()]
            heapify(self._heap)
            self._over = 0

    def stop(self) -> None:
        """Ring no more."""
        self._heap.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._clock.call_later(max(0.0, self._heap[0][0] - self._clock.time()), self.look)

    def look(self) -> None:
        """Ring for the jobs whose moments have come, and set the timer for the next."""
        if self._timer is not None:  # nearly always the one that has called this
            self._timer.cancel()
            self._timer = None
        now = self._clock.time()
        while self._heap and self._heap[0][0] <= now:
            job = heappop(self._heap)[2]
            if not job.done():
                self._wake(job)
        if self._heap:
            self._arm()


class FlushTimer:
    """Makes a call at a moment.

    Args:
        clock: Makes the timer.
        ripen: The call.
    """

    def __init__(self, clock: Clock, ripen: Callable[[], None]) -> None:
        self._clock = clock
        self._ripen = ripen
        self._timer: Timer | None = None
        self._moment = 0.0  # while there is such a timer

    def set(self, moment: float) -> None:
        """Call at `moment`, unless that is about to be done earlier."""
        if self._timer is not None:
            if self._moment <= moment:
                return  # two threads have asked, and the one with the earlier moment was here first
            self._timer.cancel()
        self._moment = moment
        self._timer = self._clock.call_later(max(0.0, moment - self._clock.time()), self._due)

    def stop(self) -> None:
        """Call no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _due(self) -> None:
        self._timer = None
        self._ripen()
