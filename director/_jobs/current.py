"""What a job may ask about itself, from the thread that runs it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Protocol

from director._jobs.state import JobState
from director.errors import JobTimeout

if TYPE_CHECKING:
    from collections.abc import Callable

    from director._device import Device
    from director._jobs.job import ScheduledJob


class CurrentCall(Protocol):
    """The worker that runs on this thread."""

    def job(self) -> ScheduledJob[Any] | None:
        """The job it runs now; of a batch the first."""

    def jobs(self) -> list[ScheduledJob[Any]]:
        """All jobs that share the call that runs now."""

    def device(self) -> Device:
        """Where it runs."""

    def time(self) -> float:
        """Seconds of the Director's clock."""

    def report(self, progress: Any) -> None:
        """Tell the event loop how far the job is."""


class _Here(threading.local):
    running: CurrentCall | None = None


here = _Here()


def current_device() -> Device:
    """The device on which the calling job runs.

    Raises:
        RuntimeError: Called outside of a job.
    """
    if here.running is None:
        raise RuntimeError("current_device() is for jobs: it was called on a thread that runs none")
    return here.running.device()


def current_job() -> ScheduledJob[Any]:
    """The calling job; in a batch its first. Read its facts; results and callbacks belong to the event loop.

    Raises:
        RuntimeError: Called outside of a job.
    """
    job = None if here.running is None else here.running.job()
    if job is None:
        raise RuntimeError("current_job() is for jobs: it was called on a thread that runs none")
    return job


def check_cancelled() -> None:
    """Leave the job if nobody waits for it any more; call it between the steps of long work.

    Outside of a job it does nothing, so that a function works without a Director too. In a batch it does nothing while
    anybody still waits for an item of it.

    Raises:
        asyncio.CancelledError: The job was cancelled.
        JobTimeout: Its deadline or timeout has passed.
    """
    if here.running is None:
        return
    jobs, now = here.running.jobs(), here.running.time
    if not jobs or any(_is_wanted(job, now) for job in jobs):
        return
    if any(job.state is JobState.CANCELLED for job in jobs):
        from asyncio import CancelledError  # here: a child process may have no other use for asyncio

        raise CancelledError
    raise JobTimeout("running")


def report(progress: Any) -> None:
    """Tell how far the job is: `Job.progress` and a `JobProgressed` event.

    Outside of a job it does nothing.

    Args:
        progress: Any value; it travels as it is.
    """
    if here.running is not None:
        here.running.report(progress)


def _is_wanted(job: ScheduledJob[Any], time: Callable[[], float]) -> bool:
    """Somebody still waits for it, and its time is not up."""
    if job.state is not JobState.RUNNING:
        return False
    due = job.due_at()
    return due is None or time() < due
