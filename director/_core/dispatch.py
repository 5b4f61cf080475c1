"""The decision: which job runs on which slot. The only writer of queue and slot state, behind one short lock.

Called by the Director on the event loop (a job arrived, a worker was reaped) and by each slot's thread at the end of a
job, so between two jobs of a device there is no hop through the loop. User code, the loop and callbacks are never
called under the lock: what has to happen outside comes back as a `Ring` for the caller to call.

Whose turn it is says `service`, which slot is meant `placement`, who gets in `admission`, who is woken `waking`.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from director._core.accounts import Accounts
from director._core.admission import Admission
from director._core.ahead import Ahead
from director._core.placement import FreeSlots
from director._core.quarantine import Quarantine
from director._core.queue import ReadyQueue
from director._core.service import Service, both
from director._core.states import JobState, SlotState
from director._core.waking import Waking
from director.errors import DirectorClosed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from director._core.batch_rule import BatchRule
    from director._core.costs import CostLine
    from director._core.job import Job
    from director._core.policy import Policy
    from director._core.service import Ring
    from director._core.slot import Place, Slot
    from director._models import Model

_QUEUED, _RUNNING = JobState.QUEUED, JobState.RUNNING
_IDLE, _WORKING = SlotState.IDLE, SlotState.WORKING
_PARKED, _LEAVING = SlotState.PARKED, SlotState.LEAVING
_ELSEWHERE, _BACKING_OFF = SlotState.ELSEWHERE, SlotState.BACKING_OFF
_RESTING = (_IDLE, _ELSEWHERE, _BACKING_OFF)
_LINGER = 0.1  # seconds a worker stays parked before it leaves: long against a wake-up, short against a rest


class Dispatch:
    """Ready queue and slots of one running Director.

    Args:
        places: The devices with their slots, all idle.
        policy: How jobs are admitted and ordered.
        warm: Tells the numbers of the slots on which a model is loaded.
        call_director: Thread-safe; asks the Director coroutine to `hire`.
        time: The Director's clock.
        ripen_at: Thread-safe; asks for a call of `ripen` at a moment.

    Invariants, checked by `tests/core`: a slot has a job exactly while WORKING; `_free` holds exactly the IDLE and
    PARKED slots; a job that waits (and is not held for a fuller batch) while a slot that may run it is free has a
    worker on its way.
    """

    def __init__(
        self,
        places: list[Place],
        policy: Policy,
        warm: Callable[[Model[Any]], frozenset[int]],
        call_director: Callable[[], None],
        time: Callable[[], float],
        ripen_at: Callable[[float], None],
    ) -> None:
        self.places = places
        self.slots = [slot for place in places for slot in place.slots]
        self.linger = _LINGER
        self._lock = threading.Lock()
        self._acquire, self._release = self._lock.acquire, self._lock.release  # half the cost of `with`, for each job
        self._warm = warm
        self._queue = ReadyQueue(policy)
        self._free = FreeSlots(places)
        self._waking = Waking(self.slots, self._free, self._queue, warm, call_director, time)
        self._accounts = Accounts(self._queue.tenants)
        self._admission = Admission(policy, self._queue, self.slots, self._waking.coming, self._accounts.costs)
        self._service = Service(self._queue, self._accounts, warm, time, ripen_at)
        self._quarantine = Quarantine(self.slots, self._free, self._queue)
        self.ahead = Ahead(self.slots, self._free, self._queue, self._waking, warm, time)
        self._is_shut = False

    # ---- the Director's side: event loop (and threads, for `admit`)

    def admit(self, job: Job[Any], patient: bool) -> Ring:
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
        self._acquire()
        try:
            if self._is_shut:  # a submission from another thread can meet the close
                raise DirectorClosed("closed")
            if self._quarantine.closed:
                self._quarantine.check(job)
            queue = self._queue
            plain = queue.plain
            if queue.is_rich or not job._options.is_plain:
                return self._admit_rich(job, patient)
            if plain.live >= self._admission.bound and not patient:
                self._admission.check_room(job)
            job._where = plain
            plain.jobs.append(job)
            plain.live += 1
            free, waking = self._free, self._waking
            if (free.parked and not waking.calling) or (free.idle and not waking.hiring):
                return waking.rouse()
            return None  # all are busy or on their way: the usual case under load
        finally:
            self._release()

    def withdraw(self, job: Job[Any], state: JobState) -> bool:
        """Move a job that waits to `state`, so that it never runs; False if it doesn't wait any more.

        One that a slot holds ahead of its turn is moved too, so that it can't come back, but may have begun: False.
        """
        with self._lock:
            if job._stage is not _QUEUED:
                self.ahead.end(job, state)
                return False
            job._move(state)
            self._queue.left(job)
            spent, self._queue.spent[:] = self._queue.spent[:], []
        del spent  # outside of the lock: this may run user code
        return True

    def withdraw_all(self, state: JobState, model: Model[Any] | None = None) -> list[Job[Any]]:
        """Move every job that waits (for `model`, if given) to `state` and return them in order of arrival."""
        with self._lock:
            jobs = [job for job in self._queue if model is None or job._options.model is model]
            for job in jobs:
                job._move(state)
                self._queue.left(job)
            spent, self._queue.spent[:] = self._queue.spent[:], []
        del spent
        return sorted(jobs, key=lambda job: job.id)

    def set_aside(self, job: Job[Any]) -> bool:
        """A job that runs has failed and will be tried again: it waits, and no slot sees it.

        Returns:
            False if it is over, or if nothing new is begun any more.
        """
        with self._lock:
            if self._is_shut or job._stage is not _RUNNING:
                return False
            job._move(_QUEUED)
            if not self._queue.is_rich:
                self._queue.enrich()
            self._queue.set_aside(job)
            return True

    def try_again(self, job: Job[Any]) -> Ring:
        """The time of a job that was set aside has come; it goes before its equals. Does nothing if it is over."""
        with self._lock:
            if job._stage is not _QUEUED:
                return None
            self._queue.left(job)
            return both(self._service.push(job), self._waking.rouse())

    def ripen(self) -> Ring:
        """Let go of the groups that have waited long enough for fuller batches."""
        with self._lock:
            return both(self._service.ripen(), self._waking.rouse())

    def shut(self) -> None:
        """Admit nothing more."""
        with self._lock:
            self._is_shut = True

    def close(self, place: Place) -> list[Job[Any]]:
        """Give a device no more work; what it runs goes on.

        Returns:
            The jobs that only closed devices could run, now FAILED.
        """
        with self._lock:
            stranded = self._quarantine.close(place)
            spent, self._queue.spent[:] = self._queue.spent[:], []
        del spent
        return stranded

    def strand(self, unable: frozenset[int], before: float) -> list[Job[Any]]:
        """Move the jobs to FAILED that only closed slots or these could run, and that were submitted by then."""
        with self._lock:
            stranded = self._quarantine.strand(unable, before)
            spent, self._queue.spent[:] = self._queue.spent[:], []
        del spent
        return stranded

    def reopen(self, place: Place) -> Ring:
        """Give a closed device work again."""
        with self._lock:
            self._quarantine.reopen(place)
            return self._waking.rouse()

    def join(self, place: Place) -> Ring:
        """Give a new device work; its slots have their threads and seats."""
        with self._lock:
            self.places.append(place)  # these two lists are known to all parts
            self.slots.extend(place.slots)
            self._free.add(place)
            self._quarantine.add(place)
            return self._waking.rouse()

    def open_slots(self) -> frozenset[int]:
        """Numbers of the slots whose devices get work."""
        return self._quarantine.open_slots()

    def hire(self, most: int) -> list[Slot]:
        """Slots that need a worker for what waits, at most `most`; each becomes HIRED."""
        with self._lock:
            return self._waking.hire(most)

    def call_parked(self) -> Ring:
        """Call a parked worker for what still waits when nobody more could be hired."""
        with self._lock:
            return self._waking.rouse_parked()

    def reaped(self, slot: Slot) -> Ring:
        """The worker's task is done and its thread has left, or the slot has rested: it is idle again."""
        with self._lock:
            self._vacate(slot, _IDLE)
            self._free.rest(slot)
            return self._waking.rouse()

    def back_off(self, slot: Slot) -> Ring:
        """Its worker could not begin: what waits goes to others until it is `reaped`."""
        with self._lock:
            self._vacate(slot, _BACKING_OFF)
            return self._waking.rouse()

    def dismiss(self) -> list[Slot]:
        """Let workers leave as soon as they find nothing, and batches go; returns the parked ones, to be rung."""
        with self._lock:
            self.linger = 0.0
            self._service.let_go()
            parked = [slot for place in self.places for slot in place.parked]
            for slot in parked:
                self._waking.call(slot)
            return parked

    # ---- the worker's side: the slot's thread

    def take(self, slot: Slot) -> tuple[Job[Any] | None, Ring]:
        """The next job for `slot`, now RUNNING, perhaps with `slot.mates`; without one the slot is PARKED.

        Jobs that can't make their deadlines any more are left in `slot.late`, as FAILED.
        """
        spent, alarm = None, None
        self._acquire()
        try:
            if slot.state is not _WORKING:
                self._waking.arrive(slot)
            queue = self._queue
            if slot.ahead:
                job = self.ahead.next_for(slot)
            elif not slot.is_open:
                self._service.settle(slot)
                job = None
            elif queue.is_rich:
                job, alarm = self._service.next_for(slot, self._waking.suits)
            elif (job := queue.pop_plain()) is not None:
                job._stage = _RUNNING  # from QUEUED: the queue hands out no other
                job._where = slot
            if queue.spent:
                spent, queue.spent[:] = queue.spent[:], []
            if job is None:
                slot.job = None
                slot.state = _PARKED
                self._free.park(slot)
                if self.ahead.count and (holder := self.ahead.holder(slot)) is not None:
                    alarm = both(alarm, holder.seat.recall)
            else:
                slot.job = job
                slot.state = _WORKING
            free, waking = self._free, self._waking
            if (free.parked and not waking.calling) or (free.idle and not waking.hiring):
                ring = waking.rouse()
                return job, ring if alarm is None else both(alarm, ring)
            return job, alarm
        finally:
            self._release()
            del spent  # not under the lock: letting go of a job may run user code

    def take_ahead(self, slot: Slot) -> Job[Any] | None:
        """One more job for a slot that works, which `take` will return in its turn."""
        with self._lock:
            job = self.ahead.take(slot)
            spent, self._queue.spent[:] = self._queue.spent[:], []
        del spent
        return job

    def give_back(self, slot: Slot, jobs: Iterable[Job[Any]]) -> Ring:
        """Jobs that `slot` holds ahead, and has not begun, may go elsewhere."""
        with self._lock:
            self.ahead.give_back(slot, jobs)
            return self._waking.rouse()

    def stand_in_line(self, slot: Slot) -> Ring:
        """Another process has the slot: until its worker comes back to `take`, what waits goes to others."""
        with self._lock:
            self._waking.arrive(slot)
            self._service.settle(slot)
            slot.state, slot.job = _ELSEWHERE, None
            return self._waking.rouse()

    def leave(self, slot: Slot) -> bool:
        """A parked worker wants to go; False if it has been called in the meantime and must look again."""
        with self._lock:
            if slot.state is not _PARKED:
                return False
            self._free.claim(slot)
            slot.state = _LEAVING
            return True

    # ---- what the outside may know

    def waiting(self) -> int:
        """Jobs that wait, in the queue or ahead in a slot."""
        with self._lock:
            return self._queue.live() + self.ahead.live()

    def running(self, *, and_waiting: bool = False) -> list[Job[Any]]:
        """Jobs in slots, over for their callers or not; and if asked those that wait."""
        with self._lock:
            running = [job for slot in self.slots for job in (*slot.inside(), *slot.ahead)]
            return [*running, *(self._queue if and_waiting else ())]

    def census(self, on_their_way: Callable[[], list[Job[Any]]]) -> tuple[int, set[Job[Any]]]:
        """How many jobs wait, and those that were started: in slots, and `on_their_way` to the loop.

        At one moment: a worker posts an outcome before it takes the next job, which needs the lock.
        """
        with self._lock:
            in_slots = (job for slot in self.slots if slot.job is not None for job in slot.mates or [slot.job])
            started = {*in_slots, *on_their_way()}
            begun = {job for job in started if job._stage is not _QUEUED}  # the others are to be tried again
            return self._queue.live() + self.ahead.live(), begun

    def is_warm(self, model: Model[Any]) -> bool:
        """Whether any slot has `model` loaded."""
        return bool(self._warm(model))

    def at_rest(self) -> bool:
        """Nothing waits and no slot has a worker, but for those that wait for another process and hold nothing."""
        with self._lock:
            return not self._queue.live() and all(slot.state in _RESTING for slot in self.slots)

    def costs(self) -> list[tuple[BatchRule, Place, CostLine]]:
        """What calls cost, by function and device; read them only."""
        with self._lock:
            return list(self._accounts.costs)

    # ---- under the lock

    def _vacate(self, slot: Slot, state: SlotState) -> None:
        """The slot has no worker any more."""
        self._waking.arrive(slot)  # if it failed before it could look for work
        if slot.charge is not None:  # it failed in the middle of a call
            self._accounts.settle(slot)
        slot.state, slot.job, slot.mates = state, None, None
        self.ahead.forget(slot)

    def _admit_rich(self, job: Job[Any], patient: bool) -> Ring:
        queue, admission, free, waking = self._queue, self._admission, self._free, self._waking
        if not patient and (queue.live() >= admission.bound or admission.bounds_tenants):
            admission.check_room(job)
        if admission.predicts:
            admission.check_deadline(job)
        if not queue.is_rich:
            queue.enrich()
        alarm = self._service.push(job)
        if self.ahead.count and job._options.priority > 0:
            alarm = both(alarm, self._recall_all())
        if (free.parked and not waking.calling) or (free.idle and not waking.hiring):
            return both(alarm, waking.rouse())
        return alarm

    def _recall_all(self) -> Ring:
        """Somebody is to be served before those that are ahead."""
        ring = None
        for slot in self.slots:
            if slot.ahead:
                ring = both(ring, slot.seat.recall)
        return ring
