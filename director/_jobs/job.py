"""A job: one submitted call, and the handle that awaits it.

Written by: `job_lifecycle`, which makes it; `scheduler` under its lock (`state` out of QUEUED, `location`); the slot's
thread (`started_at`, `finished_at`); `job_lifecycle` on the event loop (`state` out of RUNNING, and the result).
"""

from __future__ import annotations

import asyncio
from types import FunctionType
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, TypeVar, cast

from director._jobs.state import JOB_MOVES, JobState
from director._untrusted.objects import name_of
from director.errors import JobTimeout

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Hashable
    from contextvars import Context

    from director._device import Device
    from director._jobs.options import Options

T = TypeVar("T")
_running_loop = asyncio._get_running_loop  # `asyncio.get_running_loop` without its error
_NEVER = float("inf")
_RUNNING = JobState.RUNNING


class Owner(Protocol):
    """The Director of a job, as the job knows it."""

    @property
    def is_closing(self) -> bool:
        """Whether running calls are asked to end, because it closes."""

    def cancel(self, job: ScheduledJob[Any], msg: Any) -> bool:
        """Cancel `job`; False if it had ended."""


class JobExtras:
    """Fields that few jobs have: those of batches, and retried ones."""

    __slots__ = ("batch_cost", "batch_key", "failed_attempts", "failed_loads", "original_options")

    def __init__(self, key: Hashable = None, cost: float = 0.0) -> None:
        self.batch_key: Hashable = key
        self.batch_cost: float = cost
        self.failed_attempts: int = 0  # each followed by another
        self.failed_loads: frozenset[int] = frozenset()  # positions of devices on which its model could not be loaded
        self.original_options: Options | None = None  # its options before the first failed attempt


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
        """The state of the job; see `JobState`."""
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
        """The option `tenant`."""
        return fields(self).options.tenant

    @property
    def device(self) -> Device | None:
        """The device that runs or ran it; `None` while it waits, and for a job that never ran."""
        job = fields(self)
        # Between two attempts it has no slot for a short time, but still the start of the last one.
        return None if job.started_at is None else getattr(job.location, "device", None)

    @property
    def waited(self) -> float | None:
        """Seconds from submission to the start, or to the end of a job that never ran; `None` while it waits."""
        job = fields(self)
        until = job.finished_at if job.started_at is None else job.started_at
        return None if until is None else until - job.submitted_at

    @property
    def ran(self) -> float | None:
        """Seconds from the call of the function to its end; `None` while unknown, and for a job that never ran."""
        job = fields(self)
        if job.started_at is None or job.finished_at is None:
            return None
        return job.finished_at - job.started_at

    @property
    def attempts(self) -> int:
        """How many times the job has been started."""
        job = fields(self)
        failed = 0 if job.extras is None else job.extras.failed_attempts
        return failed if job.started_at is None else failed + 1

    @property
    def progress(self) -> Any:
        """What the job last passed to `director.report`; `None` before."""
        return fields(self).reported

    def cancel(self, msg: Any = None) -> bool:
        """Cancel the job: a waiting one never runs; a running one ends for its caller at once.

        A running thread can't be killed: its slot stays busy until the call has returned. The call can ask for it with
        `director.check_cancelled`.

        Returns:
            False if the job had ended already.

        Raises:
            RuntimeError: Called from another thread than the event loop's.
        """
        return fields(self).owner.cancel(fields(self), msg)

    def __await__(self) -> Generator[Any, None, T]:
        # asyncio notices a wrong loop too, and then the future can't be awaited on its own loop any more.
        if not self.done() and _running_loop() is not self.get_loop():
            raise RuntimeError(f"{self!r} belongs to another event loop: await it there, on that of its Director")
        return super().__await__()

    def __iter__(self) -> Generator[Any, None, T]:
        return self.__await__()

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
    """The class of every job, with its internal fields.

    `JobLifecycle.create_job` writes the fields: an `__init__` in Python would double the cost. A million jobs may wait,
    so there are thirteen slots and no dict (docs/explanation/design.md has the bytes).
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
    """The function; after the end only its name."""
    payload: Any
    """The arguments until the call has ended, then what it returned."""
    options: Options
    context: Context | None
    """The submitter's; `None` if it was empty."""
    state: JobState
    location: Location | None
    """The queue in which it waits, then the slot that runs it."""
    extras: JobExtras | None
    """For batches and retries."""
    submitted_at: float
    started_at: float | None
    finished_at: float | None
    reported: Any

    def transition(self, to: JobState) -> None:
        """Change the state to `to`; AssertionError if `JOB_MOVES` has no such move."""
        if to not in JOB_MOVES[self.state]:
            raise AssertionError(f"{self!r} can't become {to.value}")
        self.state = to

    def drop_inputs(self) -> None:
        """Drop arguments, context and function: a handle that is kept must not keep them alive."""
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
    def asked(self) -> Options:
        """The options of the user; those of a retry may allow fewer slots."""
        return self.options if self.extras is None else self.extras.original_options or self.options

    @property
    def has_dropped_inputs(self) -> bool:
        """Whether its outcome was delivered, or it ended without having run."""
        return type(self.fn) is str

    @property
    def is_wanted(self) -> bool:
        """From any thread, of a job whose call runs: its caller waits for it, and the Director does not close."""
        return self.state is _RUNNING and not self.owner.is_closing

    def deadline_at(self) -> float:
        """The time of its deadline; infinite without one."""
        deadline = self.options.deadline
        return _NEVER if deadline is None else self.submitted_at + deadline

    def start_by(self) -> float:
        """The time before which its call must begin, by its deadline and, at its first attempt, `start_within`."""
        within = self.options.start_within
        if within is None or (self.extras is not None and self.extras.failed_attempts):
            return self.deadline_at()
        return min(self.submitted_at + within, self.deadline_at())

    def due_at(self) -> float | None:
        """The time at which it is overdue: before its start `start_by`, then by its deadline and timeout; or `None`."""
        options, started_at = self.options, self.started_at
        if started_at is None:
            return None if (due := self.start_by()) == _NEVER else due
        due = self.deadline_at()
        if options.timeout is not None:
            due = min(due, started_at + options.timeout)
        return None if due == _NEVER else due

    def overdue(self, now: float) -> JobTimeout | None:
        """The error of a job whose time is up at `now`, which was read before; else `None`."""
        options, started_at, deadline_at = self.options, self.started_at, self.deadline_at()
        if started_at is None:
            due = self.start_by()
            if now < due:
                return None
            if due < deadline_at:
                return JobTimeout("queued", "start_within", options.start_within)
            return JobTimeout("queued", "deadline", options.deadline)
        end = _NEVER if options.timeout is None else started_at + options.timeout
        if now < min(end, deadline_at):
            return None
        if end < deadline_at:
            return JobTimeout("running", "timeout", options.timeout)
        return JobTimeout("running", "deadline", options.deadline)


def fields(job: Job[T]) -> ScheduledJob[T]:
    """The job with its internal fields: every `Job` is a `ScheduledJob`."""
    return job  # type: ignore[return-value]  # `cast` would be a call


class Location(Protocol):
    """Where a job is: a queue in which it waits, or the slot that runs it."""

    @property
    def upper(self) -> Location | None:
        """A queue in which these jobs are entered too; `None` if there is none."""

    def left(self, job: ScheduledJob[Any]) -> None:
        """One of its jobs, QUEUED until now, has left."""


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
