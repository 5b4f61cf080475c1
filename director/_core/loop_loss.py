"""What becomes of jobs whose event loop was closed under the Director: nothing can be delivered any more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from director._core.beside import Beside
from director._core.stream_call import StreamCall

if TYPE_CHECKING:
    import asyncio

    from director._core.dispatch import Dispatch
    from director._core.ledger import Ledger
    from director._core.outbox import Outbox


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
