"""Ends jobs that are withdrawn together: each of them, even if a signal handler raises. On the loop only."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, TypeAlias

from director._jobs.state import JobState

if TYPE_CHECKING:
    from collections.abc import Callable

    from director._jobs.job import ScheduledJob
    from director._runtime.loop_channel import LoopChannel

    Withdraw: TypeAlias = "Callable[[deque[ScheduledJob[Any]]], object]"
    End: TypeAlias = "Callable[[ScheduledJob[Any]], object]"


class Endings:
    """What is cut off by an exception is done by the event loop, and the exception goes on its way.

    Args:
        loop_channel: Has the loop do it.
    """

    __slots__ = ("_loop_channel",)

    def __init__(self, loop_channel: LoopChannel) -> None:
        self._loop_channel = loop_channel

    def withdraw(self, withdraw: Withdraw, end: End) -> None:
        """Withdraw jobs and end them.

        Args:
            withdraw: Adds jobs to what it is given, and then makes sure that they never run. It may be called twice: if
                it is cut off, some of the jobs are withdrawn and the others wait as before.
            end: Called with each job that was withdrawn and is not over.

        Raises:
            BaseException: Of a signal handler or of `end`; the loop does the rest.
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
        """Take jobs and end them. The one at which `end` raises is tried once more, by itself, and the others go on."""
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
        if not job.done() and job.state is not JobState.QUEUED:  # that one was not withdrawn after all
            end(job)

    def _withdraw_rest(self, withdraw: Withdraw, end: End) -> None:
        jobs: deque[ScheduledJob[Any]] = deque()
        withdraw(jobs)
        self._end_all(jobs, end)
