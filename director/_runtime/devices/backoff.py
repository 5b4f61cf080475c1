"""What can't be started or loaded backs off, longer each time, and is then tried again."""

from __future__ import annotations

import errno
import logging
from functools import partial
from typing import TYPE_CHECKING, Any

from director._executors.base import NeverStarted
from director._scheduler.wakeups import wake_up
from director._untrusted.objects import ForeignError, describe, is_a
from director.errors import DeviceLost

if TYPE_CHECKING:
    from collections.abc import Callable

    from director._jobs.job import ScheduledJob
    from director._runtime.devices.health import HealthRegistry
    from director._runtime.job_lifecycle import JobLifecycle
    from director._runtime.loop_channel import LoopChannel
    from director._scheduler.scheduler import Scheduler
    from director._scheduler.slots import DeviceSlots, Slot
    from director._scheduler.wakeups import WakeCall
    from director._system.clock import Clock, Timer

    Take = Callable[[Slot], tuple[ScheduledJob[Any] | None, WakeCall]]
    from director._jobs.model import Model
    from director._scheduler.memory.residency import Residency

logger = logging.getLogger("director")
_BACKOFF, _LONGEST_BACKOFF = 0.1, 10.0  # seconds before a slot is tried again; doubled each time
_PATIENCE = 30.0  # seconds without a start, after which the jobs that wait for it fail
_THREADS = "raise the limit of processes and threads (ulimit -u, pids.max of the container), or use fewer slots"
_FILES = "raise the limit of open files (ulimit -n), or use fewer slots"
_MEMORY = "free memory, or use fewer slots"
_REMEDIES = {errno.EAGAIN: _THREADS, errno.EMFILE: _FILES, errno.ENFILE: _FILES, errno.ENOMEM: _MEMORY}


class _FailedStarts:
    """The failed starts of a slot, until one succeeds."""

    __slots__ = ("had_thread", "reason", "since", "timer", "tries")

    def __init__(self, since: float) -> None:
        self.since = since
        self.tries = 0
        self.had_thread = False  # the last start had a thread, but no process or actor
        self.reason = ""
        self.timer: Timer | None = None  # during back-off


