"""Slots whose worker could not begin: each rests for a while, longer each time, and is then tried again.

A system that has no thread, process or descriptor left fails a start at once. A slot that did not rest would take job
after job and fail each, while others work. Nothing of such a job has run, so it waits in the queue for any slot that
may run it. Only when none of these could begin for `_PATIENCE` seconds does it fail, with the cause. On the event loop.
"""

from __future__ import annotations

import errno
import logging
from functools import partial
from typing import TYPE_CHECKING, Any

from director._executors.base import NeverStarted
from director.errors import DeviceLost

if TYPE_CHECKING:
    from collections.abc import Callable

    from director._clock import Clock, Timer
    from director._jobs.job import ScheduledJob
    from director._runtime.health import HealthRegistry
    from director._runtime.job_lifecycle import JobLifecycle
    from director._runtime.loop_channel import LoopChannel
    from director._scheduler.scheduler import Scheduler
    from director._scheduler.slots import DeviceSlots, Slot
    from director._scheduler.wakeups import WakeCall

    Take = Callable[[Slot], tuple[ScheduledJob[Any] | None, WakeCall]]

logger = logging.getLogger("director")
_REST, _LONGEST_REST = 0.1, 10.0  # seconds before a slot is tried again; doubled each time
_PATIENCE = 30.0  # seconds without a start, after which the jobs that wait for it fail
_THREADS = "raise the limit of processes and threads (ulimit -u, pids.max of the container), or use fewer slots"
_FILES = "raise the limit of open files (ulimit -n), or use fewer slots"
_MEMORY = "free memory, or use fewer slots"
_REMEDIES = {errno.EAGAIN: _THREADS, errno.EMFILE: _FILES, errno.ENFILE: _FILES, errno.ENOMEM: _MEMORY}


class _Trouble:
    """A slot that could not begin, from its first failed start to the next that succeeds."""

    __slots__ = ("had_thread", "reason", "since", "timer", "tries")

    def __init__(self, since: float) -> None:
        self.since = since
        self.tries = 0
        self.had_thread = False  # at the last one, and nothing to make its calls in
        self.reason = ""
        self.timer: Timer | None = None  # while it rests


class StartBackoff:
    """Has slots rest that could not begin.

    Args:
        scheduler: Told which slots rest.
        job_lifecycle: Ends the jobs for which no slot can begin.
        loop_channel: Brings news from the slots' threads.
        registry: Told of devices of which no slot can begin.
        clock: Makes the timers.
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
        self._troubles: dict[Slot, _Trouble] = {}
        self._is_over = False

    def failed(self, slot: Slot, error: Exception) -> None:
        """The worker of a slot could not begin, and has left."""
        if self._is_over:
            self._scheduler.mark_idle(slot)
            return
        now = self._clock.time()
        trouble = self._troubles.setdefault(slot, _Trouble(now))
        trouble.tries += 1
        trouble.had_thread, trouble.reason = isinstance(error, NeverStarted), _reason(error)
        delay = min(_LONGEST_REST, _REST * 2.0 ** min(trouble.tries - 1, 60))
        wake = self._scheduler.back_off(slot)
        trouble.timer = self._clock.call_later(delay, partial(self._go, slot, trouble))
        if all(other in self._troubles for other in slot.place.slots):
            self._registry.suspend(slot.place, trouble.reason)
        elif trouble.tries == 1:
            logger.warning("no worker can be started in a slot of %s: %s", slot.device.label, trouble.reason)
        self._give_up(now)
        if wake is not None:
            wake()

    def begun(self, slot: Slot) -> None:
        """The worker of a slot has begun."""
        if self._troubles.pop(slot, None) is not None:
            self._registry.resume(slot.place)

    def hired(self, slot: Slot) -> None:
        """The thread of a slot has been started."""
        if slot in self._troubles and not self._troubles[slot].had_thread:
            self.begun(slot)

    def on_trial(self, slot: Slot, take: Take) -> Take:
        """`take` for the next worker of `slot`; if that could not begin before, one that tells that a job has begun."""
        if slot not in self._troubles:
            return take
        has_job = is_told = False

        def take_on_trial(slot: Slot) -> tuple[ScheduledJob[Any] | None, WakeCall]:
            nonlocal has_job, is_told
            if has_job and not is_told:
                is_told = True
                self._loop_channel.call(self.begun, slot)
            job, wake = take(slot)
            has_job = has_job or job is not None
            return job, wake

        return take_on_trial

    def stop(self) -> None:
        """The Director closes: nothing is tried any more."""
        self._is_over = True
        for slot, trouble in self._troubles.items():
            if trouble.timer is not None:
                trouble.timer.cancel()
                trouble.timer = None
                self._scheduler.mark_idle(slot)

    def leave(self, place: DeviceSlots) -> None:
        """A device is there no more."""
        for slot in place.slots:
            trouble = self._troubles.pop(slot, None)
            if trouble is not None and trouble.timer is not None:
                trouble.timer.cancel()

    def _go(self, slot: Slot, trouble: _Trouble) -> None:
        trouble.timer = None
        wake = self._scheduler.mark_idle(slot)
        if wake is not None:
            wake()

    def _give_up(self, now: float) -> None:
        """Fail the jobs that have waited long enough for slots none of which could begin."""
        unable = frozenset(s.number for s, trouble in self._troubles.items() if now - trouble.since >= _PATIENCE)
        if not unable:
            return
        slots, troubles = self._scheduler.slots, dict(self._troubles)

        def end(job: ScheduledJob[Any]) -> None:
            slot = slots[min(unable if job.options.allowed is None else unable & job.options.allowed)]
            reason = f"for {_PATIENCE:g} s no worker could be started: {troubles[slot].reason}"
            self._job_lifecycle.end_failed(job, DeviceLost(slot.device, reason))

        fail_unrunnable = partial(self._scheduler.fail_unrunnable, unable=unable, before=now - _PATIENCE)
        self._job_lifecycle.endings.withdraw(fail_unrunnable, end)


def _reason(error: Exception) -> str:
    """What kept a worker from its start, and what helps."""
    cause = (error.__cause__ or error) if isinstance(error, NeverStarted) else error
    said = getattr(error, "reason", None) or f"{type(cause).__name__}: {cause}"
    if isinstance(cause, MemoryError):
        return f"{said}; {_MEMORY}"
    if isinstance(cause, OSError):
        remedy = _REMEDIES.get(cause.errno or 0)
        return said if remedy is None else f"{said}; {remedy}"
    return f"{said}; {_THREADS}" if "thread" in str(cause) else said
