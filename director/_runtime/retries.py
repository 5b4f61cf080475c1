"""Second tries: which failures are worth one, when it comes, and on which devices. On the event loop only."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from director._devices.device_errors import fault_of
from director._executors.base import NeverStarted, is_loss
from director._jobs.calls import StreamCall
from director._jobs.job import JobExtras, ScheduledJob
from director._scheduler.slots import Slot
from director._untrusted.numbers import MOST_SECONDS
from director._untrusted.objects import is_a, is_one_of

if TYPE_CHECKING:
    from director._clock import Clock, Timer
    from director._jobs.job import ScheduledJob
    from director._jobs.options import Options
    from director._runtime.instrumentation import Instrumentation
    from director._scheduler.scheduler import Scheduler

_DOUBLINGS = 64  # then a back-off of a nanosecond is five hundred years


class RetryPolicy:
    """Tries jobs again.

    Args:
        clock: Tells the time and makes the timers.
        scheduler: Queues them.
        instrumentation: Takes events.
    """

    def __init__(self, clock: Clock, scheduler: Scheduler, instrumentation: Instrumentation) -> None:
        self._clock = clock
        self._scheduler = scheduler
        self._instrumentation = instrumentation
        self._timers: dict[ScheduledJob[Any], Timer] = {}

    def take(self, job: ScheduledJob[Any], error: BaseException) -> bool:
        """Try a job that has just failed again, now or later; False if it is not to be tried again."""
        options, extra, slot = job.options, job.extras, job.location
        if isinstance(job.fn, StreamCall) and job.fn.channel.was_crossed:
            return False  # its reader would get the first values twice
        asked = options if extra is None else extra.original_options or options
        tries = 0 if extra is None else extra.failed_attempts
        if not isinstance(slot, Slot) or not (allowed := self._allowed(error, asked, tries, slot)):
            return False
        delay = min(options.backoff * 2 ** min(tries, _DOUBLINGS), MOST_SECONDS)
        if self._clock.time() + delay >= job.deadline_at():
            return False
        if not self._scheduler.hold_for_retry(job):
            return False
        if not is_a(error, NeverStarted):
            asked = replace(asked, allowed=allowed)
        self._reset(job, asked, slot, error)
        if delay:
            self._timers[job] = self._clock.call_later(delay, partial(self._go, job))
        else:
            self._go(job)
        return True

    def forget(self, job: ScheduledJob[Any]) -> None:
        """It is over: its next try is not waited for."""
        if (timer := self._timers.pop(job, None)) is not None:
            timer.cancel()

    def stop(self) -> None:
        """Try nothing again."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _reset(self, job: ScheduledJob[Any], options: Options, slot: Slot, error: BaseException) -> None:
        """Make it like one that has never run, but for its count and the device it avoids."""
        extra = job.extras = job.extras or JobExtras()
        extra.original_options = extra.original_options or job.options
        extra.failed_attempts += not is_a(error, NeverStarted)  # it was not even begun
        if self._instrumentation.recording:
            self._instrumentation.tried(job, slot, error)
        job.started_at = job.finished_at = None
        job.options = options
        if self._instrumentation.listening:
            self._instrumentation.retry_scheduled(job, slot.device, error)

    def _allowed(self, error: BaseException, asked: Options, tries: int, slot: Slot) -> frozenset[int] | None:
        """The slots on which another try is worth it; nothing if it is not."""
        open_slots = self._scheduler.open_slots()
        allowed = open_slots if asked.allowed is None else open_slots & asked.allowed
        if is_a(error, NeverStarted):
            return allowed or None
        others = allowed - {other.number for other in slot.place.slots}
        fault, again = fault_of(error), tries < asked.retries
        if fault is not None and fault.kind == "memory" and (again or asked.batch_rule is not None):
            roomier = frozenset(number for number in others if self._is_roomier(number, slot))
            if roomier:
                return roomier
        if again and (fault is not None or is_loss(error, slot.device) or is_one_of(error, asked.retry_on)):
            return others or allowed
        return None

    def _is_roomier(self, number: int, slot: Slot) -> bool:
        """Whether the device of slot `number` has more memory than that of `slot`."""
        theirs, ours = self._scheduler.slots[number].device.total_memory, slot.device.total_memory
        return theirs is not None and ours is not None and theirs > ours

    def _go(self, job: ScheduledJob[Any]) -> None:
        self._timers.pop(job, None)
        wake = self._scheduler.requeue(job)
        if wake is not None:
            wake()
