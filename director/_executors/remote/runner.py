"""The base of runners whose calls are made in another process, a child or an actor.

The slot's thread sends each call, waits for its answer, and may have sent the next calls before (prefetched ones).
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
    """

    __slots__ = ("jobs", "number", "state")

    def __init__(self, jobs: list[ScheduledJob[Any]]) -> None:
        self.jobs = jobs
        self.number = -1  # of the message; set when it is sent, and unique
        self.state = CallState.QUEUED

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
        """Whether all jobs were cancelled, or their time is up."""
        jobs = self.jobs
        return not jobs or (jobs[0].state is not _RUNNING and all(job.state is not _RUNNING for job in jobs))


C = TypeVar("C", bound=PendingCall)


class RemoteQueue(Generic[C]):
    """Prefetched calls. For the slot's thread; `find` for any thread."""

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


class RemoteRunner(JobRunner, Generic[C]):
    """Makes the calls of a slot in another process. For the slot's thread; `abandon` and `abort` for the event loop.

    Args:
        device: The slot's device.
        events: Takes reports; has the clock.
        grace: Seconds that a call gets after its time is up.
    """

    _Call: ClassVar[type[Any]]  # made from jobs, function, arguments, call style
    _PLAIN_STYLE: ClassVar[IntEnum]
    _STREAM_STYLE: ClassVar[IntEnum]
    _queue: RemoteQueue[C]

    def __init__(self, device: Device, events: RunnerEvents, grace: float) -> None:
        self._device = device
        self._events = events
        self._grace = grace
        self._call: C | None = None
        self._is_timely = events.time is time.monotonic  # the same clock as in the other process
        self._ended: float | None = None  # when the last call has ended, if known

    def run(self, job: ScheduledJob[Any]) -> Any:
        """Have the call made; see `JobRunner.run`.

        Raises:
            PicklingError: The call, or its result or exception, can't be sent.
            WorkerDied: Its process or actor was lost during the call.
            DeviceLost: The device was lost before the call had begun.
        """
        self._ended = None
        try:
            return self._run(job)
        finally:
            job.finished_at = self._ended  # earlier than now: the answer waited for this thread

    def recover(self, _error: BaseException, _fault: Fault) -> bool:
        """Nothing to do: memory was freed there, and a process that can't use its device was ended."""
        return True

    def set_prefetch(self, source: PrefetchSource) -> None:
        """Prefetch jobs from `source`."""
        self._queue.source = source

    def abandon(self, job: ScheduledJob[Any]) -> None:
        """On the event loop: the running `job` was cancelled, or its time is up.

        When that is so for all jobs of the call, the call is notified. If one of them has a timeout, the call is ended
        when that has passed.
        """
        call = self._queue.find(job) or self._call
        if call is None or job not in call.jobs or any(other.state is _RUNNING for other in call.jobs):
            return
        self._tell(call, is_cancelled=any(other.state is JobState.CANCELLED for other in call.jobs))
        ends = [end for other in call.jobs if (end := _end_of(other)) is not None]
        if ends:
            left = max(ends) - self._events.time()  # perhaps negative: a deadline may have passed before
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
            return fn.run_locally(self._device, lambda call: self._make(self._Call([job], call, (), self._PLAIN_STYLE)))
        if isinstance(fn, StreamCall):
            return self._make(self._Call([job], fn.func, job.payload, self._STREAM_STYLE))
        return self._make(self._Call([job], fn, job.payload))

    @abstractmethod
    def _make(self, call: Any) -> Any:
        """Make the call in the other process, and return what it returns."""

    @abstractmethod
    def _tell(self, call: C, *, is_cancelled: bool) -> None:
        """On the event loop: notify the call that all its jobs were cancelled, or their time is up."""

    @abstractmethod
    def _end(self, call: C, moment: float) -> None:
        """On the event loop: begin to end the call at `moment`, in seconds of the monotonic clock."""


def _end_of(job: ScheduledJob[Any]) -> float | None:
    """The time at which the timeout of a job has passed; `None` without one."""
    timeout = job.options.timeout
    if timeout is None or job.started_at is None:
        return None
    return job.started_at + timeout
