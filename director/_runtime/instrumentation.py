"""What happened, told to the hooks: the only place where events and records are made, and only those that are wanted.

`director.events` and `director.hooks` are imported with the first hook: the classes of the events alone would be a
seventh of the time `import director` takes.
"""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from director._format import known_line
from director._untrusted.objects import is_a, log_error, provides

if TYPE_CHECKING:
    from collections.abc import Callable

    from director import events  # noqa: TC004 - `_meet` imports it, and no event is made before
    from director._device import Device
    from director._jobs.job import ScheduledJob
    from director._jobs.model import Model
    from director._scheduler.scheduler import Scheduler
    from director._scheduler.slots import Slot
    from director.events import Event, Hook, JobProgressed
    from director.hooks import JobRecorder, LifespanHook, RawRecord, SelectiveHook

logger = logging.getLogger("director")
Span: TypeAlias = "tuple[int | None, float | None, float | None]"  # number of the slot, start and end of the call
_RECORDER_RAISED = "the recorder %s raised at the end of %s"
_TOLD_AT_ONCE = 32  # events, then the loop turns
_LONGEST = 200  # characters of an error in a record: who wants more takes the event


class Instrumentation:
    """Makes events and records and hands them to the hooks, on the event loop and in order.

    Callers ask `listening` before they tell of a job, and `recording` before they have it recorded.

    Args:
        hooks: Callables of one event, which may be more; see `director.hooks`.
        time: The Director's clock.
        on_loop: Has the loop call a function with arguments, now or soon; from any thread.
    """

    def __init__(self, hooks: tuple[Hook, ...], time: Callable[[], float], on_loop: Callable[..., object]) -> None:
        self.time = time
        self.listening = False  # somebody wants events of jobs
        self.recording = False  # somebody wants records of them
        self._on_loop = on_loop
        self._wanted: dict[str, tuple[Hook, ...]] = {}  # the names of the events that somebody wants, and who
        self._lifespan_hooks: tuple[LifespanHook, ...] = ()
        self._recorders: tuple[JobRecorder, ...] = ()
        self._record: Callable[[RawRecord], object] | None = None
        self._submitted: dict[int, Event] = {}  # by job: submissions that have yet to be told
        self._started: dict[int, Event] = {}  # by job: starts on their way to the loop
        self._unrecorded: deque[RawRecord] = deque()
        self._is_recording = False
        self._untold: deque[Event] = deque()
        self._is_telling = False  # or will, when the loop has turned
        self._is_drained = False
        if hooks:
            self._meet(hooks)

    def _meet(self, hooks: tuple[Hook, ...]) -> None:
        """Ask the hooks what they want."""
        global events
        from director import events

        choices = (cast("SelectiveHook", hook).wants if provides(hook, "wants") else (events.Event,) for hook in hooks)
        wants = [(hook, tuple(kinds)) for hook, kinds in zip(hooks, choices, strict=True)]
        for name, kind in vars(events).items():
            if isinstance(kind, type) and issubclass(kind, events.Event):
                takers = tuple(hook for hook, wanted in wants if issubclass(kind, wanted))
                if takers:
                    self._wanted[name] = takers
                    self.listening = self.listening or issubclass(kind, events.JobEvent)
        self._lifespan_hooks = tuple(cast("LifespanHook", hook) for hook in hooks if provides(hook, "begin", "end"))
        self._recorders = tuple(cast("JobRecorder", hook) for hook in self._lifespan_hooks if provides(hook, "record"))
        if self._recorders:
            self._record = self._recorders[0].record if len(self._recorders) == 1 else _to_all(self._recorders)
            self.recording = True

    # ---- of the Director and its workers, on the loop

    def begin(self, scheduler: Scheduler) -> None:
        """The slots are there."""
        ask = weakref.ref(scheduler)  # a recorder outlives many of them

        def unfinished(*, and_waiting: bool = True) -> list[RawRecord]:
            theirs = ask()
            jobs = [] if theirs is None else theirs.running(and_waiting=and_waiting)
            return [_unfinished(job) for job in jobs if not job.done()]

        for hook in self._lifespan_hooks:
            _safely(hook, hook.begin, self.time, tuple(slot.device for slot in scheduler.slots), unfinished)

    def end(self) -> None:
        """The Director has closed."""
        self._tell_next(len(self._untold))
        for hook in self._lifespan_hooks:
            _safely(hook, hook.end, self.time())

    def opened(self, devices: tuple[Device, ...]) -> None:
        """The Director accepts jobs."""
        if "DirectorOpened" in self._wanted:
            self._tell(events.DirectorOpened(self.time(), devices))

    def joined(self, device: Device, scheduler: Scheduler) -> None:
        """A device has come."""
        for hook in self._lifespan_hooks:
            if provides(hook, "devices_changed"):
                _safely(hook, hook.devices_changed, tuple(slot.device for slot in scheduler.slots))
        if "DeviceJoined" in self._wanted:
            self._tell(events.DeviceJoined(self.time(), device))

    def drained(self) -> None:
        """Everything accepted is over."""
        if not self._is_drained:
            self._is_drained = True
            if "DirectorDrained" in self._wanted:
                self._tell(events.DirectorDrained(self.time()))

    def quarantined(self, device: Device, reason: str) -> None:
        """A device gets no more work."""
        if "DeviceQuarantined" in self._wanted:
            self._tell(events.DeviceQuarantined(self.time(), device, reason))

    def restored(self, device: Device) -> None:
        """A device gets work again."""
        if "DeviceRestored" in self._wanted:
            self._tell(events.DeviceRestored(self.time(), device))

    def worker_started(self, slot: Slot) -> None:
        """A worker begins."""
        if "WorkerHired" in self._wanted:
            self._tell(events.WorkerHired(self.time(), slot.device, slot.number))

    def worker_stopped(self, slot: Slot) -> None:
        """A worker has left."""
        if "WorkerReaped" in self._wanted:
            self._tell(events.WorkerReaped(self.time(), slot.device, slot.number))

    # ---- of jobs on their way

    def submitting(self, job: ScheduledJob[Any]) -> None:
        """From any thread: the job is about to be queued; if it is, a worker may be quicker to tell of its start."""
        if "JobSubmitted" in self._wanted:
            facts = (job.submitted_at, job.id, job.name, job.priority, job.tenant, job.context)
            self._submitted[job.id] = events.JobSubmitted(*facts)

    def submitted(self, job: ScheduledJob[Any]) -> None:
        """From any thread: the job waits."""
        if "JobSubmitted" in self._wanted:
            self._on_loop(self._tell_submission, job.id)

    def rejected(self, job: ScheduledJob[Any], error: BaseException) -> None:
        """From any thread: the job was not accepted."""
        self._submitted.pop(job.id, None)
        if "JobRejected" in self._wanted:
            self._on_loop(self._tell, events.JobRejected(job.submitted_at, job.name, error))

    def started(self, job: ScheduledJob[Any], slot: Slot, now: float, batch: int) -> None:
        """From its slot's thread: the job runs, as one of `batch` in its call."""
        if "JobStarted" in self._wanted:
            facts = (now, job.id, job.name, slot.device, slot.number, now - job.submitted_at, batch)
            self._started[job.id] = events.JobStarted(*facts)
            self._on_loop(self._tell_start, job.id)

    def progressed(self, job: ScheduledJob[Any], progress: Any) -> None:
        """From its slot's thread: the job reported."""
        if "JobProgressed" in self._wanted:
            self._on_loop(self._tell_progress, events.JobProgressed(self.time(), job.id, job.name, progress))

    # ---- of their ends, on the loop

    def retry_scheduled(self, job: ScheduledJob[Any], device: Device | None, error: BaseException) -> None:
        """A try has failed and the job waits for another."""
        self._tell_start(job.id)
        if "JobRetried" in self._wanted:
            self._tell(events.JobRetried(self.time(), job.id, job.name, device, job.attempts, error))

    def tried(self, job: ScheduledJob[Any], slot: Slot, error: BaseException) -> None:
        """A try on `slot` has failed; the job still knows when."""
        self._note(job, (slot.number, job.started_at, job.finished_at), error, "retried")

    def record_success(self, job: ScheduledJob[Any]) -> None:
        """The job has returned; nobody knows yet."""
        name: Any = job.options.name or job.fn  # which is a name, now that it is over
        slot: Any = job.location  # which is one, for it has run
        now = self.time()
        self._hand_over(
            (job.id, name, "succeeded", slot.number, job.submitted_at, job.started_at, job.finished_at, now, None)
        )

    def succeeded(self, job: ScheduledJob[Any]) -> None:
        """The job has its result."""
        self._tell_start(job.id)
        if "JobSucceeded" in self._wanted:
            self._tell(events.JobSucceeded(*self._facts(job, job.started_at)))

    def failed(self, job: ScheduledJob[Any], error: BaseException, started: float | None) -> None:
        """The job ended with an error. `started`: when its call began; `None` if it never ran, and never will."""
        self._note(job, _span(job, started), error)
        if self.listening:
            self._tell_start(job.id)
            if "JobFailed" in self._wanted:
                self._tell(events.JobFailed(*self._facts(job, started), error))

    def cancelled(self, job: ScheduledJob[Any], started: float | None) -> None:
        """The job was cancelled."""
        self._note(job, _span(job, started))
        if self.listening:
            self._tell_start(job.id)
            if "JobCancelled" in self._wanted:
                self._tell(events.JobCancelled(*self._facts(job, started)))

    def returned(self, job: ScheduledJob[Any]) -> None:
        """The call has ended of a job that was over before, or was never made."""
        self._note(job, _span(job, job.started_at))

    # ---- of models, from slots' threads

    def loaded(self, model: Model[Any], device: Device, seconds: float) -> None:
        """A replica is resident."""
        if "ModelLoaded" in self._wanted:
            self._on_loop(self._tell, events.ModelLoaded(self.time(), model.name, device, seconds))

    def not_loaded(self, model: Model[Any], device: Device, error: BaseException) -> None:
        """A loader raised."""
        if "ModelFailed" in self._wanted:
            self._on_loop(self._tell, events.ModelFailed(self.time(), model.name, device, error))

    def unloaded(self, model: Model[Any], device: Device) -> None:
        """A replica was let go."""
        if "ModelUnloaded" in self._wanted:
            self._on_loop(self._tell, events.ModelUnloaded(self.time(), model.name, device))

    # ----

    def _tell_submission(self, job: int) -> None:
        """Unless that is done."""
        event = self._submitted.pop(job, None)
        if event is not None:
            self._tell(event)

    def _tell_start(self, job: int) -> None:
        """Unless that is done: a job may be over for its caller before its start has come here."""
        self._tell_submission(job)
        event = self._started.pop(job, None)
        if event is not None:
            self._tell(event)

    def _tell_progress(self, event: JobProgressed) -> None:
        self._tell_start(event.job)
        self._tell(event)

    def _facts(
        self, job: ScheduledJob[Any], started: float | None
    ) -> tuple[float, int, str, Device | None, float, float | None]:
        _, _, ended = _span(job, started)
        device = None if started is None else job.device
        until = ended if started is None else started
        ran = None if started is None or ended is None else ended - started
        return self.time(), job.id, job.name, device, 0.0 if until is None else until - job.submitted_at, ran

    def _note(
        self, job: ScheduledJob[Any], span: Span, error: BaseException | None = None, state: str | None = None
    ) -> None:
        if self._record is None:
            return
        now = self.time()
        said = None if error is None else known_line(error, _LONGEST)
        self._hand_over((job.id, job.name, state or job.state.value, span[0], job.submitted_at, *span[1:], now, said))

    def _hand_over(self, record: RawRecord) -> None:
        """Give the recorders a record. One that a finalizer or a signal handler causes meanwhile comes after it."""
        self._unrecorded.append(record)
        while self._unrecorded and not self._is_recording:
            self._is_recording = True
            try:
                self._record(self._unrecorded.popleft())  # type: ignore[misc]  # there is one, or none is made
            except BaseException as error:  # noqa: BLE001
                _take_note(error, _RECORDER_RAISED, self._recorders[0], record)
            finally:
                self._is_recording = False

    def _tell(self, event: Event) -> None:
        """Tell the hooks.

        What they cause themselves, as by a `submit`, is told after that: to all in one order, and a hook that causes
        more at every event does not hold the loop.
        """
        self._untold.append(event)
        if not self._is_telling:
            self._tell_next(_TOLD_AT_ONCE)

    def _tell_next(self, count: int) -> None:
        self._is_telling = True
        try:
            while self._untold and count:
                count -= 1
                event = self._untold.popleft()
                for hook in self._wanted[type(event).__name__]:
                    try:
                        hook(event)
                    except BaseException as error:  # noqa: BLE001
                        _take_note(error, "the hook %s raised at %s", hook, event)
        finally:
            self._is_telling = False  # before looking: what a finalizer causes after that is told at once
            if self._untold:
                self._is_telling = True
                with suppress(RuntimeError):  # the loop has stopped: `end` tells the rest
                    asyncio.get_running_loop().call_soon(self._tell_next, _TOLD_AT_ONCE)


