"""Room on a device whose memory is full. On the slots' threads."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from director._devices.device_errors import fault_of
from director._scheduler.wakeups import wake_up
from director._untrusted.objects import add_note, log_error

if TYPE_CHECKING:
    from director._jobs.model import Model
    from director._runtime.instrumentation import Instrumentation
    from director._scheduler.memory.residency import Residency
    from director._scheduler.scheduler import Scheduler
    from director._scheduler.slots import DeviceSlots, Slot, Unload

logger = logging.getLogger("director")


class Room:
    """Has models unloaded: those that the scheduler has chosen, and all that is idle where memory has run out."""

    def __init__(self, scheduler: Scheduler, residency: Residency, instrumentation: Instrumentation) -> None:
        self._scheduler = scheduler
        self._residency = residency
        self._instrumentation = instrumentation

    def unload(self, slot: Slot, unloads: list[Unload]) -> None:
        """Unload models, or put them to sleep, on the slot's thread; what these functions raise the runner logs."""
        for model, size, wanted, is_sleep in unloads:
            if model is None:
                self._free_caches(slot)
                continue
            if wanted is not None:
                self._instrumentation.evicted(model, slot.device, size, wanted)
            if is_sleep and self._put_to_sleep(model, slot):
                continue
            try:
                slot.runner.unload(model)
            except BaseException as error:  # noqa: BLE001 - of a user's runner
                log_error(logger, error, "unloading %s from %s failed", model.name, slot.device.label)
            # Known already if the runner has reported it; it must not stay charged if that raised.
            wake_up(self._scheduler.unloaded(model, slot))

    def _free_caches(self, slot: Slot) -> None:
        try:
            slot.runner.free_caches()
        except BaseException as error:  # noqa: BLE001 - of a user's runner, or a child that has died
            log_error(logger, error, "emptying the caches on %s failed", slot.device.label)

    def _put_to_sleep(self, model: Model[Any], slot: Slot) -> bool:
        """Whether it sleeps; else the runner has unloaded it, or does so next."""
        try:
            is_asleep, freed = slot.runner.sleep(model)
        except BaseException as error:  # noqa: BLE001 - of its process
            log_error(logger, error, "putting %s to sleep on %s failed", model.name, slot.device.label)
            return False
        if is_asleep:
            self._residency.remove(model, slot)
            self._instrumentation.unloaded(model, slot.device)
            wake_up(self._scheduler.slept(model, slot, freed))
        return is_asleep

    def make_for_load(self, model: Model[Any], slot: Slot, error: BaseException) -> bool:
        """A load has raised: whether it was for lack of memory, and is tried again after what is idle has left.

        For lack of memory its error gets a note with the numbers.
        """
        fault = fault_of(error)
        if fault is None or fault.kind != "memory":
            return False
        is_retried, words = self._scheduler.clear_for_load(model, slot, self._resident(slot.place, model))
        add_note(error, f"director: {words}")
        return is_retried

    def make_for_call(self, slot: Slot, name: str) -> bool:
        """A call has run out of memory: unload what is idle; whether this thread has unloaded something."""
        if slot.prefetched:  # its process has other calls to make before
            return False
        unloads, wake = self._scheduler.clear_for_call(slot, self._resident(slot.place), name)
        wake_up(wake)
        self.unload(slot, unloads)
        return bool(unloads)

    def _resident(self, place: DeviceSlots, *more: Model[Any]) -> list[tuple[Model[Any], frozenset[int]]]:
        return [(model, self._residency.resident(model)) for model in (*self._residency.on(place), *more)]
