"""Loads on a device that other processes use too: one at a time in all of them.

Each process has replicas of its own and knows nothing of the others' reservations. So two loads at once could both find
the last room free, and both fail; in turn, the second one finds what the first has left.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from director._executors.base import NeverStarted
from director._executors.load_turns import turns
from director._runtime.worker_thread.call_hooks import HookedRunner

if TYPE_CHECKING:
    from director._executors.load_turns import LocalSlots
    from director._ipc.sharing.lock_file import LockFile
    from director._jobs.job import ScheduledJob
    from director._jobs.job_runner import JobRunner, SlotInfo
    from director._scheduler.memory.residency import Residency


class SharedLoadRunner(HookedRunner):
    """A runner that holds the lock of its device while it loads a model; for the rest as the runner itself.

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
