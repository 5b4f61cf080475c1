"""Timers of deadlines, timeouts, retries and batches. On the event loop only."""

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


_SWEEP_AT = 64  # entries of ended jobs before they are removed, once they are the majority


class DeadlineTimers:
    """Fails jobs whose deadline or timeout has passed: one heap, one timer for its head.

    Args:
        clock: Tells the time and makes the timer.
        scheduler: Removes the jobs that wait.
        loop_channel: Repeats a check later that was made during a decision.
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
        """Set the timer for the deadline of a job, or for the timeout of one that has started."""
        if (due := job.due_at()) is None or job.done():
            return
        heappush(self._heap, (due, job.id, job))
        if self._heap[0][2] is job:
            self._arm()

    def drop(self, job: ScheduledJob[Any]) -> None:
        """A timed job has ended. Its entries are removed when due, or together once they are the majority."""
        # At most one entry for its deadline and one for its timeout. The count may be too high, not too low.
        self._over += 1 if job.options.timeout is None else 2
        if self._over > _SWEEP_AT and self._over * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if not entry[2].done()]
            heapify(self._heap)
            self._over = 0

    def stop(self) -> None:
        """Cancel all."""
        self._heap.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def check(self) -> None:
        """Fail the jobs whose time is up, and set the timer for the next."""
        if self._timer is not None:  # usually the one that has called this
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
        if (due := job.due_at()) is None or self._clock.time() < due:  # the timer of an earlier attempt
            self.start(job)
            return
        try:
            # Taken and not begun: the worker checks the deadline itself. Finished: the outcome is on its way.
            if self._scheduler.remove(job, JobState.FAILED) or (
                job.state is JobState.RUNNING and job.started_at is not None and job.finished_at is None
            ):
                self._end_failed(job, _timeout_of(job))
        except BaseException:  # of a signal handler: a job that was moved must end
            if job.state is JobState.FAILED and not job.done():
                self._loop_channel.call(self._end_failed, job, _timeout_of(job))
            raise


def _timeout_of(job: ScheduledJob[Any]) -> JobTimeout:
    return JobTimeout("queued" if job.started_at is None else "running")


class RetryTimers:
    """Calls a function with each job whose back-off is over.

    Args:
        clock: Makes the timers.
        due: The function.
    """

    def __init__(self, clock: Clock, due: Callable[[ScheduledJob[Any]], None]) -> None:
        self._clock = clock
        self._due = due
        self._timers: dict[ScheduledJob[Any], Timer] = {}

    def set(self, job: ScheduledJob[Any], delay: float) -> None:
        """Call in `delay` seconds."""
        self._timers[job] = self._clock.call_later(delay, partial(self._call_due, job))

    def drop(self, job: ScheduledJob[Any]) -> None:
        """The job has ended: cancel its call."""
        if (timer := self._timers.pop(job, None)) is not None:
            timer.cancel()

    def stop(self) -> None:
        """Cancel the calls."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _call_due(self, job: ScheduledJob[Any]) -> None:
        self._timers.pop(job, None)
        self._due(job)


class FlushTimer:
    """Calls a function at a time.

    Args:
        clock: Makes the timer.
        flush: The function.
    """

    def __init__(self, clock: Clock, flush: Callable[[], None]) -> None:
        self._clock = clock
        self._flush = flush
        self._timer: Timer | None = None
        self._time = 0.0  # the time of the timer, while there is one

    def set(self, time: float) -> None:
        """Call at `time`, unless a call is due earlier."""
        if self._timer is not None:
            if self._time <= time:
                return  # of two threads, the one with the earlier time came first
            self._timer.cancel()
        self._time = time
        self._timer = self._clock.call_later(max(0.0, time - self._clock.time()), self._due)

    def stop(self) -> None:
        """Cancel the calls."""
        if self._timer is not None:
            self._timer.cancel()

    def _due(self) -> None:
        self._timer = None
        self._flush()
