"""Takes what the runners of one open Director report: loaded models, seconds of loads, progress of calls."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from director._jobs.job import fields
from director._jobs.job_runner import JobRunner, SlotInfo
from director._scheduler.slots import SlotState
from director._scheduler.wakeups import wake_up
from director._untrusted.numbers import size_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from director._device import Device
    from director._devices.footprints import LoadSize
    from director._jobs.job import Job, ScheduledJob
    from director._jobs.model import Model
    from director._jobs.runner import Runner
    from director._runtime.devices.backoff import LoadBackoff
    from director._runtime.devices.footprint_file import FootprintFile
    from director._runtime.instrumentation import Instrumentation
    from director._runtime.worker_thread.room import Room
    from director._scheduler.memory.residency import Residency
    from director._scheduler.scheduler import Scheduler
    from director._scheduler.slots import Slot

logger = logging.getLogger("director")
_ABOUT_RIGHT = 0.9  # of what is declared


def as_job_runner(runner: Runner | JobRunner, slot: Slot, residency: Residency) -> JobRunner:
    """The runner itself, if it is one of this package's, or what gives it calls."""
    if isinstance(runner, JobRunner):
        return runner
    from director._runtime.worker_thread.call_runner import CallRunner  # few need it

    return CallRunner(runner, slot.device, lambda model: slot.number in residency.resident(model))


