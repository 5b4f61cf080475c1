"""Which job runs on which slot. The only writer of queue and slot state, under one lock that is held for microseconds.

The event loop calls it when a job is submitted or a worker has ended, and each slot's thread when a call has ended, so
that two jobs in a row on a slot need no trip through the event loop. User code, the event loop and callbacks are never
called under the lock: what has to be called afterwards is returned to the caller as a `WakeCall`. See `exclusive` for
finalizers and signal handlers that run during a decision.

`selection` picks the next job, `placement` the slot, `wakeups` the worker to wake; `admission` refuses jobs. What it is
told of devices is in `device_reports`, what it is asked in `introspection`.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from director._jobs.state import JobState
from director._scheduler.admission import Admission
from director._scheduler.costs import Accounting
from director._scheduler.device_reports import DeviceReports
from director._scheduler.exclusive import REFUSALS, dated, dated_surely, exclusive
from director._scheduler.memory.memory import Memory
from director._scheduler.placement import ClosedDevices, FreeSlots
from director._scheduler.prefetch import Prefetch
from director._scheduler.queue.ready_queue import ReadyQueue, RetryWaiting
from director._scheduler.selection import Selection
from director._scheduler.slots import SlotState
from director._scheduler.wakeups import Wakeups, combine, nowhere
from director.errors import DirectorClosed

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable

    from director._jobs.job import ScheduledJob
    from director._jobs.model import Model
    from director._scheduler.placement import Jobs
    from director._scheduler.policy import SchedulingPolicy
    from director._scheduler.slots import DeviceSlots, Slot
    from director._scheduler.wakeups import WakeCall

_QUEUED, _RUNNING = JobState.QUEUED, JobState.RUNNING
_IDLE, _WORKING, _PARKED, _UNLOADING = SlotState.IDLE, SlotState.WORKING, SlotState.PARKED, SlotState.UNLOADING
_LINGER = 0.1  # seconds a worker stays parked before it ends: long for a wake-up, short for an idle period


class Scheduler(DeviceReports):
    """Ready queue and slots of one running Director.

    Args:
        places: The devices with their slots, all idle.
        policy: How jobs are admitted and ordered.
        resident: Tells the numbers of the slots on which a model is loaded.
        call_director: Thread-safe; wakes the Director coroutine, which starts workers.
        time: The Director's clock.
        schedule_flush: Thread-safe; has `flush_due` called at a time, in seconds of the clock.
        submit_later: Thread-safe; has the event loop call `admit_deferred` with these arguments.
        failed: Tells the numbers of the slots on whose devices a model could not be loaded lately.
        is_apart: Whether slots don't share the replicas of a model.
        note_memory: Thread-safe; called when `Memory.has_news`, and when `wake_for_waiting` has to be called.

    Invariants, checked by `tests/scheduler`: a slot has a job exactly while WORKING; `_free` holds exactly the IDLE and
    PARKED slots; while a slot is free that may run a waiting job (one not held for a fuller batch), a worker is on its
    way to take it.
    """

    def __init__(
        self,
        places: list[DeviceSlots],
        policy: SchedulingPolicy,
        resident: Callable[[Model[Any]], frozenset[int]],
        call_director: Callable[[], None],
        time: Callable[[], float],
        schedule_flush: Callable[[float], None],
        submit_later: Callable[[ScheduledJob[Any], bool], None],
        failed: Callable[[Model[Any]], frozenset[int]] = nowhere,
        is_apart: Callable[[Model[Any]], bool] = lambda model: model.per_slot,
        note_memory: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(time)
        self.places = places
        self.slots = [slot for place in places for slot in place.slots]
        self.linger = _LINGER
        self._resident = resident
        self._submit_later = submit_later
        self._note_memory = note_memory
        self.memory = Memory(places, policy.memory, is_apart)
        self._queue = ReadyQueue(policy, self.memory)
        self._free = FreeSlots(places)
        self._closed_devices = ClosedDevices(self.slots, self._free, self._queue)
        self._wakeups = Wakeups(
            self.slots, self._free, self._queue, self.memory, resident, failed, self._closed_devices, call_director
        )
        self._accounting = Accounting(self._queue.tenants, self._queue.discarded)
        self._admission = Admission(policy, self._queue, self.slots, self._wakeups.on_the_way, self._accounting.costs)
        self._selection = Selection(self._queue, self._accounting, self.memory, self._wakeups, resident, schedule_flush)
        self.prefetched = Prefetch(self.slots, self._free, self._queue, self._wakeups, self.memory, resident)
        self._deferred = RetryWaiting()  # submitted by a finalizer or signal handler during a decision
        self.is_shut = False
        self._looks_again = False  # `note_memory` was called, and `wake_for_waiting` not yet
        self._paused: WakeCall = None  # during a pause: called when a slot has ended its call
        self._lent: dict[DeviceSlots, WakeCall] = {}  # called when a slot of the device has no worker any more

    # ---- called on the event loop; `admit` on any thread

    def admit(self, job: ScheduledJob[Any], wait_for_room: bool) -> WakeCall:
        """Queue a job.

        Args:
            job: A new one.
            wait_for_room: Queue it even if the queue is full, in the same order of service: the caller waits.

        Raises:
            QueueFull: There is no room, and not `wait_for_room`.
            DeadlineUnreachable: It would miss its deadline, with `predict`.
            DirectorClosed: `stop_admission` was called.
            DeviceLost: Every device that could run it is closed.
        """
        try:
            self._lock.acquire()
        except BaseException:  # of a signal handler, before this thread had the lock or just after
            try:  # noqa: SIM105 - another signal may come in the calls that `suppress` is made of
                self._lock.release()
            except RuntimeError:
                pass
            raise
        try:
            if self._is_deciding:
                self._deferred.push(job)
                return partial(self._submit_later, job, wait_for_room)
            try:
                self._is_deciding = True
                if self.is_shut or self._closed_devices.closed:
                    self._check_open(job)
                queue = self._queue
                plain = queue.fifo
                if queue.has_lanes or not job.options.is_plain:
                    return self._admit_to_lanes(job, wait_for_room, job.submitted_at)
                if not wait_for_room and plain.waiting >= self._admission.bound:
                    self._admission.check_room(job)
                job.location = plain
                plain.waiting += 1
                plain.jobs.append(job)
                free, wakeups = self._free, self._wakeups
                if (free.parked and not wakeups.is_waking) or (free.idle and not wakeups.is_starting):
                    return wakeups.pick_wakeup(job.submitted_at)
                return None  # all workers are busy or on their way: the usual case under load
            except REFUSALS:
                raise
            except BaseException:
                self.undo()
                raise
            finally:
                self._is_deciding = False
        finally:
            self._lock.release()

    @dated_surely
    def admit_deferred(self, now: float, job: ScheduledJob[Any], wait_for_room: bool) -> WakeCall:
        """Queue a job submitted during a decision, unless it has ended. Raises as `admit`; it is FAILED then."""
        if job not in self._deferred.jobs:
            return None
        self._deferred.left(job)
        try:
            self._check_open(job)
            return self._admit_to_lanes(job, wait_for_room, now)
        except REFUSALS:
            job.transition(JobState.FAILED)
            raise

    def remove(self, job: ScheduledJob[Any], state: JobState) -> bool:
        """Move a waiting job to `state`, so that it never runs; False if it doesn't wait any more.

        A prefetched job is moved too, so that it can't return to the queue, but its call may have begun.
        """
        is_removed = self._withdraw(job, state)
        if is_removed and self.memory.is_used and job.options.lane is not None:
            self._look_again()
        return is_removed

    @exclusive
    def _withdraw(self, job: ScheduledJob[Any], state: JobState) -> bool:
        if job.state is not _QUEUED:
            return self.prefetched.end(job, state)
        job.transition(state)
        self._discount(job)
        return True

    @exclusive
    def remove_all(self, into: Jobs, state: JobState, of: Container[ScheduledJob[Any]] | None = None) -> None:
        """Add all waiting jobs, or those `of` these, to `into`, by age; then set their `state`."""
        self._remove([job for job in (*self._queue, *self._deferred.jobs) if of is None or job in of], into, state)

    @dated
    def hold_for_retry(self, _now: float, job: ScheduledJob[Any]) -> bool:
        """Keep a failed job for its next attempt, where no slot takes it; False if it has ended, or admission has."""
        if self.is_shut or job.state is not _RUNNING:
            return False
        if not self._queue.has_lanes:
            self._queue.switch_to_lanes()
        self._queue.hold_for_retry(job)
        job.transition(_QUEUED)
        return True

    @dated_surely
    def requeue(self, now: float, job: ScheduledJob[Any]) -> WakeCall:
        """Queue a job held for retry, before its equals. Does nothing if it has ended."""
        if job.state is not _QUEUED:
            return None
        return combine(self._selection.push(job, now), self._wakeups.pick_wakeup(now))

    @dated_surely
    def flush_due(self, now: float) -> WakeCall:
        """Release the batch groups whose `max_wait` is over."""
        return combine(self._selection.flush_due(now), self._wakeups.pick_wakeup(now))

    @exclusive
    def stop_admission(self) -> None:
        """Admit nothing more."""
        self.is_shut = True

    @dated
    def pick_slots_to_start(self, now: float, most: int) -> list[Slot]:
        """Slots that need a worker for what waits, at most `most`; each becomes STARTING."""
        return self._wakeups.pick_slots_to_start(most, now)

    @dated
    def wake_parked(self, now: float) -> WakeCall:
        """Wake a parked worker for what still waits when no more workers could be started."""
        return self._wakeups.pick_parked(now)

    @dated_surely
    def mark_idle(self, now: float, slot: Slot) -> WakeCall:
        """The worker's task is done and its thread has returned, or its back-off is over: the slot is idle again."""
        self._vacate(slot, _IDLE)
        self._free.mark_idle(slot)
        return combine(combine(self._paused, self._lent.get(slot.place)), self._wakeups.pick_wakeup(now))

    @dated_surely
    def back_off(self, now: float, slot: Slot) -> WakeCall:
        """The slot's worker could not be started: other slots take what waits, until `mark_idle`."""
        self._vacate(slot, SlotState.BACKING_OFF)
        return combine(combine(self._paused, self._lent.get(slot.place)), self._wakeups.pick_wakeup(now))

    @exclusive
    def stop_lingering(self) -> list[Slot]:
        """Have workers end as soon as nothing waits, and hold no batches; returns the parked slots, to be woken."""
        self.linger = 0.0
        self._selection.release_all()
        parked = [slot for place in self.places for slot in place.parked]
        for slot in parked:
            self._wakeups.call(slot)
        return parked

    # ---- called on the slot's thread

    def next_work(self, slot: Slot) -> tuple[ScheduledJob[Any] | None, WakeCall]:
        """The next job for `slot`, now RUNNING, with `slot.batch` if it shares a call; without one the slot is PARKED.

        Or it is UNLOADING, and its thread unloads `slot.unloads` before it calls this again.
        Jobs that can't make their deadlines any more are put into `slot.missed_deadline`, as FAILED.
        """
        # Dropping the last reference to a job may run user code: these and `_discarded` are dropped without the lock.
        # If the queue gets lanes after the clock was not read, the thread that did so has just read it: `_last_time`.
        # No signal handler runs on this thread, so `acquire` can't raise, and no finalizer calls this method.
        _job, _batch = slot.job, slot.batch
        wakeup, queue = None, self._queue
        now = self._time() if queue.has_lanes else None
        try:
            self._lock.acquire()
            try:
                self._is_deciding = True
                if slot.state is not _WORKING:
                    self._wakeups.arrive(slot)
                if slot.prefetched:
                    job = self.prefetched.next_for(slot)
                elif not slot.is_open:
                    self._selection.settle(slot, self._last_time if now is None else now)
                    job, wakeup = None, self._paused
                elif queue.has_lanes:
                    job, wakeup = self._selection.next_job(slot, self._last_time if now is None else now)
                    if self.memory.has_news:
                        wakeup = combine(wakeup, self._take_news())
                else:
                    job = queue.pop_fifo(slot)
                if job is not None:
                    slot.job = job
                    slot.state = _WORKING
                elif slot.unloads:
                    slot.job = None
                    slot.state = _UNLOADING
                else:
                    slot.job = None
                    slot.state = _PARKED
                    self._free.park(slot)
                    if self.prefetched.count and (holder := self.prefetched.biggest_holder(slot)) is not None:
                        wakeup = combine(wakeup, holder.recall)
                free, wakeups = self._free, self._wakeups
                if (free.parked and not wakeups.is_waking) or (free.idle and not wakeups.is_starting):
                    wake = wakeups.pick_wakeup(self._last_time if now is None else now)
                    wakeup = wake if wakeup is None else combine(wakeup, wake)
                if queue.discarded:
                    _discarded = self.take_discarded()
                return job, wakeup
            except BaseException:
                self.undo()
                raise
            finally:
                self._is_deciding = False
        finally:
            self._lock.release()

    @dated
    def prefetch(self, now: float, slot: Slot) -> ScheduledJob[Any] | None:
        """One more job for a slot that is WORKING; `next_work` returns it after those before it."""
        return self.prefetched.take(slot, now)

    @dated_surely
    def return_prefetched(self, now: float, slot: Slot, jobs: Iterable[ScheduledJob[Any]]) -> WakeCall:
        """Put jobs that `slot` has prefetched, and not begun, back into the queue.

        After `stop_admission` they are FAILED instead, and the caller has to end them.
        """
        if self.is_shut:
            self.prefetched.withdraw(slot, jobs)
            return None
        self.prefetched.give_back(slot, jobs)
        return self._wakeups.pick_wakeup(now)

    @dated_surely
    def wait_for_shared_slot(self, now: float, slot: Slot) -> WakeCall:
        """Another process has the slot: other slots take what waits, until its worker calls `next_work`."""
        self._wakeups.arrive(slot)
        self._selection.settle(slot, now)
        slot.state, slot.job = SlotState.WAITING_FOR_OTHERS, None
        return combine(self._paused, self._wakeups.pick_wakeup(now))

    @exclusive
    def leave(self, slot: Slot) -> bool:
        """End a parked worker; False if it has been woken since and must call `next_work`."""
        if slot.state is not _PARKED:
            return False
        self._free.claim(slot)
        slot.state = SlotState.LEAVING
        return True

    def repair(self) -> None:
        """Rebuild all counts and queues from the states of jobs and slots; see `exclusive`."""
        self.slots[:] = [slot for place in self.places for slot in place.slots]
        self._closed_devices.repair()
        self.prefetched.repair()
        self._queue.repair(self.slots)
        self._accounting.repair(self.slots)
        self.memory.repair(self.slots)
        self._free.recount(self.places)
        self._wakeups.repair()
        self._selection.repair(self._last_time)

    def wake_again(self) -> None:
        """Wake the Director coroutine and every WOKEN worker again: a second wake-up does no harm."""
        if self.memory.is_used:
            self._note_memory()
        self._selection.wake_again()
        self._wakeups.wake_again()

    def take_discarded(self) -> list[Any]:
        """Entries that were passed over, to be dropped without the lock."""
        discarded, self._queue.discarded[:] = self._queue.discarded[:], []
        return discarded

    def _check_open(self, job: ScheduledJob[Any]) -> None:
        if self.is_shut:  # another thread may submit while the Director closes
            raise DirectorClosed("closed")
        if self._closed_devices.closed:
            self._closed_devices.check(job)

    def _vacate(self, slot: Slot, state: SlotState) -> None:
        """The slot has no worker any more; it may have failed before `next_work`, or during a call."""
        self._wakeups.arrive(slot)
        slot.state, slot.job, slot.batch = state, None, None
        if slot.usage is not None:
            self._accounting.settle(slot)
        if self.memory.unsettled:
            self.memory.settle(slot, self._last_time)
        self.prefetched.forget(slot)

    def _admit_to_lanes(self, job: ScheduledJob[Any], wait_for_room: bool, now: float) -> WakeCall:
        queue, admission, free, wakeups = self._queue, self._admission, self._free, self._wakeups
        if not wait_for_room and (queue.count_waiting() >= admission.bound or admission.bounds_tenants):
            admission.check_room(job)
        if admission.predicts:
            admission.check_deadline(job)
        if not queue.has_lanes:
            queue.switch_to_lanes()
        self._last_time = now
        wakeup = self._selection.push(job, now)
        if self.prefetched.count and job.options.priority > 0:
            wakeup = combine(wakeup, self.prefetched.recall)
        if self.memory.has_news:
            wakeup = combine(wakeup, self._take_news())
        if (free.parked and not wakeups.is_waking) or (free.idle and not wakeups.is_starting):
            return combine(wakeup, wakeups.pick_wakeup(now))
        return wakeup
