"""Ends jobs that are withdrawn together: each of them, even if a signal handler raises. On the event loop."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, TypeAlias

from director._jobs.state import JobState

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from director._jobs.job import ScheduledJob
    from director._runtime.loop_channel import LoopChannel

    Withdraw: TypeAlias = "Callable[[deque[ScheduledJob[Any]]], object]"
    End: TypeAlias = "Callable[[ScheduledJob[Any]], object]"


class Endings:
    """Withdraws and ends jobs. After an exception in between, the event loop does the rest."""

    __slots__ = ("_loop_channel",)

    def __init__(self, loop_channel: LoopChannel) -> None:
        self._loop_channel = loop_channel

    def withdraw(self, withdraw: Withdraw, end: End) -> None:
        """Withdraw jobs and end them.

        Args:
            withdraw: Adds jobs to its argument, and then makes sure that they never run. It is called again after an
                exception, which may leave some of the jobs waiting as before.
            end: Called with each job that was withdrawn and has not ended.

        Raises:
            BaseException: Of a signal handler or of `end`; the event loop does the rest.
        """
        jobs: deque[ScheduledJob[Any]] = deque()
        try:
            withdraw(jobs)
            self._end_all(jobs, end)
        except BaseException:
            self._loop_channel.call(self._end_all, jobs, end)
            self._loop_channel.call(self._withdraw_rest, withdraw, end)
            raise

    def _end_all(self, jobs: deque[ScheduledJob[Any]], end: End) -> None:
        """End jobs. One for which `end` raises is tried once more by itself; the others are ended too."""
        try:
            while jobs:
                self._end(jobs[0], end)
                jobs.popleft()
        except BaseException:
            if jobs:
                self._loop_channel.call(self._end, jobs.popleft(), end)
                self._loop_channel.call(self._end_all, jobs, end)
            raise

    def _end(self, job: ScheduledJob[Any], end: End) -> None:
        if not job.done() and job.state is not JobState.QUEUED:  # QUEUED: it was not withdrawn
            end(job)

    def _withdraw_rest(self, withdraw: Withdraw, end: End) -> None:
        jobs: deque[ScheduledJob[Any]] = deque()
        withdraw(jobs)
        self._end_all(jobs, end)


def forget_callbacks(future: asyncio.Future[Any]) -> None:
    """Remove the callbacks of a future: to schedule them on a closed loop raises."""
    for callback, _ in future._callbacks or ():
        future.remove_done_callback(callback)
