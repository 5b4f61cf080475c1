"""The decision: which job runs on which slot. The only writer of queue and slot state, behind one short lock.

Called by the Director on the event loop (a job arrived, a worker was reaped) and by each slot's thread at the end of a
job, so between two jobs of a device there is no hop through the loop. User code, the loop and callbacks are never
called under the lock: what has to happen outside comes back as a `WakeCall` for the caller to call. `exclusive` says
what finalizers and signal handlers do in the midst of a decision.

`selection` decides whose turn it is, `placement` which slot, `admission` what is let in, `wakeups` what is woken.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from director._jobs.state import JobState
from director._scheduler.accounting import Accounting
from director._scheduler.admission import Admission
from director._scheduler.exclusive import REFUSALS, dated, dated_surely, exclusive
from director._scheduler.introspection import Introspection
from director._scheduler.placement import ClosedDevices, FreeSlots
from director._scheduler.prefetch import Prefetch
from director._scheduler.queue.ready_queue import ReadyQueue, RetryWaiting
from director._scheduler.selection import Selection
from director._scheduler.slots import SlotState
from director._scheduler.wakeups import Wakeups, combine
from director.errors import DirectorClosed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from director._jobs.job import ScheduledJob
    from director._jobs.model import Model
    from director._scheduler.placement import Jobs
    from director._scheduler.policy import SchedulingPolicy
    from director._scheduler.slots import DeviceSlots, Slot
    from director._scheduler.wakeups import WakeCall

_QUEUED, _RUNNING = JobState.QUEUED, JobState.RUNNING
_IDLE, _WORKING, _PARKED = SlotState.IDLE, SlotState.WORKING, SlotState.PARKED
_LINGER = 0.1  # seconds a worker stays parked before it leaves: long against a wake-up, short against a rest


class Scheduler(Introspection):
    """Ready queue and slots of one running Director.

    Args:
        places: The devices with their slots, all idle.
        policy: How jobs are admitted and ordered.
        warm: Tells the numbers of the slots on which a model is loaded.
        call_director: Thread-safe; asks the Director coroutine to look.
        time: The Director's clock.
        ripen_at: Thread-safe; asks for a call of `flush_due` at a moment.
        put_off: Thread-safe; has the loop call `admit_late` with these arguments.

    Invariants, checked by `tests/scheduler`: a slot has a job exactly while WORKING; `_free` holds exactly the IDLE and
    PARKED slots; a job that waits (and is not held for a fuller batch) while a slot that may run it is free has a
    worker on its way.
    """

    def __init__(
        self,
        places: list[DeviceSlots],
        policy: SchedulingPolicy,
        warm: Callable[[Model[Any]], frozenset[int]],
        call_director: Callable[[], None],
        time: Callable[[], float],
        ripen_at: Callable[[float], None],
        put_off: Callable[[ScheduledJob[Any], bool], None],
    ) -> None:
        super().__init__(time)
        self.places = places
        self.slots = [slot for place in places for slot in place.slots]
        self.linger = _LINGER
        self._resident = warm
        self._put_off = put_off
        self._queue = ReadyQueue(policy)
        self._free = FreeSlots(places)
        self._waking = Wakeups(self.slots, self._free, self._queue, warm, call_director)
        self._accounting = Accounting(self._queue.tenants, self._queue.discarded)
        self._admission = Admission(policy, self._queue, self.slots, self._waking.on_the_way, self._accounting.costs)
        self._service = Selection(self._queue, self._accounting, warm, ripen_at)
        self._quarantine = ClosedDevices(self.slots, self._free, self._queue)
        self.prefetched = Prefetch(self.slots, self._free, self._queue, self._waking, warm)
        self._paused = RetryWaiting()  # jobs that were submitted in the midst of a decision
        self._is_shut = False

    # ---- the Director's side: event loop (and threads, for `admit`)

    def admit(self, job: ScheduledJob[Any], patient: bool) -> WakeCall:
        """Queue a job.

        Args:
            job: A new one.
            patient: Its caller can wait, so it stands in the queue though that is full, in the same order of service.

        Raises:
            QueueFull: There is no room and the caller can't wait.
            DeadlineUnreachable: It would miss its deadline, and the Director predicts.
            DirectorClosed: It is shut.
            DeviceLost: Every device that could run it is closed.
        """
        try:
            self._acquire()
        except BaseException:  # of a signal handler, before this thread had the lock or right after
            try:  # noqa: SIM105 - another signal may come in the calls that `suppress` is made of
                self._release()
            except RuntimeError:
                pass
            raise
        try:
            if self._is_deciding:
                self._paused.push(job)
                return partial(self._put_off, job, patient)
            try:
                self._is_deciding = True
                if self._is_shut or self._quarantine.closed:
                    self._check_open(job)
                queue = self._queue
                plain = queue.fifo
                if queue.has_lanes or not job.options.is_plain:
                    return self._admit_rich(job, patient, job.submitted_at)
                if plain.live >= self._admission.bound and not patient:
                    self._admission.check_room(job)
                job.location = plain
                plain.live += 1
                plain.jobs.append(job)
                free, waking = self._free, self._waking
                if (free.parked and not waking.calling) or (free.idle and not waking.hiring):
                    return waking.pick_wakeup(job.submitted_at)
                return None  # all are busy or on their way: the usual case under load
            except REFUSALS:
                raise
            except BaseException:
                self.undo()
                raise
            finally:
                self._is_deciding = False
        finally:
            self._release()

    @dated_surely
    def admit_late(self, now: float, job: ScheduledJob[Any], patient: bool) -> WakeCall:
        """Queue a job that was submitted in the midst of a decision, unless it is over by now.

        Raises:
            As `admit`; the job is FAILED then.
        """
        if job not in self._paused.jobs:
            return None
        self._paused.left(job)
        try:
            self._check_open(job)
            return self._admit_rich(job, patient, now)
        except REFUSALS:
            job.transition(JobState.FAILED)
            raise

    @exclusive
    def remove(self, job: ScheduledJob[Any], state: JobState) -> bool:
        """Move a job that waits to `state`, so that it never runs; False if it doesn't wait any more.

        One that a slot holds ahead of its turn is moved too, so that it can't come back, but may have begun.
        """
        if job.state is not _QUEUED:
            return self.prefetched.end(job, state)
        job.transition(state)
        self._left(job)
        return True

    @exclusive
    def remove_all(self, into: Jobs, state: JobState, failed_load: tuple[Model[Any], Slot] | None = None) -> None:
        """Add every job that waits to `into`, in order of arrival; then move it to `state`.

        Args:
            into: Where to put them.
            state: A final one.
            failed_load: Only those that wait for this model, and may run on this slot.
        """
        jobs = [*self._queue, *self._paused.jobs]
        if failed_load is not None:
            model, slot = failed_load
            waiting = [job for job in jobs if job.options.model is model]
            jobs = [job for job in waiting if (allowed := job.options.allowed) is None or slot.number in allowed]
        into.extend(sorted(jobs, key=lambda job: job.id))
        for job in jobs:
            job.transition(state)
            self._left(job)

    @dated
    def hold_for_retry(self, _now: float, job: ScheduledJob[Any]) -> bool:
        """Let a job that has failed wait for its next try, unseen by slots; False if it is over, or we are shut."""
        if self._is_shut or job.state is not _RUNNING:
            return False
        if not self._queue.has_lanes:
            self._queue.switch_to_lanes()
        self._queue.set_aside(job)
        job.transition(_QUEUED)
        return True

    @dated_surely
    def requeue(self, now: float, job: ScheduledJob[Any]) -> WakeCall:
        """The time of a job that was set aside has come; it goes before its equals. Does nothing if it is over."""
        if job.state is not _QUEUED:
            return None
        return combine(self._service.push(job, now), self._waking.pick_wakeup(now))

    @dated_surely
    def flush_due(self, now: float) -> WakeCall:
        """Let go of the groups that have waited long enough for fuller batches."""
        return combine(self._service.flush_due(now), self._waking.pick_wakeup(now))

    @exclusive
    def stop_admission(self) -> None:
        """Admit nothing more."""
        self._is_shut = True

    @exclusive
    def close(self, into: Jobs, place: DeviceSlots) -> None:
        """Give a device no more work; what it runs goes on. As `strand` for the jobs that no other could run."""
        self._quarantine.close(into, place)

    @exclusive
    def strand(self, into: Jobs, unable: frozenset[int], before: float) -> None:
        """Add to `into` the jobs that only closed slots or these could run, submitted by then, and make them FAILED."""
        self._quarantine.strand(into, unable, before)

    @dated_surely
    def reopen(self, now: float, place: DeviceSlots) -> WakeCall:
        """Give a closed device work again."""
        self._quarantine.reopen(place)
        return self._waking.pick_wakeup(now)

    @dated_surely
    def join(self, now: float, place: DeviceSlots) -> WakeCall:
        """Give a new device work; its slots have their threads and runners."""
        self.places.append(place)  # these two lists are known to all parts
        self.slots.extend(place.slots)
        self._free.add(place)
        self._quarantine.add(place)
        return self._waking.pick_wakeup(now)

    @dated
    def pick_slots_to_start(self, now: float, most: int) -> list[Slot]:
        """Slots that need a worker for what waits, at most `most`; each becomes HIRED."""
        return self._waking.pick_slots_to_start(most, now)

    @dated
    def wake_parked(self, now: float) -> WakeCall:
        """Call a parked worker for what still waits when nobody more could be hired."""
        return self._waking.pick_parked(now)

    @dated_surely
    def mark_idle(self, now: float, slot: Slot) -> WakeCall:
        """The worker's task is done and its thread has left, or the slot has rested: it is idle again."""
        self._vacate(slot, _IDLE)
        self._free.rest(slot)
        return self._waking.pick_wakeup(now)

    @dated_surely
    def back_off(self, now: float, slot: Slot) -> WakeCall:
        """Its worker could not begin: what waits goes to others until `mark_idle`."""
        self._vacate(slot, SlotState.BACKING_OFF)
        return self._waking.pick_wakeup(now)

    @exclusive
    def stop_lingering(self) -> list[Slot]:
        """Let workers leave as soon as they find nothing, and batches go; returns the parked ones, to be rung."""
        self.linger = 0.0
        self._service.release_all()
        parked = [slot for place in self.places for slot in place.parked]
        for slot in parked:
            self._waking.call(slot)
        return parked

    # ---- the worker's side: the slot's thread

    def next_work(self, slot: Slot) -> tuple[ScheduledJob[Any] | None, WakeCall]:
        """The next job for `slot`, now RUNNING, perhaps with `slot.mates`; without one the slot is PARKED.

        Jobs that can't make their deadlines any more are left in `slot.late`, as FAILED.
        """
        _job, _mates = slot.job, slot.batch  # let go of without the lock, like `_spent`
        alarm, queue = None, self._queue
        now = self._time() if queue.has_lanes else None  # who makes it so after this look has read the clock just now
        try:  # no signal handler runs on this thread, so `acquire` does not raise before it has the lock
            self._acquire()  # of its own code alone, so it is not in the midst of another decision
            try:
                self._is_deciding = True
                if slot.state is not _WORKING:
                    self._waking.arrive(slot)
                if slot.prefetched:
                    job = self.prefetched.next_for(slot)
                elif not slot.is_open:
                    self._service.settle(slot)
                    job = None
                elif queue.has_lanes:
                    job, alarm = self._service.next_job(slot, self._waking.suits, self._moment if now is None else now)
                else:
                    job = queue.pop_fifo(slot)
                if job is None:
                    slot.job = None
                    slot.state = _PARKED
                    self._free.park(slot)
                    if self.prefetched.count and (holder := self.prefetched.biggest_holder(slot)) is not None:
                        alarm = combine(alarm, holder.recall)
                else:
                    slot.job = job
                    slot.state = _WORKING
                free, waking = self._free, self._waking
                if (free.parked and not waking.calling) or (free.idle and not waking.hiring):
                    wake = waking.pick_wakeup(self._moment if now is None else now)
                    alarm = wake if alarm is None else combine(alarm, wake)
                if queue.discarded:
                    _spent = self.take_discarded()
                return job, alarm
            except BaseException:
                self.undo()
                raise
            finally:
                self._is_deciding = False
        finally:
            self._release()

    @dated
    def prefetch(self, now: float, slot: Slot) -> ScheduledJob[Any] | None:
        """One more job for a slot that works, which `take` will return in its turn."""
        return self.prefetched.take(slot, now)

    @dated_surely
    def return_prefetched(self, now: float, slot: Slot, jobs: Iterable[ScheduledJob[Any]]) -> WakeCall:
        """Jobs that `slot` holds ahead, and has not begun, may go elsewhere."""
        self.prefetched.give_back(slot, jobs)
        return self._waking.pick_wakeup(now)

    @dated_surely
    def wait_for_shared_slot(self, now: float, slot: Slot) -> WakeCall:
        """Another process has the slot: until its worker comes back to `take`, what waits goes to others."""
        self._waking.arrive(slot)
        self._service.settle(slot)
        slot.state, slot.job = SlotState.WAITING_FOR_OTHERS, None
        return self._waking.pick_wakeup(now)

    @exclusive
    def leave(self, slot: Slot) -> bool:
        """A parked worker wants to go; False if it has been called in the meantime and must look again."""
        if slot.state is not _PARKED:
            return False
        self._free.claim(slot)
        slot.state = SlotState.LEAVING
        return True

    # ---- exceptions of signal handlers

    def repair(self) -> None:
        """Make all that is counted anew from what jobs and slots say; see `exclusive`."""
        self.slots[:] = [slot for place in self.places for slot in place.slots]
        self._quarantine.repair()
        self.prefetched.repair()
        self._queue.repair(self.slots)
        self._accounting.repair(self.slots)
        self._free.recount(self.places)
        self._waking.repair()
        self._service.repair(self._moment)

    def wake_again(self) -> None:
        """Call the Director and every worker that was called: to be called twice does no harm."""
        self._service.wake_again()
        self._waking.wake_again()

    def take_discarded(self) -> list[Any]:
        """What was passed over, to be let go of without the lock."""
        spent, self._queue.discarded[:] = self._queue.discarded[:], []
        return spent

    # ---- under the lock

    def _check_open(self, job: ScheduledJob[Any]) -> None:
        if self._is_shut:  # a submission from another thread can meet the close
            raise DirectorClosed("closed")
        if self._quarantine.closed:
            self._quarantine.check(job)

    def _vacate(self, slot: Slot, state: SlotState) -> None:
        """The slot has no worker any more."""
        self._waking.arrive(slot)  # if it failed before it could look for work
        slot.state, slot.job, slot.batch = state, None, None
        if slot.usage is not None:  # it failed in the middle of a call
            self._accounting.settle(slot)
        self.prefetched.forget(slot)

    def _left(self, job: ScheduledJob[Any]) -> None:
        (self._paused if job.location is self._paused else self._queue).left(job)

    def _admit_rich(self, job: ScheduledJob[Any], patient: bool, now: float) -> WakeCall:
        queue, admission, free, waking = self._queue, self._admission, self._free, self._waking
        if not patient and (queue.live() >= admission.bound or admission.bounds_tenants):
            admission.check_room(job)
        if admission.predicts:
            admission.check_deadline(job)
        if not queue.has_lanes:
            queue.switch_to_lanes()
        self._moment = now
        alarm = self._service.push(job, now)
        if self.prefetched.count and job.options.priority > 0:
            alarm = combine(alarm, self.prefetched.recall)
        if (free.parked and not waking.calling) or (free.idle and not waking.hiring):
            return combine(alarm, waking.pick_wakeup(now))
        return alarm
