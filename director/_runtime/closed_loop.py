"""What becomes of jobs whose event loop was closed under the Director: nothing can be delivered any more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from director._jobs.calls import Beside, StreamCall

if TYPE_CHECKING:
    import asyncio

    from director._runtime.job_lifecycle import Ledger
    from director._runtime.loop_channel import Outbox
    from director._scheduler.scheduler import Dispatch


def drop_jobs(dispatch: Dispatch, outbox: Outbox, ledger: Ledger) -> None:
    """Cancel all jobs, and let those end that wait on their slots' threads for somebody on the loop."""
    jobs = [*dispatch.running(and_waiting=True), *outbox.jobs()]
    outbox.posts.clear()
    for job in jobs:
        forget_callbacks(job)
        if isinstance(job._fn, StreamCall):
            job._fn.bridge.leave()
        elif isinstance(job._fn, Beside):
            job._fn.release()
        ledger.end_cancelled(job, "its event loop was closed")


def forget_callbacks(future: asyncio.Future[Any]) -> None:
    """Or the loop would be asked to make them, and would raise."""
    for callback, _ in future._callbacks or ():
        future.remove_done_callback(callback)
