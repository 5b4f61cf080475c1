"""Devices on which a model could not be loaded back off for that model, longer each time, and are then tried again.

A device may lack memory, or a file, that others have. Its slot fails the load and is free again at once, so without
back-off it would take job after job of that model and fail each, while other devices serve. Nothing of such a job has
run, so it returns to the queue. It fails with the loader's error when no device is left that has the model or may load
it: `Scheduler.fail_unloadable`, `Scheduler.can_load`.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any

from director._untrusted.objects import describe

if TYPE_CHECKING:
    from director._jobs.model import Model
    from director._runtime.devices.health import HealthRegistry
    from director._runtime.loop_channel import LoopChannel
    from director._scheduler.memory.residency import Residency
    from director._scheduler.scheduler import Scheduler
    from director._scheduler.slots import DeviceSlots, Slot
    from director._system.clock import Clock, Timer

logger = logging.getLogger("director")


class LoadBackoff:
    """Backs off devices on which a model could not be loaded. `failed` is for any thread, the rest for the event loop.

    Args:
        residency: Keeps the states of replicas.
        scheduler: Told when a device may be tried again.
        loop_channel: Calls on the event loop from the slots' threads.
        registry: Counts failed loads of devices.
        clock: Makes the timers.
    """

    def __init__(
        self,
        residency: Residency,
        scheduler: Scheduler,
        loop_channel: LoopChannel,
        registry: HealthRegistry,
        clock: Clock,
    ) -> None:
        self._residency = residency
        self._scheduler = scheduler
        self._loop_channel = loop_channel
        self._registry = registry
        self._clock = clock
        self._timers: dict[float, Timer] = {}  # by the number of the back-off
        self._count = 0
        self._is_over = False

    def failed(self, model: Model[Any], slot: Slot, error: BaseException) -> None:
        """From any thread: the load of `model` by `slot` has raised `error`."""
        delay, until = self._residency.fail(model, slot, self._clock.time())
        self._loop_channel.call(self._wait, model._kept(), slot.place, delay, until, describe(error))

    def stop(self) -> None:
        """The Director closes: try nothing again."""
        self._is_over = True
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _wait(self, model: Model[Any], place: DeviceSlots, delay: float, until: float, error: str) -> None:
        if self._is_over:
            return
        if len(self._scheduler.places) > 1:  # else the callers have the error
            words = "loading %s on %s failed; for %g s its jobs go to other devices, if there are any: %s"
            logger.warning(words, model.name, place.device.label, delay, error)
        self._count = number = self._count + 1
        self._timers[number] = self._clock.call_later(delay, partial(self._end, number, model, place, until))
        if self._residency.resident(model) - {slot.number for slot in place.slots}:  # the fault is not the loader's
            self._registry.load_failed(place, model.name)

    def _end(self, number: int, model: Model[Any], place: DeviceSlots, until: float) -> None:
        del self._timers[number]
        self._residency.end_backoff(model, place, until)
        wake = self._scheduler.wake_for_waiting()
        if wake is not None:
            wake()
