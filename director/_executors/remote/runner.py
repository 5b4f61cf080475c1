"""The base of runners whose calls are made in another process, a child or an actor.

The slot's thread sends each call, waits for its answer, and may have sent the next calls before (prefetched ones).
"""

from __future__ import annotations

import time
from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Generic

from director._executors.base import LoadFailed, NotSent
from director._executors.remote.calls import C, PrefetchQueue
from director._executors.remote.loaded_models import LoadedModels
from director._executors.remote.replicas import free_caches_here, only_load, unload_here
from director._executors.replicas import error_of_load
from director._ipc.protocol import CallStyle
from director._jobs.calls import LocalCall, StreamCall
from director._jobs.job import detached_job
from director._jobs.job_runner import JobRunner
from director._jobs.options import Options
from director._jobs.state import JobState

if TYPE_CHECKING:
    from collections.abc import Callable

    from director._devices.device_errors import Fault
    from director._executors.base import MemoryEvents
    from director._jobs.job import ScheduledJob
    from director._jobs.job_runner import PrefetchSource, SlotInfo
    from director._jobs.model import Model

_RUNNING = JobState.RUNNING


class RemoteRunner(JobRunner, Generic[C]):
    """Makes the calls of a slot in another process. For the slot's thread; `abandon` and `abort` for the event loop."""

    _Call: ClassVar[type[Any]]  # the kind of `PendingCall`
    _queue: PrefetchQueue[C]

    def __init__(self, slot: SlotInfo, events: MemoryEvents, grace: float) -> None:
        self._slot = slot
        self._device = slot.device
        self._events = events
        self._models = LoadedModels(slot, events)
        self._grace = grace
        self._call: C | None = None
        self._is_timely = events.time is time.monotonic  # the same clock as in the other process
        self._ended: float | None = None  # when the last call has ended, if known
        self._is_preparing = False  # the call that runs only loads a model

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

    def run_batch(self, jobs: list[ScheduledJob[Any]]) -> Any:
        """Have one call made for all jobs; see `JobRunner.run_batch`.

        Raises:
            PicklingError: The call, or its result or exception, can't be sent.
            NotSent: The same, for several jobs.
            NeverStarted: The process can't be started, or the device was lost before the call had begun.
            WorkerDied: Its process or actor was lost during the call.
        """
        args = self._batch_args([job.payload[0] for job in jobs])
        return self._make(self._Call(jobs, jobs[0].fn, args, CallStyle.BATCH))

    @abstractmethod
    def _batch_args(self, items: list[Any]) -> tuple[Any, ...]:
        """The arguments of the call of a batch."""

    def prepare(self, jobs: list[ScheduledJob[Any]]) -> None:
        """Have the model loaded and the process started, if they are not, by a call that does nothing else."""
        if not self._is_prepared(jobs[0]):
            self._is_preparing = True
            try:
                self._make(self._Call(jobs, only_load, ()))
            finally:
                self._is_preparing = False

    def recover(self, _error: BaseException, _fault: Fault) -> bool:
        """Nothing to do: memory was freed there, and a process that can't use its device was ended."""
        return True

    can_unload = True

    def unload(self, model: Model[Any]) -> None:
        """Have the other process unload a model, and report it. If the process is lost, so is the model."""
        number = self._models.find(model)
        if number is not None:
            self._note_unloaded(number, self._call_there(unload_here, number, f"unloading {model.name}"))

    def _call_there(self, fn: Callable[[int], Any], number: int, name: str) -> Any:
        """Have a function of a model's number called in the other process."""
        job = detached_job(0, fn, (number,), Options(name=name), _RUNNING, self._events.time())
        return self._make(self._Call([job], fn, (number,), CallStyle.PLAIN))

    def free_caches(self) -> None:
        """Have the other process empty its caches, if there is one."""
        if self._has_process():
            job = detached_job(0, free_caches_here, (), Options(name="emptying caches"), _RUNNING, self._events.time())
            self._make(self._Call([job], free_caches_here, (), CallStyle.PLAIN))

    @abstractmethod
    def _has_process(self) -> bool:
        """Whether there is a process, or an actor."""

    def _note_unloaded(self, number: int, freed: int | None) -> None:
        """The model with this number is unloaded, and so many bytes are back; nothing if it was lost before."""
        model = self._models.remove(number)
        if model is not None:
            self._events.unloaded(model, self._slot, self._freed_by(model, freed))

    def _freed_by(self, _model: Model[Any], freed: int | None) -> int | None:
        """The bytes that the unload of a model has given back in all, if `freed` were measured."""
        return freed

    def set_prefetch(self, source: PrefetchSource) -> None:
        """Prefetch jobs from `source`."""
        self._queue.source = source

    def abandon(self, job: ScheduledJob[Any]) -> None:
        """On the event loop: the running `job` was cancelled or is out of time, or the Director closes.

        When that is so for all jobs of the call, the call is notified. If one of them has a timeout, the call is ended
        when that has passed.
        """
        call = self._queue.find(job) or self._call
        if call is None or (call is self._call and self._is_preparing):
            return  # a load goes on, for other jobs
        if job not in call.jobs or any(other.is_wanted for other in call.jobs):
            return
        self._notify(call, is_cancelled=any(other.state is not JobState.FAILED for other in call.jobs))
        ends = [end for other in call.jobs if (end := _end_of(other)) is not None]
        if ends:
            left = max(ends) - self._events.time()  # perhaps negative: a deadline may have passed before
            self._end_at(call, time.monotonic() + max(0.0, left) + self._grace)

    def abort(self) -> bool:
        """On the event loop: end the call that runs; False if there is none that could be ended."""
        call = self._call
        if call is None:
            return False
        self._end_at(call, time.monotonic())
        return True

    def _run(self, job: ScheduledJob[Any]) -> Any:
        fn: Any = job.fn
        if isinstance(fn, LocalCall):
            return fn.run_locally(self._device, lambda call: self._make(self._Call([job], call, (), CallStyle.PLAIN)))
        if isinstance(fn, StreamCall):
            return self._make(self._Call([job], fn.func, job.payload, CallStyle.STREAM))
        return self._make(self._Call([job], fn, job.payload))

    @abstractmethod
    def _is_prepared(self, job: ScheduledJob[Any]) -> bool:
        """Whether there is a process, with the model of `job`."""

    @abstractmethod
    def _make(self, call: Any) -> Any:
        """Make the call in the other process, and return what it returns."""

    @abstractmethod
    def _notify(self, call: C, *, is_cancelled: bool) -> None:
        """On the event loop: notify the call that all its jobs were cancelled, or their time is up."""

    @abstractmethod
    def _end_at(self, call: C, moment: float) -> None:
        """On the event loop: begin to end the call at `moment`, in seconds of the monotonic clock."""

    def _put_value(self, call: C, read: Callable[[Any], Any], content: Any) -> bool:
        """Put a value of a stream into its channel; after an exception the other process is to end the stream.

        Returns:
            False if the value was not read: there was an exception before.
        """
        stream: Any = call.jobs[0].fn
        if call.refusal is not None or not isinstance(stream, StreamCall):
            return False
        try:
            stream.channel.put(read(content))
        except BaseException as refusal:  # noqa: BLE001 - raised when the call has ended
            call.refusal = refusal
            self._notify(call, is_cancelled=True)
        return True

    def _failure(
        self, call: C, content: tuple[BaseException, Fault | None], *, is_loaded: bool, is_read: bool
    ) -> BaseException:
        """What to raise for a call that has failed. A process whose device is broken is replaced before.

        Args:
            call: The call.
            content: Its exception, and the fault.
            is_loaded: The model could be loaded.
            is_read: The arguments could be unpickled.

        Returns:
            The exception; a LoadFailed, or NotSent for a batch, if the function was not called.
        """
        (error, fault), model = content, call.jobs[0].options.model
        if fault is not None and fault.kind == "sticky":
            self._replace()
        if not is_loaded and model is not None:
            self._models.loading = None
            self._note_unloaded(model._key, None)  # if it could not be woken
            self._events.not_loaded(model, self._slot, error)
            return LoadFailed(model, error_of_load(model, self._device, error))
        if not is_read and len(call.jobs) > 1:
            failure = NotSent()
            failure.__cause__ = error
            return failure
        return error

    @abstractmethod
    def _replace(self) -> None:
        """The other process can't use its device any more: end it, and put its prefetched calls back."""


def _end_of(job: ScheduledJob[Any]) -> float | None:
    """The time at which the timeout of a job has passed; `None` without one."""
    timeout = job.options.timeout
    if timeout is None or job.started_at is None:
        return None
    return job.started_at + timeout
