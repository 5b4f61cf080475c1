"""Ends the jobs of a Director whose event loop was closed before it: no result can be delivered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from director._jobs.calls import LocalCall, StreamCall

if TYPE_CHECKING:
    import asyncio

    from director._runtime.job_lifecycle import JobLifecycle
    from director._runtime.loop_channel import LoopChannel
    from director._scheduler.scheduler import Scheduler


def drop_jobs(scheduler: Scheduler, loop_channel: LoopChannel, job_lifecycle: JobLifecycle) -> None:
    """Cancel all jobs, and release those whose threads wait for the event loop."""
    jobs = [*scheduler.running(and_waiting=True), *loop_channel.jobs()]
    loop_channel.entries.clear()
    for job in jobs:
        forget_callbacks(job)
        if isinstance(job.fn, StreamCall):
            job.fn.channel.close_reader()
        elif isinstance(job.fn, LocalCall):
            job.fn.release()
        job_lifecycle.end_cancelled(job, "its event loop was closed")


def forget_callbacks(future: asyncio.Future[Any]) -> None:
    """Remove the callbacks of a future: to schedule them on a closed loop raises."""
    for callback, _ in future._callbacks or ():
        future.remove_done_callback(callback)
