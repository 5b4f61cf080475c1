"""The decision: which job runs on which slot. The only writer of queue and slot state, behind one short lock.

Called by the Director on the event loop (a job arrived, a worker was reaped) and by each slot's thread at the end of a
job, so between two jobs of a device there is no hop through the loop. User code, the loop and callbacks are never
called under the lock: what has to happen outside comes back as a `Ring` for the caller to call.

Waking is chained: at most one parked worker is on its way at a time, and when it takes its job it calls the next one
while work is left. That costs a burst one wake-up instead of one for each slot, and a lone job nothing.
"""

from __future__ import annotations

import math
import threading
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from director._core.placement import FreeSlots
from director._core.queue import ReadyQueue
from director._core.states import JobState, SlotState
from director.errors import DirectorClosed, QueueFull

if TYPE_CHECKING:
    from collections.abc import Callable

    from director._core.job import Job
    from director._core.queue import Lane
    from director._core.slot import Place, Slot
    from director._models import Model

Ring: TypeAlias = "Callable[[], None] | None"

_QUEUED, _RUNNING = JobState.QUEUED, JobState.RUNNING
_IDLE, _HIRED, _WORKING = SlotState.IDLE, SlotState.HIRED, SlotState.WORKING
_PARKED, _CALLED, _LEAVING = SlotState.PARKED, SlotState.CALLED, SlotState.LEAVING
_LINGER = 0.1  # seconds a worker stays parked before it leaves: long against a wake-up, short against a rest
_NOWHERE: frozenset[int] = frozenset()


