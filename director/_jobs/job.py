"""A job: one call the user asked for, and the handle that awaits it.

Written by: `job_lifecycle`, which makes it; `scheduler` under its lock (`_stage` out of QUEUED, `_where`); the slot's
thread (`_started`, `_finished`); `job_lifecycle` on the event loop (every move out of RUNNING, and the result).
"""

from __future__ import annotations

import asyncio
from types import FunctionType
from typing import TYPE_CHECKING, Any, Generic, NoReturn, Protocol, TypeVar

from director._jobs.state import JOB_MOVES, JobState
from director._untrusted.objects import name_of

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Hashable
    from contextvars import Context

    pass

    from director._device import Device
    from director._jobs.options import Options
    from director._scheduler.slots import Slot

T = TypeVar("T")
_NEVER = float("inf")


class Owner(Protocol):
    """What a job asks of its Director."""

    def cancel(self, job: Job[Any], msg: Any) -> bool:
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

    Cancellation: cancelling a *task* that awaits a `Job` leaves the job alone; `cancel` ends it. `asyncio.gather` and
    (before Python 3.12) `asyncio.wait_for` cancel what they wait for, jobs too.
    """

    # A million jobs may wait: thirteen slots, no dict (see docs/explanation/design.md for the bytes).
    __slots__ = (
        "_cargo",
        "_context",
        "_extra",
        "_finished",
        "_fn",
        "_options",
        "_progress",
        "_runtime",
        "_stage",
        "_started",
        "_submitted",
        "_where",
        "id",
    )

    id: int
    """Number of the job within its Director, from 1, in order of submission."""

    # Written by `JobLifecycle.create_job` right after the object is made: an `__init__` in Python would double the
    # cost.
    _runtime: Owner
    _fn: Callable[..., T] | str  # what is called; after the end only its name
    _cargo: Any  # the arguments on the way in, the value on the way out
    _options: Options
    _context: Context | None  # the submitter's, unless it was empty
    _stage: JobState
    _where: Location | Slot | None  # where it waits, then the slot that runs it
    _extra: JobExtras | None  # for batches and second tries
    _submitted: float
    _started: float | None
    _finished: float | None
    _progress: Any

    @property
    def state(self) -> JobState:
        """Where the job is in its life; see `JobState`."""
        return self._stage

    @property
    def name(self) -> str:
        """The option `name`, else the name of the function."""
        fn = self._fn
        return self._options.name or (fn if type(fn) is str else name_of(fn))

    @property
    def priority(self) -> int:
        """Higher runs sooner."""
        return self._options.priority

    @property
    def tenant(self) -> Hashable:
        """The option `tenant`: on whose account it runs."""
        return self._options.tenant

    @property
    def device(self) -> Device | None:
        """The device that runs or ran it; `None` while it waits, and for a job that never ran."""
        # Between two tries it is in no slot for a moment, and has not forgotten the last start yet.
        return None if self._started is None else getattr(self._where, "device", None)

    @property
    def waited(self) -> float | None:
        """Seconds from submission to the start, or to the end of a job that never ran; `None` while it waits."""
        until = self._finished if self._started is None else self._started
        return None if until is None else until - self._submitted

    @property
    def ran(self) -> float | None:
        """Seconds on the device; `None` until the call has ended, and for a job that never ran."""
        if self._started is None or self._finished is None:
            return None
        return self._finished - self._started

    @property
    def attempts(self) -> int:
        """How often the job has been started."""
        tries = 0 if self._extra is None else self._extra.failed_attempts
        return tries if self._started is None else tries + 1

    @property
    def progress(self) -> Any:
        """What the job last passed to `director.report`; `None` before."""
        return self._progress

    def cancel(self, msg: Any = None) -> bool:
        """Cancel the job: one that waits will never run; one that runs is over for its caller at once.

        A running thread can't be killed: its slot stays taken until the call has ended. The call learns of it through
        `director.check_cancelled`.

        Returns:
            False if the job was already over.

        Raises:
            RuntimeError: Called from another thread than the event loop's.
        """
        return self._runtime.cancel(self, msg)

    def set_result(self, result: T) -> NoReturn:
        """Not for callers: the Director sets the result."""
        raise RuntimeError("a Job gets its result from its Director")

    def set_exception(self, exception: type | BaseException) -> NoReturn:
        """Not for callers: the Director sets the exception."""
        raise RuntimeError("a Job gets its exception from its Director")

    def __await__(self) -> Generator[Any, None, T]:
        if not self.done():
            # A future of its own for each awaiter: cancelling the awaiter must not reach the job.
            waiter = self.get_loop().create_future()

            def wake(_: Any) -> None:
                if not waiter.done():
                    waiter.set_result(None)

            self.add_done_callback(wake)
            try:
                yield from waiter
            finally:
                self.remove_done_callback(wake)
        try:
            return self.result()
        finally:
            del self  # the traceback of what is raised leads to this frame, and the job holds what is raised

    __iter__ = __await__

    def _await_owned(self) -> Generator[Any, None, T]:
        """Await as the job's only owner: cancelling the awaiting task cancels the job."""
        return super().__await__()

    def _move(self, to: JobState) -> None:
        """Go on to the state `to`, along the table."""
        if to not in JOB_MOVES[self._stage]:
            raise AssertionError(f"{self!r} can't become {to.value}")
        self._stage = to

    def _let_go(self) -> None:
        """Drop what only the call needs: a kept handle must not keep inputs alive (closures and partials hold some)."""
        self._cargo = self._context = None
        fn = self._fn
        name = fn.__name__ if type(fn) is FunctionType else fn  # the usual case, without a call
        self._fn = name if type(name) is str else name_of(fn)

    @property
    def _is_let_go(self) -> bool:
        """Its call is over, and the event loop has heard of it; or it never ran, and never will."""
        return type(self._fn) is str

    def _deadline_at(self) -> float:
        """The moment of its deadline; infinite without one."""
        deadline = self._options.deadline
        return _NEVER if deadline is None else self._submitted + deadline

    def _due(self) -> float | None:
        """The moment by which it must have ended, from its deadline and, once it runs, its timeout."""
        options = self._options
        due = None if options.deadline is None else self._submitted + options.deadline
        if options.timeout is not None and self._started is not None:
            end = self._started + options.timeout
            due = end if due is None else min(due, end)
        return due

    def __repr__(self) -> str:
        device = self.device
        where = f" on {device.label}" if device is not None else ""
        return f"<Job {self.id} {self.name!r} {self._stage.value}{where}>"


class OwnedJob(Generic[T]):
    """A job awaited by its only owner: cancelling the awaiting task cancels the job."""

    __slots__ = ("_job",)

    def __init__(self, job: Job[T]) -> None:
        self._job = job

    def __await__(self) -> Generator[Any, None, T]:
        return self._job._await_owned()


class Location(Protocol):
    """Where a job waits; the job's `_where`."""

    @property
    def upper(self) -> Location | None:
        """A home in whose line the jobs stand too."""

    def left(self, job: Job[Any]) -> None:
        """One of its jobs, QUEUED until now, waits here no more."""
