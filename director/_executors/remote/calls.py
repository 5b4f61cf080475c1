"""The calls that were sent to another process: the states of each, and the queue of those sent before their turn."""

from __future__ import annotations

from enum import IntEnum
from pickle import PicklingError, dumps
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from director._ipc.protocol import CallStyle, Facts
from director._jobs.state import JobState

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from director._jobs.job import ScheduledJob
    from director._jobs.job_runner import PrefetchSource

_RUNNING = JobState.RUNNING


class CallState(IntEnum):
    """How far a call has come on its way to another process."""

    QUEUED = 0
    """No message of it exists: any process may make it."""
    SENT = 1
    """Its message was sent; whether it was received is unknown."""
    BEGUN = 2
    """Its message has been received: user code may have run."""
    ENDED = 3
    """Its last answer has arrived, or it was never sent and never will be."""
    LOST = 4
    """It had begun, and its last answer can't arrive any more."""


LEGAL_MOVES: Mapping[CallState, frozenset[CallState]] = {
    CallState.QUEUED: frozenset({CallState.SENT, CallState.ENDED}),
    CallState.SENT: frozenset({CallState.QUEUED, CallState.BEGUN, CallState.ENDED}),
    CallState.BEGUN: frozenset({CallState.ENDED, CallState.LOST}),
    CallState.ENDED: frozenset(),
    CallState.LOST: frozenset(),
}


class PendingCall:
    """One call on its way to another process and back; docs/explanation/wire.md says when it moves.

    Written by the slot's thread only; other threads may read it.

    Args:
        jobs: The jobs of the call; several make a batch.
        fn: The function.
        args: Its arguments without the resource; how those of a batch are passed depends on the runner.
        style: How it is called.
    """

    __slots__ = ("args", "fn", "jobs", "number", "refusal", "state", "style")

    def __init__(
        self, jobs: list[ScheduledJob[Any]], fn: Any, args: tuple[Any, ...], style: CallStyle = CallStyle.WITH_RESOURCE
    ) -> None:
        self.jobs = jobs
        self.fn = fn
        self.args = args
        self.style = style
        self.number = -1  # of the message; set when it is sent, and unique
        self.state = CallState.QUEUED
        self.refusal: BaseException | None = None  # raised by the channel of a stream's reader

    def move(self, state: CallState) -> None:
        """Change the state.

        Raises:
            RuntimeError: It is no legal move, by a bug of this package.
        """
        if state not in LEGAL_MOVES[self.state]:
            raise RuntimeError(f"a call can't go from {self.state.name} to {state.name}")
        self.state = state

    @property
    def is_unwanted(self) -> bool:
        """Whether all jobs were cancelled or are out of time, or the Director closes."""
        jobs = self.jobs
        return not jobs or (not jobs[0].is_wanted and not any(job.is_wanted for job in jobs))


def facts_of(job: ScheduledJob[Any], time: Callable[[], float]) -> Facts:
    """What the other process may tell the function about its job; of a prefetched job as if it began now."""
    started = job.started_at
    if started is None:
        return Facts(job.id, job.options.priority, job.attempts + 1, time() - job.submitted_at)
    return Facts(job.id, job.options.priority, job.attempts, started - job.submitted_at)


_MOST_TENANT = 4096  # bytes
_LONGEST_REASON = 1000  # characters


def packed_tenant(job: ScheduledJob[Any], pack: Callable[[Any, Callable[[], str]], tuple[Any, ...]]) -> bytes:
    """The tenant of a job for `WorkerJob.tenant`: it never fails the call that it is sent with.

    Args:
        job: It has a tenant.
        pack: Pickles a value, which errors call as its second argument says; returns the pickle and what is beside it.

    Returns:
        A pickled tuple: the tenant, or `None` and why it can't be sent.
    """
    try:
        pickled, *beside = pack((job.options.tenant,), lambda: f"the tenant of {job.name}")
        if not any(beside) and len(pickled) <= _MOST_TENANT:
            return bytes(pickled)
        reason = f"the tenant of {job.name} is not sent to another process: it takes more than {_MOST_TENANT} bytes"
    except PicklingError as error:
        reason = str(error)[:_LONGEST_REASON]
    return dumps((None, reason))


C = TypeVar("C", bound=PendingCall)


class PrefetchQueue(Generic[C]):
    """The prefetched calls of one slot, sent so that the other process does not wait between two calls.

    For the slot's thread; `find` for any thread.
    """

    def __init__(self) -> None:
        self.source: PrefetchSource | None = None
        self._sent: dict[ScheduledJob[Any], C] = {}  # in FIFO order
        self._unsent: ScheduledJob[Any] | None = None  # taken from the source, but it can't be prefetched

    def __bool__(self) -> bool:
        return bool(self._sent) or self._unsent is not None

    def find(self, job: ScheduledJob[Any]) -> C | None:
        """From any thread: the call of a job, if it was prefetched."""
        return self._sent.get(job)

    def _is_blocked(self) -> bool:
        """Whether a job that can't be prefetched still waits to be the next."""
        if self._unsent is not None and self._unsent.state is not _RUNNING:
            self._unsent = None
        return self._unsent is not None

    def _give_back(self, jobs: list[ScheduledJob[Any]]) -> None:
        """Put these prefetched jobs, and the one that was not sent, back into the scheduler's queue."""
        for job in jobs:
            del self._sent[job]
        if self._is_blocked() and self._unsent is not None:
            jobs.append(self._unsent)
            self._unsent = None
        if jobs and self.source is not None:
            self.source.return_prefetched(jobs)