class Dispatch:
    """Ready queue and slots of one running Director.

    Args:
        places: The devices with their slots, all idle.
        max_queue: Most jobs that wait; `None` for no bound.
        warm: Tells the numbers of the slots on which a model is loaded.
        call_director: Thread-safe; asks the Director coroutine to `hire`.

    Invariants, checked by `tests/core`: a slot has a job exactly while WORKING; `_free` holds exactly the IDLE and
    PARKED slots; a job that waits while a slot that may run it is free has a worker on its way.
    """

    def __init__(
        self,
        places: list[Place],
        max_queue: int | None,
        warm: Callable[[Model[Any]], frozenset[int]],
        call_director: Callable[[], None],
    ) -> None:
        self.places = places
        self.slots = [slot for place in places for slot in place.slots]
        self.linger = _LINGER
        self._lock = threading.Lock()
        self._acquire, self._release = self._lock.acquire, self._lock.release  # half the cost of `with`, for each job
        self._max_queue = math.inf if max_queue is None else max_queue
        self._warm = warm
        self._call_director = call_director
        self._queue = ReadyQueue()
        self._free = FreeSlots(places)
        self._coming: dict[Slot, None] = {}  # HIRED and CALLED: on their way to look for work
        self._is_shut = False
        self._calling = False  # one parked worker is on its way
        self._hiring = False  # the Director coroutine has been asked and has not looked yet

    # ---- the Director's side: event loop (and threads, for `admit`)

    def admit(self, job: Job[Any], patient: bool) -> Ring:
        """Queue a job.

        Args:
            job: A new one.
            patient: Its caller can wait, so it stands in the queue though that is full, in the same order of service.

        Raises:
            QueueFull: There is no room and the caller can't wait.
            DirectorClosed: It is shut.
        """
        self._acquire()
        try:
            if self._is_shut:  # a submission from another thread can meet the close
                raise DirectorClosed("closed")
            queue = self._queue
            key = job._options.lane
            lane = queue.plain if key is None else queue.lane(key)
            if not patient and (lane.live >= self._max_queue or queue.others):
                self._check_room(job)
            lane.push(job)
            free = self._free
            if (free.parked and not self._calling) or (free.idle and not self._hiring):
                return self._rouse()
            return None  # all are busy or on their way: the usual case under load
        finally:
            self._release()

    def withdraw(self, job: Job[Any], state: JobState) -> bool:
        """Move a job that waits to `state`, so that it never runs; False if it doesn't wait any more."""
        with self._lock:
            if job._stage is not _QUEUED:
                return False
            job._move(state)
            cast("Lane", job._where).bury()
            spent, self._queue.spent[:] = self._queue.spent[:], []
        del spent  # outside of the lock: this may run user code
        return True

    def withdraw_all(self, state: JobState, model: Model[Any] | None = None) -> list[Job[Any]]:
        """Move every job that waits (for `model`, if given) to `state` and return them in order of arrival."""
        with self._lock:
            jobs = [job for job in self._queue if model is None or job._options.model is model]
            for job in jobs:
                job._move(state)
                cast("Lane", job._where).bury()
            spent, self._queue.spent[:] = self._queue.spent[:], []
        del spent
        return sorted(jobs, key=lambda job: job.id)

    def shut(self) -> None:
        """Admit nothing more."""
        with self._lock:
            self._is_shut = True

    def hire(self, most: int) -> list[Slot]:
        """Slots that need a worker for what waits, at most `most`; each becomes HIRED."""
        with self._lock:
            self._hiring = False
            hired: list[Slot] = []
            coming = dict(self._coming)
            for lane in self._queue.in_order():
                short = lane.live - _subtract(coming, lane)
                while short > 0 and len(hired) < most and (slot := self._pick(lane, only=_IDLE)):
                    if not self._suits(lane, slot):
                        break
                    self._free.claim(slot)
                    slot.state = _HIRED
                    self._coming[slot] = None
                    hired.append(slot)
                    short -= 1
            if len(hired) == most:
                self._hiring = True  # the coroutine goes on by itself
            return hired

    def call_parked(self) -> Ring:
        """Call a parked worker for what still waits when nobody more could be hired."""
        with self._lock:
            for lane in self._queue.in_order():
                slot = self._pick(lane, only=_PARKED)
                if slot is not None and not self._calling and self._suits(lane, slot):
                    return self._send(slot)
            return None

    def reaped(self, slot: Slot) -> Ring:
        """The worker's task is done and its thread has left: the slot is idle again."""
        with self._lock:
            if slot in self._coming:  # it failed before it could look for work
                self._arrive(slot)
            slot.state, slot.job = _IDLE, None
            self._free.rest(slot)
            return self._rouse()

    def dismiss(self) -> list[Slot]:
        """Let workers leave as soon as they find nothing; returns the parked ones, to be rung."""
        with self._lock:
            self.linger = 0.0
            parked = [slot for place in self.places for slot in place.parked]
            for slot in parked:
                self._call(slot)
            return parked

    # ---- the worker's side: the slot's thread

    def take(self, slot: Slot) -> tuple[Job[Any] | None, Ring]:
        """The next job for `slot`, now RUNNING; without one the slot is PARKED."""
        spent = None
        self._acquire()
        try:
            if slot.state is not _WORKING:
                self._arrive(slot)
            queue = self._queue
            job = queue.pop(self._suits, slot) if queue.others else queue.plain.pop()
            if queue.spent:
                spent, queue.spent[:] = queue.spent[:], []
            if job is None:
                slot.job = None
                slot.state = _PARKED
                self._free.park(slot)
            else:
                job._stage = _RUNNING  # from QUEUED: the queue hands out no other
                job._where = slot
                slot.job = job
                slot.state = _WORKING
            free = self._free
            if (free.parked and not self._calling) or (free.idle and not self._hiring):
                return job, self._rouse()
            return job, None
        finally:
            self._release()
            del spent  # not under the lock: letting go of a job may run user code

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
        """Jobs that wait."""
        with self._lock:
            return self._queue.live()

    def running(self) -> list[Job[Any]]:
        """Jobs in slots, over for their callers or not."""
        with self._lock:
            return [slot.job for slot in self.slots if slot.job is not None]

    def is_warm(self, model: Model[Any]) -> bool:
        """Whether any slot has `model` loaded."""
        return bool(self._warm(model))

    def at_rest(self) -> bool:
        """Nothing waits and no slot has a worker."""
        with self._lock:
            return not self._queue.live() and all(slot.state is _IDLE for slot in self.slots)

    # ---- under the lock

    def _arrive(self, slot: Slot) -> None:
        """A worker that was on its way looks for work."""
        del self._coming[slot]
        if slot.state is _CALLED:
            self._calling = False

    def _rouse(self) -> Ring:
        """Whom to call for the work that waits; marks him called."""
        for lane in self._queue.in_order():
            slot = self._pick(lane)
            if slot is not None and slot.state is _IDLE:
                if not self._hiring:
                    self._hiring = True
                    return self._call_director
                slot = self._pick(lane, only=_PARKED)  # the coroutine is on its way; a parked worker may be sooner
            # Not a slot that would find nothing better to do than to park again, and be called again.
            if slot is not None and not self._calling and self._suits(lane, slot):
                return self._send(slot)
        return None

    def _send(self, slot: Slot) -> Ring:
        self._calling = True
        self._call(slot)
        return slot.ring

    def _call(self, slot: Slot) -> None:
        self._free.claim(slot)
        slot.state = _CALLED
        self._coming[slot] = None

    def _pick(self, lane: Lane, only: SlotState | None = None) -> Slot | None:
        if lane.key is None:
            return self._free.pick(only=only)
        warm = _NOWHERE if lane.model is None else self._warm(lane.model)
        return self._free.pick(lane.allowed, warm, only)

    def _suits(self, lane: Lane, slot: Slot) -> bool:
        """Whether `slot` should serve `lane`: it may, and no free slot has the model loaded when this one has not."""
        if lane.key is None:
            return True
        if lane.allowed is not None and slot.number not in lane.allowed:
            return False
        if lane.model is None:
            return True
        warm = self._warm(lane.model)
        if not warm or slot.number in warm:
            return True
        better = warm if lane.allowed is None else warm & lane.allowed
        return not any(self.slots[n].state is not _WORKING and self.slots[n].state is not _LEAVING for n in better)

    def _check_room(self, job: Job[Any]) -> None:
        """Refuse `job` if it would be one too many; what free slots are about to take does not count as waiting."""
        allowed = job._options.allowed
        free = sum(
            slot.state in (_IDLE, _PARKED) and (allowed is None or slot.number in allowed) for slot in self.slots
        )
        waiting = self._queue.live() - free - len(self._coming)
        if waiting >= self._max_queue:
            raise QueueFull(int(self._max_queue), waiting, self._drain_seconds(waiting))

    def _drain_seconds(self, waiting: int) -> float | None:
        """Seconds that so many jobs need at the measured pace of the slots."""
        rate = sum(slot.jobs / slot.busy_seconds for slot in self.slots if slot.busy_seconds)
        return waiting / rate if rate else None


def _subtract(coming: dict[Slot, None], lane: Lane) -> int:
    """Take from `coming` the slots that will serve `lane`; returns how many."""
    serving = [slot for slot in coming if lane.allowed is None or slot.number in lane.allowed][: lane.live]
    for slot in serving:
        del coming[slot]
    return len(serving)
