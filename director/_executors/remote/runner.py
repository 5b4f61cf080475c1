"""What a slot has in common with others whose calls are made in another process, be it a child or an actor.

The slot's thread hands each call over, waits for the answer, and may have more calls ready there ahead of their turn.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from enum import IntEnum
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from director._jobs.calls import LocalCall, StreamCall
from director._jobs.job_runner import JobRunner
from director._jobs.state import JobState

if TYPE_CHECKING:
    from collections.abc import Mapping

    from director._device import Device
    from director._devices.device_errors import Fault
    from director._jobs.job import ScheduledJob
    from director._jobs.job_runner import PrefetchSource
    from director._jobs.runner import RunnerEvents

_RUNNING = JobState.RUNNING


class CallState(IntEnum):
    """How far a call has come on its way to another process."""

    QUEUED = 0
    """No message about it is anywhere: it may be made by any process."""
    SENT = 1
    """Its message is on the way and has not been received, as far as is known."""
    BEGUN = 2
    """Its message has been received: user code may have run."""
    ENDED = 3
    """Its last answer has arrived, or it was never sent and never will be."""
    LOST = 4
    """It had begun, and its last answer will never arrive."""


LEGAL_MOVES: Mapping[CallState, frozenset[CallState]] = {
    CallState.QUEUED: frozenset({CallState.SENT, CallState.ENDED}),
    CallState.SENT: frozenset({CallState.QUEUED, CallState.BEGUN, CallState.ENDED}),
    CallState.BEGUN: frozenset({CallState.ENDED, CallState.LOST}),
    CallState.ENDED: frozenset(),
    CallState.LOST: frozenset(),
}


class PendingCall:
    """One call on its way to another process and back; docs/explanation/wire.md says when it moves.

    The slot's thread owns it. Other threads may read.

    Args:
        jobs: Those that it is made for; with several of them it is a batch.
    """

    __slots__ = ("jobs", "number", "state")

    def __init__(self, jobs: list[ScheduledJob[Any]]) -> None:
        self.jobs = jobs
        self.number = -1  # of the message; given when it is sent, and never used for another call
        self.state = CallState.QUEUED

    def move(self, state: CallState) -> None:
        """Go on to `state`.

        Raises:
            RuntimeError: That is no legal move: a fault of this package.
        """
        if state not in LEGAL_MOVES[self.state]:
            raise RuntimeError(f"a call can't go from {self.state.name} to {state.name}")
        self.state = state

    @property
    def is_unwanted(self) -> bool:
        """Whether all callers have left, or their time is up."""
        jobs = self.jobs
        return not jobs or (jobs[0].state is not _RUNNING and all(job.state is not _RUNNING for job in jobs))


C = TypeVar("C", bound=PendingCall)


class RemoteQueue(Generic[C]):
    """Calls that were sent ahead of their turn. The slot's thread's; only `find` may be called from others."""

    def __init__(self) -> None:
        self.source: PrefetchSource | None = None
        self._sent: dict[ScheduledJob[Any], C] = {}  # in their order
        self._unsent: ScheduledJob[Any] | None = None  # taken from the source, and not fit to be sent ahead

    def __bool__(self) -> bool:
        return bool(self._sent) or self._unsent is not None

    def find(self, job: ScheduledJob[Any]) -> C | None:
        """From any thread: the call of a job, if it was sent ahead."""
        return self._sent.get(job)

    def _is_blocked(self) -> bool:
        """Whether one that could not be sent ahead still waits for its turn."""
        if self._unsent is not None and self._unsent.state is not _RUNNING:
            self._unsent = None
        return self._unsent is not None

    def _give_back(self, jobs: list[ScheduledJob[Any]]) -> None:
        """These of what was sent may go elsewhere, and so may what was not."""
        for job in jobs:
            del self._sent[job]
        if self._is_blocked() and self._unsent is not None:
            jobs.append(self._unsent)
            self._unsent = None
        if jobs and self.source is not None:
            self.source.return_prefetched(jobs)


class RemoteRunner(JobRunner, Generic[C]):
    """Makes the calls of a slot there. The slot's thread's, but for `leave` and `abort`, which the event loop calls.

    Args:
        device: The slot's.
        events: Takes what is told, and tells the time.
        grace: Seconds that a call gets when its time is up.
    """

    _Call: ClassVar[type[Any]]  # of jobs, their function, its arguments, and the way in which it is called
    _BARELY: ClassVar[IntEnum]
    _AS_STREAM: ClassVar[IntEnum]
    _queue: RemoteQueue[C]

    def __init__(self, device: Device, events: RunnerEvents, grace: float) -> None:
        self._device = device
        self._events = events
        self._grace = grace
        self._call: C | None = None
        self._is_timely = events.time is time.monotonic  # the clock there; of another machine it is set right
        self._ended: float | None = None  # when the last call has ended, if that was told

    def run(self, job: ScheduledJob[Any]) -> Any:
        """Have the call made; see `JobRunner.run`.

        Raises:
            PicklingError: The call, or its result or exception, can't be sent.
            WorkerDied: Its process or actor was lost in the midst of it.
            DeviceLost: The device was lost before the call had begun.
        """
        self._ended = None
        try:
            return self._run(job)
        finally:
            job.finished_at = self._ended  # the answer may have been under way since, or have waited for the GIL

    def recover(self, _error: BaseException, _fault: Fault) -> bool:
        """Nothing is left to do: memory was freed there, and a process that can't use its device was ended."""
        return True

    def set_prefetch(self, source: PrefetchSource) -> None:
        """Take jobs from `source` to send their calls ahead of their turn."""
        self._queue.source = source

    def abandon(self, job: ScheduledJob[Any]) -> None:
        """On the event loop: the caller of `job`, which runs here, has left, or its time is up.

        When that is so for all jobs of the call, the call is told. If one of them has a timeout, the call is ended when
        that has passed.
        """
        call = self._queue.find(job) or self._call
        if call is None or job not in call.jobs or any(mate.state is _RUNNING for mate in call.jobs):
            return
        self._tell(call, is_cancelled=any(mate.state is JobState.CANCELLED for mate in call.jobs))
        ends = [end for mate in call.jobs if (end := _end_of(mate)) is not None]
        if ends:
            left = max(ends) - self._events.time()  # a deadline may have passed before
            self._end(call, time.monotonic() + max(0.0, left) + self._grace)

    def abort(self) -> bool:
        """On the event loop: end the call that runs; False if there is none that could be ended."""
        call = self._call
        if call is None:
            return False
        self._end(call, time.monotonic())
        return True

    def _run(self, job: ScheduledJob[Any]) -> Any:
        fn: Any = job.fn
        if isinstance(fn, LocalCall):
            return fn.run_locally(self._device, lambda call: self._make(self._Call([job], call, (), self._BARELY)))
        if isinstance(fn, StreamCall):
            return self._make(self._Call([job], fn.func, job.payload, self._AS_STREAM))
        return self._make(self._Call([job], fn, job.payload))

    @abstractmethod
    def _make(self, call: Any) -> Any:
        """Have it made, and return what it returns."""

    @abstractmethod
    def _tell(self, call: C, *, is_cancelled: bool) -> None:
        """On the event loop: tell the call that all its callers have left; `is_cancelled`, or its time is up."""

    @abstractmethod
    def _end(self, call: C, moment: float) -> None:
        """On the event loop: bring the call to its end at `moment`."""


def _end_of(job: ScheduledJob[Any]) -> float | None:
    """The moment at which the timeout of a job has passed; `None` if nothing says when its call must end."""
    timeout = job.options.timeout
    if timeout is None or job.started_at is None:
        return None
    return job.started_at + timeout