class StartBackoff:
    """Backs off slots whose worker could not be started. On the event loop.

    A system that has no thread, process or descriptor left fails a start at once. Without back-off such a slot would
    take job after job and fail each, while other slots work. No code of such a job has run, so it returns to the queue
    for any slot that may run it. It fails with the cause when none of these could start for `_PATIENCE` seconds.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        job_lifecycle: JobLifecycle,
        loop_channel: LoopChannel,
        registry: HealthRegistry,
        clock: Clock,
    ) -> None:
        self._scheduler = scheduler
        self._job_lifecycle = job_lifecycle
        self._loop_channel = loop_channel
        self._registry = registry
        self._clock = clock
        self._failed_starts: dict[Slot, _FailedStarts] = {}
        self._is_over = False

    def failed(self, slot: Slot, error: Exception) -> None:
        """The worker of a slot could not be started, and has ended."""
        if self._is_over:
            self._scheduler.mark_idle(slot)
            return
        now = self._clock.time()
        starts = self._failed_starts.setdefault(slot, _FailedStarts(now))
        starts.tries += 1
        starts.had_thread, starts.reason = isinstance(error, NeverStarted), _reason(error)
        delay = min(_LONGEST_BACKOFF, _BACKOFF * 2.0 ** min(starts.tries - 1, 60))
        wake = self._scheduler.back_off(slot)
        starts.timer = self._clock.call_later(delay, partial(self._try_again, slot, starts))
        if all(other in self._failed_starts for other in slot.place.slots):
            self._registry.suspend(slot.place, starts.reason)
        elif starts.tries == 1:
            logger.warning("no worker can be started in a slot of %s: %s", slot.device.label, starts.reason)
        self._give_up(now)
        wake_up(wake)

    def begun(self, slot: Slot) -> None:
        """The worker of a slot has been started."""
        if self._failed_starts.pop(slot, None) is not None:
            self._registry.resume(slot.place)

    def thread_started(self, slot: Slot) -> None:
        """The thread of a slot has been started."""
        if slot in self._failed_starts and not self._failed_starts[slot].had_thread:
            self.begun(slot)

    def on_trial(self, slot: Slot, take: Take) -> Take:
        """`take` for the next worker of `slot`; after failed starts, wrapped to report when a job has begun."""
        if slot not in self._failed_starts:
            return take
        has_job = is_reported = False

        def take_on_trial(slot: Slot) -> tuple[ScheduledJob[Any] | None, WakeCall]:
            nonlocal has_job, is_reported
            if has_job and not is_reported:
                is_reported = True
                self._loop_channel.call(self.begun, slot)
            job, wake = take(slot)
            has_job = has_job or job is not None
            return job, wake

        return take_on_trial

    def stop(self) -> None:
        """The Director closes: start nothing any more."""
        self._is_over = True
        for slot, starts in self._failed_starts.items():
            if starts.timer is not None:
                starts.timer.cancel()
                starts.timer = None
                self._scheduler.mark_idle(slot)

    def leave(self, place: DeviceSlots) -> None:
        """A device has left."""
        for slot in place.slots:
            starts = self._failed_starts.pop(slot, None)
            if starts is not None and starts.timer is not None:
                starts.timer.cancel()

    def _try_again(self, slot: Slot, starts: _FailedStarts) -> None:
        starts.timer = None
        wake_up(self._scheduler.mark_idle(slot))

    def _give_up(self, now: float) -> None:
        """Fail the jobs that have waited `_PATIENCE` seconds for slots of which none could start a worker."""
        unable = frozenset(s.number for s, starts in self._failed_starts.items() if now - starts.since >= _PATIENCE)
        if not unable:
            return
        slots, failed_starts = self._scheduler.slots, dict(self._failed_starts)

        def end(job: ScheduledJob[Any]) -> None:
            slot = slots[min(unable if job.options.allowed is None else unable & job.options.allowed)]
            reason = f"for {_PATIENCE:g} s no worker could be started: {failed_starts[slot].reason}"
            self._job_lifecycle.end_failed(job, DeviceLost(slot.device, reason))

        fail_unrunnable = partial(self._scheduler.fail_unrunnable, unable=unable, before=now - _PATIENCE)
        self._job_lifecycle.endings.withdraw(fail_unrunnable, end)


def _reason(error: Exception) -> str:
    """Why a worker could not be started, and the remedy."""
    cause = (error.__cause__ or error) if isinstance(error, NeverStarted) else error
    message = getattr(error, "reason", None) or f"{type(cause).__name__}: {cause}"
    if isinstance(cause, MemoryError):
        return f"{message}; {_MEMORY}"
    if isinstance(cause, OSError):
        remedy = _REMEDIES.get(cause.errno or 0)
        return message if remedy is None else f"{message}; {remedy}"
    return f"{message}; {_THREADS}" if "thread" in str(cause) else message


logger = logging.getLogger("director")


class LoadBackoff:
    """Backs off devices on which a model could not be loaded. `failed` is for any thread, the rest for the event loop.

    A device may lack memory, or a file, that others have. Its slot fails the load and is free again at once, so without
    back-off it would take job after job of that model and fail each, while other devices serve. Nothing of such a job
    has run, so it returns to the queue. It fails with the loader's error when no device is left that has the model or
    may load it: `Scheduler.fail_unloadable`, `Scheduler.can_load`.
    """

    def __init__(
        self,
        residency: Residency,
        scheduler: Scheduler,
        loop_channel: LoopChannel,
        registry: HealthRegistry,
        clock: Clock,
    ) -> None:
        self._residency = residency
        self._scheduler = scheduler
        self._loop_channel = loop_channel
        self._registry = registry
        self._clock = clock
        self._timers: dict[float, Timer] = {}  # by the number of the back-off
        self._count = 0
        self._is_over = False

    def failed(self, model: Model[Any], slot: Slot, error: BaseException) -> None:
        """From any thread: the load of `model` by `slot` has raised `error`."""
        delay, until = self._residency.fail(model, slot, self._clock.time())
        told = str(error) if is_a(error, ForeignError) else describe(error)
        self._loop_channel.call(self._wait, model._kept(), slot.place, delay, until, told)

    def stop(self) -> None:
        """The Director closes: try nothing again."""
        self._is_over = True
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _wait(self, model: Model[Any], place: DeviceSlots, delay: float, until: float, error: str) -> None:
        if self._is_over:
            return
        if len(self._scheduler.places) > 1:  # else the callers have the error
            words = "loading %s on %s failed; for %g s its jobs go to other devices, if there are any: %s"
            logger.warning(words, model.name, place.device.label, delay, error)
        self._count = number = self._count + 1
        self._timers[number] = self._clock.call_later(delay, partial(self._end, number, model, place, until))
        if self._residency.resident(model) - {slot.number for slot in place.slots}:  # the fault is not the loader's
            self._registry.load_failed(place, model.name)

    def _end(self, number: int, model: Model[Any], place: DeviceSlots, until: float) -> None:
        del self._timers[number]
        self._residency.end_backoff(model, place, until)
        wake_up(self._scheduler.wake_for_waiting())
