"""Timers of deadlines, timeouts and batches. On the event loop only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from director._jobs.state import JobState
from director._scheduler.queue.lazy_heap import LazyHeap

if TYPE_CHECKING:
    from collections.abc import Callable

    from director._jobs.job import ScheduledJob
    from director._runtime.job_queue import JobQueue
    from director._runtime.loop_channel import LoopChannel
    from director._system.clock import Clock, Timer


class DeadlineTimers:
    """Fails jobs whose time is up: one heap, one timer for its head."""

    def __init__(
        self,
        clock: Clock,
        scheduler: JobQueue,
        loop_channel: LoopChannel,
        end_failed: Callable[[ScheduledJob[Any], BaseException], None],
    ) -> None:
        self._clock = clock
        self._scheduler = scheduler
        self._loop_channel = loop_channel
        self._end_failed = end_failed
        self._dues = LazyHeap()
        self._timer: Timer | None = None
        self._timer_due = 0.0  # the time of the timer, while there is one
        self._over = 0  # entries of ended jobs in the heap, at most

    def start(self, job: ScheduledJob[Any]) -> None:
        """Set the timer for the next limit of a job: to begin, to end after its start, or to end at all."""
        if (due := job.due_at()) is None or job.done():
            return
        self._dues.push(due, job)
        if self._timer is None or due < self._timer_due:
            self._arm(due)

    def drop(self, job: ScheduledJob[Any]) -> None:
        """A timed job has ended. Its entries are removed when due, or together once they are the majority."""
        # At most one entry since its submission and one for its timeout. The count may be too high, not too low.
        self._over += 1 if job.options.timeout is None else 2
        if self._over > len(self._dues) // 2 and self._dues.tidy(len(self._dues) - self._over, _is_open, []):
            self._over = 0

    def stop(self) -> None:
        """Cancel all."""
        self._dues.clear([])
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def check(self) -> None:
        """Fail the jobs whose time is up, and set the timer for the next."""
        if self._timer is not None:  # usually the one that has called this
            self._timer.cancel()
            self._timer = None
        now = self._clock.time()
        while (first := self._dues.first(_is_open, [])) is not None:
            due, job = first
            if due > now:
                self._arm(due)
                return
            self._dues.pop()
            self._expire(job)

    def _arm(self, due: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_due = due
        self._timer = self._clock.call_later(max(0.0, due - self._clock.time()), self.check)

    def _expire(self, job: ScheduledJob[Any]) -> None:
        if self._scheduler.is_deciding:
            self._loop_channel.call(self._expire, job)
            return
        # The clock first: a job that has no start after that never begins (see `Worker`).
        if (error := job.overdue(self._clock.time())) is None:  # the timer of an earlier attempt, or it has begun
            self.start(job)
            return
        try:
            # Finished: the outcome is on its way.
            if self._scheduler.remove(job, JobState.FAILED) or (
                job.state is JobState.RUNNING and job.finished_at is None
            ):
                self._end_failed(job, error)
        except BaseException:  # of a signal handler: a job that was moved must end
            if job.state is JobState.FAILED and not job.done():
                self._loop_channel.call(self._end_failed, job, error)
            raise


def _is_open(job: ScheduledJob[Any]) -> bool:
    return not job.done()


class FlushTimer:
    """Calls a function at a time."""

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