def _span(job: ScheduledJob[Any], started: float | None) -> Span:
    """Slot, start and end of a call. While its outcome is on its way it has no end yet: that is told when it comes."""
    if started is None:
        return None, None, job.finished_at
    slot = getattr(job.location, "number", None)  # a slot: or it has just been set aside
    return slot, started, job.finished_at if job.has_dropped_inputs else None


def _unfinished(job: ScheduledJob[Any]) -> RawRecord:
    started = job.started_at
    slot, started, ended = _span(job, started)
    return job.id, job.name, job.state.value, slot, job.submitted_at, started, ended, None, None


def _to_all(recorders: tuple[JobRecorder, ...]) -> Callable[[RawRecord], None]:
    records = [recorder.record for recorder in recorders]

    def record(raw: RawRecord) -> None:
        for recorder, take in zip(recorders, records, strict=True):
            try:
                take(raw)
            except BaseException as error:  # noqa: BLE001 - the others count this job all the same
                _take_note(error, _RECORDER_RAISED, recorder, raw)

    return record


def _safely(hook: object, call: Callable[..., object], *args: object) -> None:
    """Call a method of a hook; what it raises is logged and changes nothing."""
    try:
        call(*args)
    except BaseException as error:  # noqa: BLE001
        _take_note(error, "the hook %s raised", hook)


def _take_note(error: BaseException, message: str, *facts: object) -> None:
    """What a hook raises is logged and changes nothing; what is meant to stop the program does so a little later."""
    if is_a(error, (SystemExit, KeyboardInterrupt)):
        leave_loop(error)
    else:
        log_error(logger, error, message, *facts)


def leave_loop(error: BaseException) -> None:
    """Have the loop raise `SystemExit` or `KeyboardInterrupt` from a callback of its own.

    A user's callback that raises them is called in the midst of our own work, which must come to its end.
    """
    try:
        asyncio.get_running_loop().call_soon(_raise, error)
    except RuntimeError:  # the loop has stopped already
        log_error(logger, error, "a callback raised while the Director was abandoned")


def _raise(error: BaseException) -> None:
    raise error
