"""Retries: after which failures, when, and on which slots; and the back-off until then."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from director._devices.device_errors import fault_of
from director._executors.base import LoadFailed, NeverStarted, is_loss, stands_for
from director._jobs.calls import StreamCall
from director._jobs.state import JobState
from director._scheduler.slots import Slot
from director._untrusted.numbers import MOST_SECONDS
from director._untrusted.objects import is_a, is_one_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from director._jobs.job import ScheduledJob
    from director._jobs.model import Model
    from director._jobs.options import Options
    from director._runtime.instrumentation import Instrumentation
    from director._runtime.job_queue import JobQueue
    from director._system.clock import Clock, Timer

_DOUBLINGS = 64  # of the back-off; more would overflow


class Retry:
    """The next attempt of a job.

    Args:
        slot: Where the last one failed.
        delay: Seconds from now until it may run.
        options: The user's, on the slots where it may run.
        is_counted: The last one had begun; else the next one is the same attempt.
    """

    __slots__ = ("delay", "is_counted", "options", "slot")

    def __init__(self, slot: Slot, delay: float, options: Options, is_counted: bool) -> None:
        self.slot = slot
        self.delay = delay
        self.options = options
        self.is_counted = is_counted


class RetryPolicy:
    """Plans retries; changes nothing."""

    def __init__(self, time: Callable[[], float], scheduler: JobQueue) -> None:
        self._time = time
        self._slots = scheduler.slots
        self._open_slots = scheduler.open_slots
        self._scheduler = scheduler

    def plan(self, job: ScheduledJob[Any], error: BaseException) -> Retry | None:
        """When and where a job that has failed with `error` is retried; `None` if it is not."""
        options, extra, slot = job.options, job.extras, job.location
        if isinstance(job.fn, StreamCall) and job.fn.channel.was_crossed:
            return None  # the reader would get the first values twice
        asked = job.asked
        tries = 0 if extra is None else extra.failed_attempts
        if not isinstance(slot, Slot):
            return None
        if is_a(error, LoadFailed):
            return Retry(slot, 0.0, asked, is_counted=False) if self._has_hope(job, slot, error.model) else None
        if job.started_at is None and not is_a(error, NeverStarted):
            return None  # its time was up before it could begin
        if not (allowed := self._allowed(error, asked, tries, slot)):
            return None
        delay = min(options.backoff * 2 ** min(tries, _DOUBLINGS), MOST_SECONDS)
        if self._time() + delay >= job.deadline_at():
            return None
        if is_a(error, NeverStarted):
            return Retry(slot, delay, asked, is_counted=False)
        return Retry(slot, delay, replace(asked, allowed=allowed), is_counted=True)

    def _has_hope(self, job: ScheduledJob[Any], slot: Slot, model: Model[Any]) -> bool:
        """Whether to wait for a device that has the model, or may still load it.

        If no device has it, or is at it, only until a load has failed twice for this job on one device: the fault may
        be the loader's, and the others may be busy for hours.
        """
        if job.state is not JobState.RUNNING or not self._scheduler.can_load(job):
            return False
        is_first = job.extras is None or slot.place.position not in job.extras.failed_loads
        return is_first or self._scheduler.is_coming(model)

    def _allowed(self, error: BaseException, asked: Options, tries: int, slot: Slot) -> frozenset[int] | None:
        """The slots on which to retry; nothing for no retry."""
        open_slots = self._open_slots()
        allowed = open_slots if asked.allowed is None else open_slots & asked.allowed
        if is_a(error, NeverStarted):
            return allowed or None
        others = allowed - {other.number for other in slot.place.slots}
        fault, again = fault_of(error), tries < asked.retries
        if fault is not None and fault.kind == "memory" and (again or asked.batch_rule is not None):
            roomier = frozenset(number for number in others if self._is_roomier(number, slot))
            if roomier:
                return roomier
        if again and (fault is not None or is_loss(error, slot.device) or self._is_named(error, asked)):
            return others or allowed
        return None

    @staticmethod
    def _is_named(error: BaseException, asked: Options) -> bool:
        """Whether `retry_on` names the class of an error, or of the one that it stands for."""
        return is_one_of(error, asked.retry_on) or stands_for(error, asked.retry_on)

    def _is_roomier(self, number: int, slot: Slot) -> bool:
        """Whether the device of slot `number` has more memory than that of `slot`."""
        theirs, ours = self._slots[number].device.total_memory, slot.device.total_memory
        return theirs is not None and ours is not None and theirs > ours


class Retries:
    """Has failed jobs tried again, as a `RetryPolicy` plans it. On the event loop."""

    def __init__(
        self, policy: RetryPolicy, clock: Clock, scheduler: JobQueue, instrumentation: Instrumentation
    ) -> None:
        self._policy = policy
        self._clock = clock
        self._scheduler = scheduler
        self._instrumentation = instrumentation
        self._timers: dict[ScheduledJob[Any], Timer] = {}  # of jobs during their back-off

    def retry(self, job: ScheduledJob[Any], error: BaseException) -> bool:
        """Have a job that has just failed tried again, now or later; False if it is not worth it, or it is over."""
        retry = None if job.owner.is_closing else self._policy.plan(job, error)
        if retry is None or not self.hold(job, retry, error):
            return False
        if retry.delay:
            self._timers[job] = self._clock.call_later(retry.delay, partial(self._requeue, job))
        else:
            self._requeue(job)
        return True

    def hold(self, job: ScheduledJob[Any], retry: Retry, error: BaseException) -> bool:
        """Have a running job that has just failed wait for its next attempt; False if it is over."""
        if not self._scheduler.hold_for_retry(job):
            return False
        if is_failed_load := is_a(error, LoadFailed):
            error = error.error
        self._instrumentation.tried(job, retry.slot, error, retry.is_counted)
        job.reset(retry.options, retry.is_counted)
        if is_failed_load and job.extras is not None:
            job.extras.failed_loads |= {retry.slot.place.position}
        if self._instrumentation.listening:
            self._instrumentation.retry_scheduled(job, retry.slot.device, error)
        return True

    def drop(self, job: ScheduledJob[Any]) -> None:
        """The job has ended: it is not tried again."""
        if (timer := self._timers.pop(job, None)) is not None:
            timer.cancel()

    def stop(self) -> None:
        """Try nothing again."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _requeue(self, job: ScheduledJob[Any]) -> None:
        self._timers.pop(job, None)
        if (wake := self._scheduler.requeue(job)) is not None:
            wake()
