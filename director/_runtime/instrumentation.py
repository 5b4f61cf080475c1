"""Makes events and records for the hooks: only here, and only those that a hook wants.

`director.events` is imported with the first hook: its classes alone would be a seventh of the time of
`import director`.
"""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, cast

from director._format import known_line, known_tenant
from director._runtime.hook_calls import RECORDER_RAISED, log_or_leave, safely, to_all
from director._untrusted.objects import provides

if TYPE_CHECKING:
    from collections.abc import Callable

    from director import events  # noqa: TC004 - `_add_hooks` imports it, and no event is made before
    from director._device import Device
    from director._jobs.job import ScheduledJob
    from director._jobs.model import Model
    from director._runtime.job_queue import JobQueue
    from director._scheduler.slots import Slot
    from director.events import Event, Hook, JobProgressed
    from director.hooks import JobRecorder, LifespanHook, RawRecord, SelectiveHook

logger = logging.getLogger("director")
Span: TypeAlias = "tuple[int | None, float | None, float | None]"  # number of the slot, start and end of the call
_EMITTED_AT_ONCE = 32  # events before the event loop gets control
_LONGEST = 200  # characters of an error in a record; the event has the whole error


class AttemptObserver(Protocol):
    """A hook of the package's own that learns of attempts where they begin and fail: no events are made for it."""

    def slot_started(self, slot: Slot) -> None:
        """On the thread of `slot`: a call begins; once for each of its jobs."""

    def attempt_failed(self, job: ScheduledJob[Any], slot: Slot, error: BaseException, is_counted: bool) -> None:
        """On the event loop: an attempt on `slot` has failed, and another one follows; `is_counted`: it had begun."""


