"""Deadlines and timeouts, second tries, batches that are due. On the event loop only."""

from __future__ import annotations

from functools import partial
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Any

from director._jobs.state import JobState
from director.errors import JobTimeout

if TYPE_CHECKING:
    from collections.abc import Callable

    from director._clock import Clock, Timer
    from director._jobs.job import ScheduledJob
    from director._runtime.loop_channel import LoopChannel
    from director._scheduler.scheduler import Scheduler


_SWEEP_AT = 64  # entries of jobs that are over before the heap is swept, once they are the majority


class DeadlineTimers:
    """Fails jobs whose deadline or timeout has passed: one heap, one timer for its head.

    Args:
        clock: Tells the time and makes the timer.
        scheduler: Withdraws the jobs that wait.
        loop_channel: Brings a check to the loop that has met a decision.
        end_failed: Ends a job with an error.
    """

    def __init__(
        self,
        clock: Clock,
        scheduler: Scheduler,
        loop_channel: LoopChannel,
        end_failed: Callable[[ScheduledJob[Any], BaseException], None],
    ) -> None:
        self._clock = clock
        self._scheduler = scheduler
        self._loop_channel = loop_channel
        self._end_failed = end_failed
        self._heap: list[tuple[float, int, ScheduledJob[Any]]] = []
        self._timer: Timer | None = None
        self._over = 0

    def start(self, job: ScheduledJob[Any]) -> None:
        """Watch over the deadline of a job, or over the timeout of one that has just started."""
        if (due := job.due_at()) is None or job.done():
            return
        heappush(self._heap, (due, job.id, job))
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
        """Fail no more jobs."""
        self._heap.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def check(self) -> None:
        """Fail the jobs whose time is up, and set the timer for the next."""
        if self._timer is not None:  # nearly always the one that has called this
            self._timer.cancel()
            self._timer = None
        now = self._clock.time()
        while self._heap and self._heap[0][0] <= now:
            job = heappop(self._heap)[2]
            if not job.done():
                self._expire(job)
        if self._heap:
            self._arm()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._clock.call_later(max(0.0, self._heap[0][0] - self._clock.time()), self.check)

    def _expire(self, job: ScheduledJob[Any]) -> None:
        if self._scheduler.is_deciding:
            self._loop_channel.call(self._expire, job)
            return
        if (due := job.due_at()) is None or self._clock.time() < due:  # it was the timeout of an earlier try
            self.start(job)
            return
        try:
            # Taken and not begun: the worker looks at the deadline itself. Finished: the outcome is on its way.
            if self._scheduler.remove(job, JobState.FAILED) or (
                job.state is JobState.RUNNING and job.started_at is not None and job.finished_at is None
            ):
                self._end_failed(job, _timeout_of(job))
        except BaseException:  # a signal handler has raised: what is moved must end
            if job.state is JobState.FAILED and not job.done():
                self._loop_channel.call(self._end_failed, job, _timeout_of(job))
            raise


def _timeout_of(job: ScheduledJob[Any]) -> JobTimeout:
    return JobTimeout("queued" if job.started_at is None else "running")


class RetryTimers:
    """Makes a call for each job whose time to be tried again has come.

    Args:
        clock: Makes the timers.
        due: The call.
    """

    def __init__(self, clock: Clock, due: Callable[[ScheduledJob[Any]], None]) -> None:
        self._clock = clock
        self._due = due
        self._timers: dict[ScheduledJob[Any], Timer] = {}

    def set(self, job: ScheduledJob[Any], delay: float) -> None:
        """Call in `delay` seconds."""
        self._timers[job] = self._clock.call_later(delay, partial(self._ring, job))

    def drop(self, job: ScheduledJob[Any]) -> None:
        """The job is over."""
        if (timer := self._timers.pop(job, None)) is not None:
            timer.cancel()

    def stop(self) -> None:
        """Call no more."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _ring(self, job: ScheduledJob[Any]) -> None:
        self._timers.pop(job, None)
        self._due(job)


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
