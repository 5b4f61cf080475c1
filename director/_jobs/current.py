"""What a running function may ask about its job, on the thread that runs it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Protocol

from director._jobs.state import JobState
from director.errors import JobTimeout

if TYPE_CHECKING:
    from collections.abc import Callable

    from director._device import Device
    from director._jobs.job import Job, ScheduledJob


class CurrentCall(Protocol):
    """The worker that runs on this thread."""

    def job(self) -> ScheduledJob[Any] | None:
        """The job that runs now; of a batch the first."""

    def jobs(self) -> list[ScheduledJob[Any]]:
        """All jobs that share the call that runs now."""

    def device(self) -> Device:
        """The device."""

    def replica(self) -> Any:
        """The replica of the job's model; `NO_REPLICA` for a job without a model, and between jobs."""

    def time(self) -> float:
        """Seconds of the Director's clock."""

    def report(self, progress: Any, told: Any) -> None:
        """See `report`; hooks are told `told`."""


NO_REPLICA = object()


class _Here(threading.local):
    running: CurrentCall | None = None


here = _Here()
send_report: Callable[[CurrentCall, Any], None] | None = None
"""In a process that makes the calls of other processes' jobs: reports their progress, pickled for these."""


def current_device() -> Device:
    """The device on which the calling job runs.

    Raises:
        RuntimeError: Called outside of a job.
    """
    if here.running is None:
        raise RuntimeError("current_device() is for jobs: it was called on a thread that runs none")
    return here.running.device()


def current_replica() -> Any:
    """The replica of the calling job's model.

    Raises:
        RuntimeError: Called outside of a job, or in one without a model.
    """
    if here.running is None:
        raise RuntimeError("current_replica() is for jobs: it was called on a thread that runs none")
    replica = here.running.replica()
    if replica is NO_REPLICA:
        raise RuntimeError("current_replica() is for jobs with model=: the calling job has none")
    return replica


def call_with_resource(fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """Within a job: call `fn` with the replica of its model, or its device, before `args`."""
    assert here.running is not None
    replica = here.running.replica()
    return fn(here.running.device() if replica is NO_REPLICA else replica, *args, **kwargs)


def current_job() -> Job[Any]:
    """The calling job; in a batch its first. Read its facts; results and callbacks belong to the event loop.

    Raises:
        RuntimeError: Called outside of a job.
    """
    job = None if here.running is None else here.running.job()
    if job is None:
        raise RuntimeError("current_job() is for jobs: it was called on a thread that runs none")
    return job


def check_cancelled() -> None:
    """Raise if the calling job was cancelled or is out of time, or the Director closes; call it between steps of work.

    Outside of a job it does nothing, so that a function works without a Director too. In a batch it does nothing until
    all jobs of the batch were cancelled or are out of time, or the Director closes.

    Raises:
        asyncio.CancelledError: The job was cancelled, or the Director closes: it then waits for its grace, in which the
            call may still return a result.
        JobTimeout: Its deadline or timeout has passed.
    """
    if here.running is None:
        return
    jobs, now = here.running.jobs(), here.running.time
    if not jobs or any(_is_wanted(job, now) for job in jobs):
        return
    if any(job.state is not JobState.FAILED and not job.is_wanted for job in jobs):
        from asyncio import CancelledError  # imported late: a child process may not need asyncio

        raise CancelledError
    raise jobs[0].overdue(now()) or JobTimeout("running")


def report(progress: Any) -> None:
    """Report the progress of the calling job: `Job.progress` and a `JobProgressed` event.

    Outside of a job it does nothing.

    Args:
        progress: Any value.
    """
    if here.running is not None:
        if send_report is None:
            here.running.report(progress, progress)
        else:
            send_report(here.running, progress)


def _is_wanted(job: ScheduledJob[Any], time: Callable[[], float]) -> bool:
    """Whether it was not cancelled, its time is not up, and the Director does not close."""
    if not job.is_wanted:
        return False
    due = job.due_at()
    return due is None or time() < due