class Instrumentation:
    """Makes events and records and hands them to the hooks, on the event loop and in order.

    Callers check `listening` before they report on a job, `observing` before they report its start, and `recording`
    before they have it recorded.

    Args:
        hooks: Callables of one event, perhaps with the protocols of `director.hooks`.
        time: The Director's clock.
        on_loop: Thread-safe; calls a function with arguments on the event loop, now or soon.
    """

    def __init__(self, hooks: tuple[Hook, ...], time: Callable[[], float], on_loop: Callable[..., object]) -> None:
        self.time = time
        self.listening = False  # a hook wants events of jobs, others than of progress
        self.observing = False  # the same, or one wants to know of starts
        self.recording = False  # a hook wants records of jobs
        self._on_loop = on_loop
        self._wanted: dict[str, tuple[Hook, ...]] = {}  # by name of an event: the hooks that want it
        self._observers: tuple[AttemptObserver, ...] = ()
        self._lifespan_hooks: tuple[LifespanHook, ...] = ()
        self._recorders: tuple[JobRecorder, ...] = ()
        self._record: Callable[[RawRecord], object] | None = None
        self._submitted: dict[int, Event] = {}  # by job: not emitted yet
        self._started: dict[int, Event] = {}  # by job: on their way to the event loop
        self._unrecorded: deque[RawRecord] = deque()
        self._is_recording = False
        self._pending: deque[Event] = deque()
        self._is_emitting = False  # or will, in the next call of the event loop
        self._is_drained = False
        self._hooks: tuple[Hook, ...] = ()
        if hooks:
            self._use(hooks)

    def _use(self, hooks: tuple[Hook, ...]) -> None:
        """Ask the hooks what they want."""
        global events
        from director import events

        self._hooks, wanted, listening = hooks, {}, False
        choices = (cast("SelectiveHook", hook).wants if provides(hook, "wants") else (events.Event,) for hook in hooks)
        wants = [(hook, tuple(kinds)) for hook, kinds in zip(hooks, choices, strict=True)]
        for name, kind in vars(events).items():
            if isinstance(kind, type) and issubclass(kind, events.Event):
                takers = tuple(hook for hook, wanted in wants if issubclass(kind, wanted))
                if takers:
                    wanted[name] = takers
                    listening |= issubclass(kind, events.JobEvent) and kind is not events.JobProgressed
        self._wanted, self.listening = wanted, listening
        self._observers = tuple(
            cast("AttemptObserver", hook) for hook in hooks if provides(hook, "slot_started", "attempt_failed")
        )
        self.observing = self.listening or bool(self._observers)
        self._lifespan_hooks = tuple(cast("LifespanHook", hook) for hook in hooks if provides(hook, "begin", "end"))
        self._recorders = tuple(cast("JobRecorder", hook) for hook in self._lifespan_hooks if provides(hook, "record"))
        self.recording = bool(self._recorders)
        self._record = None
        if self._recorders:
            self._record = self._recorders[0].record if len(self._recorders) == 1 else to_all(self._recorders)

    # ---- of the Director and its workers, on the loop

    def add(self, hook: LifespanHook, scheduler: JobQueue) -> None:
        """Call one more hook from now on, while jobs run: it gets the ends of jobs whose starts it has not seen."""
        self._use((*self._hooks, cast("Hook", hook)))
        self._begin((hook,), scheduler)

    def remove(self, hook: LifespanHook) -> None:
        """Call it no more."""
        self._use(tuple(other for other in self._hooks if other is not cast("Hook", hook)))
        safely(hook, hook.end, self.time())

    def begin(self, scheduler: JobQueue) -> None:
        """The slots have been made."""
        self._begin(self._lifespan_hooks, scheduler)

    def _begin(self, hooks: tuple[LifespanHook, ...], scheduler: JobQueue) -> None:
        ask = weakref.ref(scheduler)  # a recorder may outlive many schedulers

        def unfinished(*, and_waiting: bool = True) -> list[RawRecord]:
            theirs = ask()
            jobs = [] if theirs is None else theirs.running(and_waiting=and_waiting)
            return [_unfinished(job) for job in jobs if not job.done()]

        for hook in hooks:
            safely(hook, hook.begin, self.time, tuple(slot.device for slot in scheduler.slots), unfinished)

    def end(self) -> None:
        """The Director has closed."""
        self._emit_next(len(self._pending))
        for hook in self._lifespan_hooks:
            safely(hook, hook.end, self.time())

    def opened(self, devices: tuple[Device, ...]) -> None:
        """The Director accepts jobs."""
        if "DirectorOpened" in self._wanted:
            self._emit(events.DirectorOpened(self.time(), devices))

    def joined(self, device: Device, scheduler: JobQueue) -> None:
        """A device has joined."""
        for hook in self._lifespan_hooks:
            if provides(hook, "devices_changed"):
                safely(hook, hook.devices_changed, tuple(slot.device for slot in scheduler.slots))
        if "DeviceJoined" in self._wanted:
            self._emit(events.DeviceJoined(self.time(), device))

    def drained(self) -> None:
        """All accepted jobs have ended."""
        if not self._is_drained:
            self._is_drained = True
            if "DirectorDrained" in self._wanted:
                self._emit(events.DirectorDrained(self.time()))

    def quarantined(self, device: Device, reason: str) -> None:
        """A device gets no more work."""
        if "DeviceQuarantined" in self._wanted:
            self._emit(events.DeviceQuarantined(self.time(), device, reason))

    def restored(self, device: Device) -> None:
        """A device gets work again."""
        if "DeviceRestored" in self._wanted:
            self._emit(events.DeviceRestored(self.time(), device))

    def worker_started(self, slot: Slot) -> None:
        """A worker has started."""
        if "WorkerHired" in self._wanted:
            self._emit(events.WorkerHired(self.time(), slot.device, slot.number))

    def worker_stopped(self, slot: Slot) -> None:
        """A worker has ended."""
        if "WorkerReaped" in self._wanted:
            self._emit(events.WorkerReaped(self.time(), slot.device, slot.number))

    # ---- of jobs on their way

    def submitting(self, job: ScheduledJob[Any]) -> None:
        """From any thread, before the job is queued: after that a worker may report its start at once."""
        if "JobSubmitted" in self._wanted:
            facts = (job.submitted_at, job.id, job.name, job.priority, job.tenant, job.context)
            self._submitted[job.id] = events.JobSubmitted(*facts)

    def submitted(self, job: ScheduledJob[Any]) -> None:
        """From any thread: the job waits."""
        if "JobSubmitted" in self._wanted:
            self._on_loop(self._emit_submission, job.id)

    def rejected(self, job: ScheduledJob[Any], error: BaseException) -> None:
        """From any thread: the job was not accepted."""
        self._submitted.pop(job.id, None)
        if "JobRejected" in self._wanted:
            self._on_loop(self._emit, events.JobRejected(job.submitted_at, job.name, error, job.tenant))

    def started(self, job: ScheduledJob[Any], slot: Slot, now: float, batch: int) -> None:
        """From its slot's thread: the job runs, as one of `batch` in its call."""
        for observer in self._observers:
            observer.slot_started(slot)
        if "JobStarted" in self._wanted:
            facts = (now, job.id, job.name, slot.device, slot.number, now - job.submitted_at, batch)
            self._started[job.id] = events.JobStarted(*facts)
            self._on_loop(self._emit_start, job.id)

    def progressed(self, job: ScheduledJob[Any], progress: Any) -> None:
        """From its slot's thread: the job has called `report`."""
        if "JobProgressed" in self._wanted:
            self._on_loop(self._emit_progress, events.JobProgressed(self.time(), job.id, job.name, progress))

    # ---- of their ends, on the loop

    def retry_scheduled(self, job: ScheduledJob[Any], device: Device | None, error: BaseException) -> None:
        """An attempt has failed and the job waits for the next."""
        self._emit_start(job.id)
        if "JobRetried" in self._wanted:
            self._emit(events.JobRetried(self.time(), job.id, job.name, device, job.attempts, error))

    def tried(self, job: ScheduledJob[Any], slot: Slot, error: BaseException, is_counted: bool) -> None:
        """An attempt on `slot` has failed; the job still has its times. `is_counted`: it had begun."""
        for observer in self._observers:
            observer.attempt_failed(job, slot, error, is_counted)
        self._record_end(job, (slot.number, job.started_at, job.finished_at), error, "retried")

    def record_success(self, job: ScheduledJob[Any]) -> None:
        """The job has returned; its result is not set yet."""
        name: Any = job.options.name or job.fn  # a name, since `drop_inputs`
        slot: Any = job.location  # a slot: it has run
        tenant: Any = job.options.tenant
        if tenant is not None:
            tenant = known_tenant(tenant)
        times = job.submitted_at, job.started_at, job.finished_at, self.time()
        self._pass_on((job.id, name, "succeeded", slot.number, *times, None, tenant))

    def succeeded(self, job: ScheduledJob[Any]) -> None:
        """The job has its result."""
        self._emit_start(job.id)
        if "JobSucceeded" in self._wanted:
            self._emit(events.JobSucceeded(*self._facts(job, job.started_at)))

    def failed(self, job: ScheduledJob[Any], error: BaseException, started: float | None) -> None:
        """The job ended with an error. `started`: when its call began; `None` if it never ran."""
        self._record_end(job, _span(job, started), error)
        if self.listening:
            self._emit_start(job.id)
            if "JobFailed" in self._wanted:
                self._emit(events.JobFailed(*self._facts(job, started), error))

    def cancelled(self, job: ScheduledJob[Any], started: float | None) -> None:
        """The job was cancelled."""
        self._record_end(job, _span(job, started))
        if self.listening:
            self._emit_start(job.id)
            if "JobCancelled" in self._wanted:
                self._emit(events.JobCancelled(*self._facts(job, started)))

    def returned(self, job: ScheduledJob[Any]) -> None:
        """The call of a job that had ended before has returned, or was never made."""
        self._record_end(job, _span(job, job.started_at))

    # ---- of models, from slots' threads

    def loaded(self, model: Model[Any], device: Device, seconds: float) -> None:
        """A replica is resident."""
        if "ModelLoaded" in self._wanted:
            self._on_loop(self._emit, events.ModelLoaded(self.time(), model.name, device, seconds))

    def not_loaded(self, model: Model[Any], device: Device, error: BaseException) -> None:
        """A loader raised."""
        if "ModelFailed" in self._wanted:
            self._on_loop(self._emit, events.ModelFailed(self.time(), model.name, device, error))

    def evicted(self, model: Model[Any], device: Device, size: int, wanted: str) -> None:
        """A replica is about to be unloaded to make room."""
        if "ModelEvicted" in self._wanted:
            self._on_loop(self._emit, events.ModelEvicted(self.time(), model.name, device, size, wanted))

    def vetoed(self, model: str, device: Device, needed: int, free: int) -> None:
        """On the event loop: a load waits, for others use the device."""
        if "MemoryVeto" in self._wanted:
            self._emit(events.MemoryVeto(self.time(), model, device, needed, free))

    def unloaded(self, model: Model[Any], device: Device) -> None:
        """A replica was unloaded."""
        if "ModelUnloaded" in self._wanted:
            self._on_loop(self._emit, events.ModelUnloaded(self.time(), model.name, device))

    # ----

    def _emit_submission(self, job: int) -> None:
        """Emit it unless that is done."""
        event = self._submitted.pop(job, None)
        if event is not None:
            self._emit(event)

    def _emit_start(self, job: int) -> None:
        """Emit it unless that is done: a job may have been cancelled before its start is known here."""
        self._emit_submission(job)
        event = self._started.pop(job, None)
        if event is not None:
            self._emit(event)

    def _emit_progress(self, event: JobProgressed) -> None:
        self._emit_start(event.job)
        self._emit(event)

    def _facts(
        self, job: ScheduledJob[Any], started: float | None
    ) -> tuple[float, int, str, Device | None, float, float | None]:
        _, _, ended = _span(job, started)
        device = None if started is None else job.device
        until = ended if started is None else started
        ran = None if started is None or ended is None else ended - started
        return self.time(), job.id, job.name, device, 0.0 if until is None else until - job.submitted_at, ran

    def _record_end(
        self, job: ScheduledJob[Any], span: Span, error: BaseException | None = None, state: str | None = None
    ) -> None:
        if self._record is None:
            return
        now = self.time()
        message = None if error is None else known_line(error, _LONGEST)
        tenant = None if job.tenant is None else known_tenant(job.tenant)
        slot, started, ended = span
        state = state or job.state.value
        self._pass_on((job.id, job.name, state, slot, job.submitted_at, started, ended, now, message, tenant))

    def _pass_on(self, record: RawRecord) -> None:
        """Pass a record to the recorders. One that a finalizer or signal handler causes meanwhile follows it."""
        self._unrecorded.append(record)
        while self._unrecorded and not self._is_recording:
            self._is_recording = True
            try:
                self._record(self._unrecorded.popleft())  # type: ignore[misc]  # there is one, or none is made
            except BaseException as error:  # noqa: BLE001
                log_or_leave(error, RECORDER_RAISED, self._recorders[0], record)
            finally:
                self._is_recording = False

    def _emit(self, event: Event) -> None:
        """Call the hooks with an event.

        Events that a hook causes, by a `submit` for example, follow afterwards: all hooks get the same order, and a
        hook that causes an event at each event does not block the event loop.
        """
        self._pending.append(event)
        if not self._is_emitting:
            self._emit_next(_EMITTED_AT_ONCE)

    def _emit_next(self, count: int) -> None:
        self._is_emitting = True
        try:
            while self._pending and count:
                count -= 1
                event = self._pending.popleft()
                for hook in self._wanted.get(type(event).__name__, ()):  # none: the last one was removed meanwhile
                    try:
                        hook(event)
                    except BaseException as error:  # noqa: BLE001
                        log_or_leave(error, "the hook %s raised at %s", hook, event)
        finally:
            self._is_emitting = False  # first: an event that a finalizer causes after this is emitted at once
            if self._pending:
                self._is_emitting = True
                with suppress(RuntimeError):  # the event loop has stopped: `end` emits the rest
                    asyncio.get_running_loop().call_soon(self._emit_next, _EMITTED_AT_ONCE)


def _span(job: ScheduledJob[Any], started: float | None) -> Span:
    """Slot, start and end of a call. It has no end until its result is delivered."""
    if started is None:
        return None, None, job.finished_at
    slot = getattr(job.location, "number", None)  # a slot, or the job is held for retry
    return slot, started, job.finished_at if job.has_dropped_inputs else None


def _unfinished(job: ScheduledJob[Any]) -> RawRecord:
    started = job.started_at
    slot, started, ended = _span(job, started)
    tenant = None if job.tenant is None else known_tenant(job.tenant)
    return job.id, job.name, job.state.value, slot, job.submitted_at, started, ended, None, None, tenant
