"""Slots that other processes use too: taking jobs for them, and loading models.

`Scheduler.next_work` binds a job to a slot, so the worker acquires the slot's lock first. While another process has it,
other slots take what waits, and the worker waits for the file lock, on its own thread.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from director._executors.base import NeverStarted
from director._executors.load_turns import turns
from director._runtime.worker_thread.call_hooks import HookedRunner
from director._scheduler.wakeups import wake_up

if TYPE_CHECKING:
    from collections.abc import Callable

    from director._executors.load_turns import LocalSlots
    from director._ipc.sharing.lock_file import LockFile
    from director._ipc.sharing.slot_lock import SlotLock
    from director._jobs.job import ScheduledJob
    from director._jobs.job_runner import JobRunner, SlotInfo
    from director._scheduler.memory.residency import Residency
    from director._scheduler.scheduler import Scheduler
    from director._scheduler.slots import Slot
    from director._scheduler.wakeups import WakeCall

_TIME_SLICE = 0.005  # real seconds that a process keeps a slot while others wait: a change takes about 0.1 ms


class SharedSlotGuard:
    """`Scheduler.next_work` for a shared slot: holds its lock from before a job is taken until the worker parks.

    Args:
        slot_lock: The lock of the slot.
        scheduler: Gives the jobs.
        note_wait: Called before a wait.
        before_wait: Called before a wait too, after what waits was offered to other slots.
    """

    def __init__(
        self, slot_lock: SlotLock, scheduler: Scheduler, note_wait: Callable[[], None], before_wait: Callable[[], None]
    ) -> None:
        self._slot_lock = slot_lock
        self._scheduler = scheduler
        self._note_wait = note_wait
        self._before_wait = before_wait
        self._since = 0.0

    def take(self, slot: Slot) -> tuple[Any, WakeCall]:
        """As `Scheduler.next_work`; blocks while another process has the slot.

        Raises:
            NeverStarted: The slot's files can't be locked, and no job was taken.
        """
        try:
            self._enter(slot)
        except OSError as error:
            self._before_wait()  # has what was posted delivered
            raise NeverStarted(slot.device, f"the lock of a shared slot failed: {error}") from error
        taken, wake = self._scheduler.next_work(slot)
        if taken is None:
            self._slot_lock.leave()  # a parked worker must not hold it
        return taken, wake

    def _enter(self, slot: Slot) -> None:
        if self._slot_lock.is_mine:
            if self._is_over():
                self._slot_lock.leave()
                self._wait(slot)
        elif self._slot_lock.try_enter():
            self._since = time.monotonic()
        else:
            self._wait(slot)

    def _is_over(self) -> bool:
        """Whether to release the slot before the next job: its time is up, and other processes and own jobs wait."""
        now = time.monotonic()
        if now - self._since < _TIME_SLICE:
            return False
        self._since = now
        return self._slot_lock.is_wanted() and self._scheduler.waiting() > 0

    def _wait(self, slot: Slot) -> None:
        self._note_wait()
        wake_up(self._scheduler.wait_for_shared_slot(slot))
        self._before_wait()
        self._slot_lock.enter()
        self._since = time.monotonic()


class SharedLoadRunner(HookedRunner):
    """A runner that holds the lock of its device while it loads a model; for the rest as the runner itself.

    Each process has replicas of its own and knows nothing of the others' reservations. So two loads at once could both
    find the last room free, and both fail; in turn, the second one finds what the first has left.

    Args:
        runner: The slot's.
        slot: The slot.
        lock: Of the device, for loads; this object's own.
        residency: Knows what is resident.
        director: The slots of this Director: one that waits for the lock is in a call that does nothing.
    """

    def __init__(
        self, runner: JobRunner, slot: SlotInfo, lock: LockFile, residency: Residency, director: LocalSlots
    ) -> None:
        super().__init__(runner, ())
        self._slot = slot
        self._lock = lock
        self._residency = residency
        self._director = director

    def run(self, job: ScheduledJob[Any]) -> Any:
        """As the runner does; the model is loaded."""
        return self._runner.run(job)

    def run_batch(self, jobs: list[ScheduledJob[Any]]) -> Any:
        """The same."""
        return self._runner.run_batch(jobs)

    def prepare(self, jobs: list[ScheduledJob[Any]]) -> None:
        """As the runner does, while no other process loads on the device.

        Raises:
            NeverStarted: The file can't be locked.
        """
        model = jobs[0].options.model
        if model is None or self._slot.number in self._residency.resident(model):
            self._runner.prepare(jobs)
            return
        try:
            with turns.rest(self._director, self._slot):
                self._lock.lock()
        except OSError as error:
            device = self._slot.device
            raise NeverStarted(device, f"the lock of a shared device failed: {error}") from error
        try:
            self._runner.prepare(jobs)
        finally:
            self._lock.unlock()
