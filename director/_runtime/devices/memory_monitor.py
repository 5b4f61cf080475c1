"""Samples the free memory of devices once a second, from the first model that is accounted for on. On the event loop.

NVML may hang for ever when a GPU dies, so it is called on a daemon thread for each device, off the event loop and off
the scheduler's lock, and a device whose answer is overdue is sampled no more: its loads go by the ledger alone.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any

from director._devices.footprints import allocation, is_metered, read_free
from director._scheduler.memory.observed import Leak
from director._scheduler.wakeups import wake_up
from director._system.threads import DaemonThreadExecutor
from director._untrusted.numbers import size_text
from director._untrusted.objects import holders_of
from director.errors import DiscoveryError, PlacementError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from concurrent.futures import Future

    from director._device import Device
    from director._devices.health.rules import HealthRules
    from director._runtime.instrumentation import Instrumentation
    from director._runtime.job_lifecycle import JobLifecycle
    from director._runtime.loop_channel import LoopChannel
    from director._scheduler.memory.observed import Reading, Veto
    from director._scheduler.scheduler import Scheduler
    from director._scheduler.slots import DeviceSlots
    from director._system.clock import Clock, Timer

logger = logging.getLogger("director")
_EVERY = 1.0  # seconds between two samples
_OVERDUE = 10.0  # seconds for an answer
_AGAIN = 0.25  # seconds between two looks whether memory is back
_PATIENCE = 60.0  # seconds for which a load is vetoed, with nothing of ours running there, until its jobs fail


class MemoryMonitor:
    """The samplers of all devices whose free memory can be read here.

    Args:
        scheduler: Told what is free.
        job_lifecycle: Ends the jobs whose loads are vetoed for too long.
        loop_channel: Brings the samples to the event loop.
        instrumentation: Takes events.
        clock: Makes the timers.
        rules: Say whether NVML is used.
        witnesses: Return the replicas that were unloaded last, by model and device, while something refers to them.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        job_lifecycle: JobLifecycle,
        loop_channel: LoopChannel,
        instrumentation: Instrumentation,
        clock: Clock,
        rules: HealthRules,
        witnesses: Mapping[tuple[str, Device], Callable[[], Any]],
    ) -> None:
        self._witnesses = witnesses
        self._scheduler = scheduler
        self._job_lifecycle = job_lifecycle
        self._loop_channel = loop_channel
        self._instrumentation = instrumentation
        self._clock = clock
        self._is_running = self._is_over = False
        self._readers: dict[DeviceSlots, DaemonThreadExecutor] = {}
        self._asked: dict[DeviceSlots, float] = {}  # when a sample was asked for that is not here yet
        self._timer: Timer | None = None
        self._return_timer: Timer | None = None
        for place in scheduler.places:
            if is_metered(place.device) and (rules.interval is not None or place.device.kind == "simulated"):
                scheduler.memory.devices[place].is_metered = True
                self._readers[place] = DaemonThreadExecutor(f"director:memory {place.device.label}")

    def run(self) -> None:
        """Begin to sample, if a model is accounted for and there is a device to sample."""
        if self._readers and self._scheduler.memory.is_used and not self._is_running and not self._is_over:
            self._is_running = True
            self._sample_all()

    def await_returns(self) -> None:
        """Look after a moment, and again, whether the memory of models that were unloaded is back."""
        is_expected = any(here.returning for here in self._scheduler.memory.devices.values())
        if is_expected and self._return_timer is None and not self._is_over:
            self._return_timer = self._clock.call_later(_AGAIN, self._check_returns)

    def _check_returns(self) -> None:
        self._return_timer = None
        for place, here in list(self._scheduler.memory.devices.items()):
            if here.returning:
                told, leaks = allocation(place.device), list[Leak]()
                wake = self._scheduler.note_allocated(place, None if told is None else told.allocated, leaks)
                for leak in leaks:
                    _warn(leak, place.device, self._witnesses.get((leak.model, place.device)))
                wake_up(wake)
        self.await_returns()

    def stop(self) -> None:
        """Sample no more; threads that hang are abandoned."""
        self._is_over = True
        for timer in (self._timer, self._return_timer):
            if timer is not None:
                timer.cancel()
        for reader in self._readers.values():
            reader.shutdown(wait=False)

    def _sample_all(self) -> None:
        self._timer = self._clock.call_later(_EVERY, self._sample_all)
        now = self._clock.time()
        for place in list(self._readers):
            asked = self._asked.get(place)
            if asked is None:
                self._sample(place)
            elif now >= asked + _OVERDUE:
                self._lose(place, f"NVML has not answered for {_OVERDUE:g} s")

    def _sample(self, place: DeviceSlots) -> None:
        if place.device.kind == "simulated":  # it answers at once
            self._take(place, _read(place.device))
            return
        self._asked[place] = self._clock.time()
        try:
            future = self._readers[place].submit(_read, place.device)
        except (RuntimeError, MemoryError):  # no thread can be started now: tried again later
            del self._asked[place]
            return
        future.add_done_callback(lambda done: self._loop_channel.call(self._take_answer, place, done))

    def _take_answer(self, place: DeviceSlots, answer: Future[Reading | None]) -> None:
        if self._is_over or self._asked.pop(place, None) is None or place not in self._readers:
            return
        self._take(place, answer.result())

    def _take(self, place: DeviceSlots, reading: Reading | None) -> None:
        if reading is None:
            self._lose(place, "NVML does not tell it")
            return
        wake_up(self._scheduler.note_sample(place, reading))
        if vetoes := [*self._scheduler.memory.devices[place].vetoes.values()]:
            self._report(place, vetoes)

    def _report(self, place: DeviceSlots, vetoes: list[Veto]) -> None:
        for veto in vetoes:
            if not veto.is_told and veto.samples > 1:  # since the first, our own caches have been emptied
                veto.is_told = True
                self._instrumentation.vetoed(veto.model, place.device, veto.needed, veto.free)
        before = self._clock.time() - _PATIENCE
        if (late := next((veto for veto in vetoes if veto.since <= before), None)) is not None:
            error = partial(_error, place.device, late)
            self._job_lifecycle.endings.withdraw(
                lambda jobs: self._scheduler.fail_vetoed(jobs, place, before),
                lambda job: self._job_lifecycle.end_failed(job, error()),
            )

    def _lose(self, place: DeviceSlots, reason: str) -> None:
        logger.warning(
            "%s: the free memory can't be read (%s): its models are loaded by what they declare, whatever others use",
            place.device.label,
            reason,
        )
        self._readers.pop(place).shutdown(wait=False)
        self._asked.pop(place, None)
        wake_up(self._scheduler.note_sample(place, None))


def _warn(leak: Leak, device: Device, witness: Callable[[], Any] | None) -> None:
    """Say what did not come back, and who has it."""
    text = "%s was unloaded from %s, and %s of its %s did not come back: it stays reserved%s"
    replica = None if witness is None else witness()
    holders = "" if replica is None else f". Its replica is held by {', '.join(holders_of(replica))}"
    logger.warning(text, leak.model, device.label, size_text(leak.bytes), size_text(leak.size), holders)


def _read(device: Device) -> Reading | None:
    """The free memory of a device, its total, and the pool of this process."""
    try:
        free, own = read_free(device), allocation(device)
    except DiscoveryError:
        return None
    except Exception:
        logger.exception("the free memory of %s can't be read", device.label)
        return None
    return None if free is None else (*free, None if own is None else own.pool)


def _error(device: Device, veto: Veto) -> PlacementError:
    return PlacementError(
        f"loading {veto.model} needs {size_text(veto.needed)} of the memory of {device.label}, where others leave "
        f"{size_text(veto.free)} free since {_PATIENCE:g} s and nothing of this Director runs. End what uses the "
        "device, or use another one"
    )
