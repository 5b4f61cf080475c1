"""Takes what the runners of one open Director report: loaded models, seconds of loads, progress of calls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from director._jobs.job import fields
from director._jobs.job_runner import JobRunner, SlotInfo

if TYPE_CHECKING:
    from collections.abc import Iterable

    from director._device import Device
    from director._jobs.job import Job
    from director._jobs.model import Model
    from director._jobs.runner import Runner
    from director._runtime.instrumentation import Instrumentation
    from director._scheduler.residency import Residency
    from director._scheduler.slots import Slot


def as_job_runner(runner: Runner | JobRunner, device: Device) -> JobRunner:
    """The runner itself, if it is one of this package's, or what gives it calls."""
    if isinstance(runner, JobRunner):
        return runner
    from director._runtime.worker_thread.call_runner import CallRunner  # few need it

    return CallRunner(runner, device)


class RunnerReports:
    """The `RunnerEvents` of one open Director. Its methods may be called on any thread.

    Args:
        instrumentation: Makes events; has the clock.
        residency: Keeps which slots have which model.
    """

    def __init__(self, instrumentation: Instrumentation, residency: Residency) -> None:
        self.time = instrumentation.time
        self._instrumentation = instrumentation
        self._residency = residency
        self._slots: dict[int, Slot] = {}  # by their numbers
        residency.is_per_slot = True

    def introduce(self, slot: Slot) -> SlotInfo:
        """On the event loop: the `SlotInfo` of a slot, which its runner passes to the methods below."""
        self._slots[slot.number] = slot
        return SlotInfo(slot.number, slot.device, slot.place.position, len(slot.place.slots))

    def share_replicas(self) -> None:
        """A replica serves all slots of its device."""
        self._residency.is_per_slot = False

    def loaded(self, model: Model[Any], slot: SlotInfo, seconds: float) -> None:
        """A replica has been loaded."""
        here = self._slots[slot.number]
        self._residency.add(model, here)
        here.note_load(seconds)
        self._instrumentation.loaded(model, slot.device, seconds)

    def not_loaded(self, model: Model[Any], slot: SlotInfo, error: BaseException) -> None:
        """A loader, or a warm-up, raised."""
        self._instrumentation.not_loaded(model, slot.device, error)

    def unloaded(self, model: Model[Any], slot: SlotInfo) -> None:
        """A replica has been unloaded."""
        self._residency.remove(model, self._slots[slot.number])
        self._instrumentation.unloaded(model, slot.device)

    def load_awaited(self, slot: SlotInfo, seconds: float) -> None:
        """A call has spent `seconds` on a load that failed or that another slot made."""
        self._slots[slot.number].note_load(seconds)

    def progressed(self, jobs: Iterable[Job[Any]], progress: Any) -> None:
        """The call of `jobs` reports."""
        for job in jobs:
            scheduled = fields(job)
            scheduled.reported = progress
            if self._instrumentation.listening:
                self._instrumentation.progressed(scheduled, progress)
