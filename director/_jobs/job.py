"""A job: one call the user asked for, and the handle that awaits it.

Written by: `job_lifecycle`, which makes it; `scheduler` under its lock (`_stage` out of QUEUED, `_where`); the slot's
thread (`_started`, `_finished`); `job_lifecycle` on the event loop (every move out of RUNNING, and the result).
"""

from __future__ import annotations

import asyncio
from types import FunctionType
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, TypeVar, cast

from director._jobs.state import JOB_MOVES, JobState
from director._untrusted.objects import name_of

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Hashable
    from contextvars import Context

    from director._device import Device
    from director._jobs.options import Options

T = TypeVar("T")
_running_loop = asyncio._get_running_loop  # `asyncio.get_running_loop` without its error
_NEVER = float("inf")


class Owner(Protocol):
    """What a job asks of its Director."""

    def cancel(self, job: ScheduledJob[Any], msg: Any) -> bool:
        """Cancel `job`; False if it was over."""


class JobExtras:
    """What few jobs have.

    Args:
        key: Its batch key.
        cost: Its batch cost.
    """

    __slots__ = ("batch_cost", "batch_key", "failed_attempts", "original_options")

    def __init__(self, key: Hashable = None, cost: float = 0.0) -> None:
        self.batch_key = key
        self.batch_cost = cost
        self.failed_attempts = 0  # that have failed, each to be followed by another
        self.original_options: Options | None = None  # its options before the first of these


class Job(asyncio.Future[T]):
    """The handle of one submitted call: a future that knows its state, its device and its times.

    Await it any number of times, from any task of its loop; use it in `asyncio.gather`, `wait` or `as_completed`. It
    belongs to the event loop of its Director, like every asyncio future.

    Cancellation: cancelling a task that awaits a `Job` cancels the job, for all that await it, as with every asyncio
    future. What shares a job awaits ``asyncio.shield(job)``. A job that is dropped runs on.
    """

    __slots__ = ()

    id: int
    """Number of the job within its Director, from 1, in order of submission."""

    @property
    def state(self) -> JobState:
        """Where the job is in its life; see `JobState`."""
        return fields(self).state

    @property
    def name(self) -> str:
        """The option `name`, else the name of the function."""
        job = fields(self)
        return job.options.name or (job.fn if type(job.fn) is str else name_of(job.fn))

    @property
    def priority(self) -> int:
        """Higher runs sooner."""
        return fields(self).options.priority

    @property
    def tenant(self) -> Hashable:
        """The option `tenant`: on whose account it runs."""
        return fields(self).options.tenant

    @property
    def device(self) -> Device | None:
        """The device that runs or ran it; `None` while it waits, and for a job that never ran."""
        job = fields(self)
        # Between two attempts it is in no slot for a short time, and still has the last start.
        return None if job.started_at is None else getattr(job.location, "device", None)

    @property
    def waited(self) -> float | None:
        """Seconds from submission to the start, or to the end of a job that never ran; `None` while it waits."""
        job = fields(self)
        until = job.finished_at if job.started_at is None else job.started_at
        return None if until is None else until - job.submitted_at

    @property
    def ran(self) -> float | None:
        """Seconds on the device; `None` until the call has ended, and for a job that never ran."""
        job = fields(self)
        if job.started_at is None or job.finished_at is None:
            return None
        return job.finished_at - job.started_at

    @property
    def attempts(self) -> int:
        """How often the job has been started."""
        job = fields(self)
        failed = 0 if job.extras is None else job.extras.failed_attempts
        return failed if job.started_at is None else failed + 1

    @property
    def progress(self) -> Any:
        """What the job last passed to `director.report`; `None` before."""
        return fields(self).reported

    def cancel(self, msg: Any = None) -> bool:
        """Cancel the job: one that waits will never run; one that runs is over for its caller at once.

        A running thread can't be killed: its slot stays taken until the call has ended. The call learns of it through
        `director.check_cancelled`.

        Returns:
            False if the job was already over.

        Raises:
            RuntimeError: Called from another thread than the event loop's.
        """
        return fields(self).owner.cancel(fields(self), msg)

    def __await__(self) -> Generator[Any, None, T]:
        # asyncio notices a wrong loop too, and then the future can't be awaited on its own loop any more.
        if not self.done() and _running_loop() is not self.get_loop():
            raise RuntimeError(f"{self!r} belongs to another event loop: await it there, on that of its Director")
        return super().__await__()

    __iter__ = __await__

    def set_result(self, result: T) -> NoReturn:
        """Not for callers: the Director sets the result."""
        raise RuntimeError("a Job gets its result from its Director")

    def set_exception(self, exception: type | BaseException) -> NoReturn:
        """Not for callers: the Director sets the exception."""
        raise RuntimeError("a Job gets its exception from its Director")

    def __repr__(self) -> str:
        device = self.device
        where = f" on {device.label}" if device is not None else ""
        return f"<Job {self.id} {self.name!r} {self.state.value}{where}>"


