"""What happened, told to the hooks: the only place where events are made, and only if there are hooks.

`director.events` is imported with the first hook: its classes would be a seventh of the time `import director` takes.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from director._core.job import Job
    from director._core.slot import Slot
    from director._device import Device
    from director._models import Model
    from director.events import Event, Hook

logger = logging.getLogger("director")


class Chronicle:
    """Makes events and hands them to the hooks, on the event loop and in order. Callers ask `listening` first.

    Args:
        hooks: Callables of one event.
        time: The Director's clock.
        on_loop: Has the loop call a function with arguments, now or soon; from any thread.
    """

    def __init__(self, hooks: tuple[Hook, ...], time: Callable[[], float], on_loop: Callable[..., object]) -> None:
        self.listening = bool(hooks)
        self.time = time
        self._hooks = hooks
        self._on_loop = on_loop
        self._events: ModuleType | Any = None
        self._started: dict[int, Event] = {}  # by job: starts on their way to the loop
        self._is_drained = False
        if hooks:
            from director import events

            self._events = events

    # ---- of the Director and its workers, on the loop

    def opened(self, devices: tuple[Device, ...]) -> None:
        """The Director accepts jobs."""
        if self.listening:
            self._tell(self._events.DirectorOpened(self.time(), devices))

    def drained(self) -> None:
        """Everything accepted is over."""
        if self.listening and not self._is_drained:
            self._is_drained = True
            self._tell(self._events.DirectorDrained(self.time()))

    def quarantined(self, device: Device, reason: str) -> None:
        """A device gets no more work."""
        self._tell(self._events.DeviceQuarantined(self.time(), device, reason))

    def restored(self, device: Device) -> None:
        """A device gets work again."""
        self._tell(self._events.DeviceRestored(self.time(), device))

    def hired(self, slot: Slot) -> None:
        """A worker begins."""
        if self.listening:
            self._tell(self._events.WorkerHired(self.time(), slot.device, slot.number))

    def reaped(self, slot: Slot) -> None:
        """A worker has left."""
        if self.listening:
            self._tell(self._events.WorkerReaped(self.time(), slot.device, slot.number))

    # ---- of jobs

    def submitted(self, job: Job[Any]) -> None:
        """From any thread: the job waits."""
        self._on_loop(self._tell, self._events.JobSubmitted(job._submitted, job.id, job.name, job.priority, job.tenant))

    def rejected(self, job: Job[Any], error: BaseException) -> None:
        """From any thread: the job was not accepted."""
        self._on_loop(self._tell, self._events.JobRejected(job._submitted, job.name, error))

    def started(self, job: Job[Any], slot: Slot, now: float, batch: int) -> None:
        """From its slot's thread: the job runs, as one of `batch` in its call."""
        facts = (now, job.id, job.name, slot.device, slot.number, now - job._submitted, batch)
        self._started[job.id] = self._events.JobStarted(*facts)
        self._on_loop(self._tell_start, job.id)

    def progressed(self, job: Job[Any], progress: Any) -> None:
        """From its slot's thread: the job reported."""
        self._on_loop(self._tell, self._events.JobProgressed(self.time(), job.id, job.name, progress))

    def retried(self, job: Job[Any], device: Device | None, error: BaseException) -> None:
        """On the loop: a try has failed and the job waits for another."""
        self._tell_start(job.id)
        self._tell(self._events.JobRetried(self.time(), job.id, job.name, device, job.attempts, error))

    def succeeded(self, job: Job[Any]) -> None:
        """On the loop: the job has its result."""
        self._tell(self._events.JobSucceeded(*self._facts(job)))

    def failed(self, job: Job[Any], error: BaseException) -> None:
        """On the loop: the job ended with an error."""
        self._tell(self._events.JobFailed(*self._facts(job), error))

    def cancelled(self, job: Job[Any]) -> None:
        """On the loop: the job was cancelled."""
        self._tell(self._events.JobCancelled(*self._facts(job)))

    # ---- of models, from slots' threads

    def loaded(self, model: Model[Any], device: Device, seconds: float) -> None:
        """A replica is resident."""
        if self.listening:
            self._on_loop(self._tell, self._events.ModelLoaded(self.time(), model.name, device, seconds))

    def not_loaded(self, model: Model[Any], device: Device, error: BaseException) -> None:
        """A loader raised."""
        if self.listening:
            self._on_loop(self._tell, self._events.ModelFailed(self.time(), model.name, device, error))

    def unloaded(self, model: Model[Any], device: Device) -> None:
        """A replica was let go."""
        if self.listening:
            self._on_loop(self._tell, self._events.ModelUnloaded(self.time(), model.name, device))

    def _tell_start(self, job: int) -> None:
        event = self._started.pop(job, None)
        if event is not None:
            self._tell(event)

    def _facts(self, job: Job[Any]) -> tuple[Any, ...]:
        self._tell_start(job.id)  # it may be over for its caller before its start has come here
        return self.time(), job.id, job.name, job.device, job.waited or 0.0, job.ran

    def _tell(self, event: Event) -> None:
        for hook in self._hooks:
            try:
                hook(event)
            except (Exception, asyncio.CancelledError):
                logger.exception("the hook %r raised at %r", hook, event)