class RunnerReports:
    """The `RunnerEvents` of one open Director, and its `LocalSlots`. Its methods may be called on any thread."""

    def __init__(
        self,
        instrumentation: Instrumentation,
        residency: Residency,
        load_backoff: LoadBackoff,
        scheduler: Scheduler,
        room: Room,
    ) -> None:
        self.time = instrumentation.time
        self._instrumentation = instrumentation
        self._residency = residency
        self._load_backoff = load_backoff
        self._scheduler = scheduler
        self._room = room
        self._slots: dict[int, Slot] = {}  # by their numbers
        self._allocated: dict[int, int] = {}  # by these: what was left by the unload that is about to be reported
        self.witnesses: dict[tuple[str, Device], Callable[[], Any]] = {}  # the last replicas that were unloaded
        self._taken: dict[int, LoadSize] = {}  # by these: what the load took that is about to be reported
        self._compared: set[tuple[int, str]] = set()  # models and names of devices that the log has
        self.footprints: FootprintFile | None = None
        residency.is_per_slot = True

    def introduce(self, slot: Slot) -> SlotInfo:
        """On the event loop: the `SlotInfo` of a slot, which its runner passes to the methods below."""
        self._slots[slot.number] = slot
        return SlotInfo(slot.number, slot.device, slot.place.position, len(slot.place.slots))

    def share_replicas(self) -> None:
        """A replica serves all slots of its device."""
        self._residency.is_per_slot = False

    def loading(self, model: Model[Any], slot: SlotInfo) -> None:
        """A replica is being loaded."""
        self._residency.begin(model, self._slots[slot.number])

    def loaded(self, model: Model[Any], slot: SlotInfo, seconds: float) -> None:
        """A replica has been loaded."""
        here = self._slots[slot.number]
        self._residency.add(model, here)
        here.note_load(seconds)
        self._instrumentation.loaded(model, slot.device, seconds)
        taken = self._taken.pop(here.number, None)
        # Where it had failed before, the other slots of the device may take jobs of the model from now on.
        scheduler = self._scheduler
        is_used = scheduler.memory.is_used
        wake_up(scheduler.loaded(model, here, seconds, taken) if is_used else scheduler.wake_for_waiting())
        if self.footprints is not None and taken is not None:
            measured = self._scheduler.memory.models[model._key].footprints.measured(slot.device.name)
            if measured is not None:
                self.footprints.note(model.name, slot.device.name, measured)

    def is_accounted(self, model: Model[Any]) -> bool:
        """Whether the ledger knows a model."""
        return model._key in self._scheduler.memory.models

    def kept(self, model: Model[Any], slot: SlotInfo, allocated: int, replica: Callable[[], Any]) -> None:
        """An unload has left so much allocated."""
        self._allocated[slot.number] = allocated
        self.witnesses[model.name, slot.device] = replica

    def missing(self, model: Model[Any], slot: SlotInfo, freed: int | None) -> int:
        """What an unload has not given back."""
        return self._scheduler.missing(model, self._slots[slot.number], freed)

    def measured(self, model: Model[Any], slot: SlotInfo, taken: LoadSize | None) -> None:
        """What a load has taken, for the report that follows."""
        if taken is not None:
            self._taken[slot.number] = taken
            if taken.allocated is not None:
                self._compare(model, slot, taken.allocated)

    def process_ended(self, slot: SlotInfo) -> None:
        """A process is gone."""
        if self._scheduler.memory.is_used and (wake := self._scheduler.process_ended(self._slots[slot.number])):
            wake()

    def not_loaded(self, model: Model[Any], slot: SlotInfo, error: BaseException) -> None:
        """A loader, or a warm-up, raised."""
        here = self._slots[slot.number]
        if self._room.make_for_load(model, here, error):
            self._residency.remove(model, here)
        else:
            self._load_backoff.failed(model, here, error)
        self._instrumentation.not_loaded(model, slot.device, error)

    def unloading(self, model: Model[Any], slot: SlotInfo) -> None:
        """A replica is being unloaded."""
        self._residency.begin_removal(model, self._slots[slot.number])

    def unloaded(self, model: Model[Any], slot: SlotInfo, freed: int | None = None) -> None:
        """A replica has been unloaded."""
        here = self._slots[slot.number]
        if self._residency.remove(model, here):
            self._instrumentation.unloaded(model, slot.device)
        if (
            self._scheduler.memory.is_used
            and (wake := self._scheduler.unloaded(model, here, freed, self._allocated.pop(here.number, None)))
            is not None
        ):
            wake()

    def load_awaited(self, slot: SlotInfo, seconds: float) -> None:
        """A call has spent `seconds` on a load that failed or that another slot made."""
        self._slots[slot.number].note_load(seconds)

    def progressed(self, jobs: Iterable[Job[Any]], progress: Any) -> None:
        """The call of `jobs` reports."""
        for job in jobs:
            scheduled = fields(job)
            scheduled.reported = progress
            self._instrumentation.progressed(scheduled, progress)

    def _compare(self, model: Model[Any], slot: SlotInfo, measured: int) -> None:
        """Say once what a model has declared wrongly."""
        declared, key = model.memory, (model._key, slot.device.name)
        if declared is None or key in self._compared:
            return
        text = "%s declares %s of memory and takes %s on %s"
        if measured > declared:
            text += ": it is charged with what it takes. Declare more"
        elif measured >= declared * _ABOUT_RIGHT:
            return
        else:
            text += ": it is charged with what it declares. Declare less, and more models fit beside it"
        self._compared.add(key)
        logger.warning(text, model.name, size_text(declared), size_text(measured), slot.device.label)

    # ---- `LocalSlots` of director._executors.load_turns

    def pause(self, changed: Callable[[], None]) -> None:
        """Give the slots no more jobs."""
        self._scheduler.pause(changed)

    def resume(self) -> None:
        """Give the slots jobs again."""
        wake_up(self._scheduler.resume())

    def running(self) -> set[int]:
        """Numbers of the slots that are in a call."""
        return {slot.number for slot in list(self._slots.values()) if slot.state is SlotState.WORKING}


class SlotPrefetch:
    """Prefetched jobs for one slot; its worker gets them from `Scheduler.next_work` in the same order."""

    __slots__ = ("_end_returned", "_prefetch", "_scheduler", "_slot")

    def __init__(self, slot: Slot, scheduler: Scheduler, end_returned: Callable[[ScheduledJob[Any]], None]) -> None:
        self._slot = slot
        self._scheduler = scheduler
        self._end_returned = end_returned
        self._prefetch = scheduler.prefetched

    @property
    def is_short(self) -> bool:
        """Whether there is none; read without the lock, so it may be outdated."""
        return self._prefetch.is_short

    def take(self) -> ScheduledJob[Any] | None:
        """One more, if there are enough."""
        return self._scheduler.prefetch(self._slot)

    def return_prefetched(self, jobs: Iterable[ScheduledJob[Any]]) -> None:
        """Put jobs that have not begun back into the queue."""
        jobs = list(jobs)
        wake_up(self._scheduler.return_prefetched(self._slot, jobs))
        if self._scheduler.is_shut:
            for job in jobs:
                self._end_returned(job)