class ScheduledJob(Job[T]):
    """Every job: what the library itself keeps of it.

    `JobLifecycle.create_job` writes the fields right after the object is made: an `__init__` in Python would double
    the cost. A million jobs may wait, so there are thirteen slots and no dict (docs/explanation/design.md has the
    bytes).
    """

    __slots__ = (
        "context",
        "extras",
        "finished_at",
        "fn",
        "id",
        "location",
        "options",
        "owner",
        "payload",
        "reported",
        "started_at",
        "state",
        "submitted_at",
    )

    owner: Owner
    fn: Callable[..., T] | str
    """What is called; after the end only its name."""
    payload: Any
    """The arguments until the call has ended, then what it returned."""
    options: Options
    context: Context | None
    """The submitter's, unless it was empty."""
    state: JobState
    location: Location | None
    """Where it waits, then the slot that runs it."""
    extras: JobExtras | None
    """For batches and second attempts."""
    submitted_at: float
    started_at: float | None
    finished_at: float | None
    reported: Any

    def transition(self, to: JobState) -> None:
        """Go on to the state `to`, along the table."""
        if to not in JOB_MOVES[self.state]:
            raise AssertionError(f"{self!r} can't become {to.value}")
        self.state = to

    def drop_inputs(self) -> None:
        """Drop what only the call needs: a kept handle must not keep inputs alive (closures and partials hold some)."""
        self.payload = self.context = None
        fn = self.fn
        name = fn.__name__ if type(fn) is FunctionType else fn  # the usual case, without a call
        self.fn = name if type(name) is str else name_of(fn)

    def reset(self, options: Options, is_counted: bool) -> None:
        """Make it like one that has never run, for its next try with `options`.

        Args:
            options: Those of the user are kept beside them.
            is_counted: The last try has begun, and counts as a failed one.
        """
        extras = self.extras = self.extras or JobExtras()
        extras.original_options = extras.original_options or self.options
        extras.failed_attempts += is_counted
        self.started_at = self.finished_at = None
        self.options = options

    @property
    def has_dropped_inputs(self) -> bool:
        """Its call is over, and the event loop has heard of it; or it never ran, and never will."""
        return type(self.fn) is str

    def deadline_at(self) -> float:
        """The moment of its deadline; infinite without one."""
        deadline = self.options.deadline
        return _NEVER if deadline is None else self.submitted_at + deadline

    def due_at(self) -> float | None:
        """The moment by which it must have ended, from its deadline and, once it runs, its timeout."""
        options = self.options
        due = None if options.deadline is None else self.submitted_at + options.deadline
        if options.timeout is not None and self.started_at is not None:
            end = self.started_at + options.timeout
            due = end if due is None else min(due, end)
        return due


def fields(job: Job[T]) -> ScheduledJob[T]:
    """The job with its internal fields: every `Job` is a `ScheduledJob`."""
    return cast("ScheduledJob[T]", job)


class Location(Protocol):
    """Where a job waits."""

    @property
    def upper(self) -> Location | None:
        """A home in whose line the jobs stand too."""

    def left(self, job: ScheduledJob[Any]) -> None:
        """One of its jobs, QUEUED until now, waits here no more."""
