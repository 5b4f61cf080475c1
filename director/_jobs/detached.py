"""Jobs without a caller: of a simulation, and of the calls that a runner makes in its process for itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from director._jobs.job import ScheduledJob

if TYPE_CHECKING:
    import asyncio

    from director._jobs.options import Options
    from director._jobs.state import JobState


class _NoLoop:
    """The event loop of jobs that are never awaited."""

    def get_debug(self) -> bool:
        return False


class _NoOwner:
    """The owner of jobs that no Director knows."""

    is_closing = False

    def cancel(self, _job: ScheduledJob[Any], _msg: Any) -> bool:
        """False: they have no caller that could cancel them."""
        return False


_LOOP = cast("asyncio.AbstractEventLoop", _NoLoop())
_OWNER = _NoOwner()


def detached_job(
    number: int, fn: Any, args: tuple[Any, ...], options: Options, state: JobState, now: float
) -> ScheduledJob[Any]:
    """A job without an event loop."""
    job: ScheduledJob[Any] = ScheduledJob(loop=_LOOP)
    job.id = number
    job.owner = _OWNER
    job.fn, job.payload, job.options, job.context = fn, args, options, None
    job.extras = None
    job.state = state
    job.started_at = job.finished_at = job.reported = None
    job.submitted_at = now
    return job
