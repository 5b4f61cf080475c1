"""Monitors the devices: takes reports of NVML and of lost workers, and runs probes. On the event loop."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any, TypeVar

from director._devices.health.rules import HEALTH_MOVES, Health
from director._scheduler.slots import Slot, SlotState
from director._scheduler.wakeups import wake_up
from director._system.threads import DaemonThreadExecutor
from director._untrusted.objects import attribute_of
from director.errors import DeviceLost, WorkerDied

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVarTuple

    from director._device import Device
    from director._devices.health.diagnosis import Verdict
    from director._devices.health.rules import HealthRules
    from director._jobs.job import ScheduledJob
    from director._runtime.instrumentation import Instrumentation
    from director._runtime.job_lifecycle import JobLifecycle
    from director._runtime.loop_channel import LoopChannel
    from director._scheduler.scheduler import Scheduler
    from director._scheduler.slots import DeviceSlots
    from director._system.clock import Clock

    Ts = TypeVarTuple("Ts")
    from collections.abc import Awaitable

    from director._system.clock import Timer

T = TypeVar("T")
logger = logging.getLogger("director")


class HealthMonitor:
    """Passes reports of faults to the `HealthRegistry`, which decides."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        rules: HealthRules,
        scheduler: Scheduler,
        job_lifecycle: JobLifecycle,
        loop_channel: LoopChannel,
        instrumentation: Instrumentation,
        clock: Clock,
    ) -> None:
        self._loop = loop
        self._rules = rules
        self._places = {place.device.uuid: place for place in scheduler.places}
        self.registry = HealthRegistry(
            scheduler.places, rules, scheduler, job_lifecycle, instrumentation, clock, self._probe
        )
        # Not with the package: a fifth of its import is what speaks to NVML.
        from director._devices.health.nvml_watch import NvmlWatch

        devices = [place.device for place in scheduler.places if place.device.node is None]
        self._watch = NvmlWatch(devices, lambda verdict: loop_channel.call(self._take_verdict, verdict), rules)

    def start(self) -> None:
        """Watch the GPUs, if there are any."""
        self._watch.start()

    def quarantine(self, slot: Slot, reason: str) -> None:
        """The CUDA context of a device is broken in this process, permanently."""
        self.registry.quarantine(slot.place, f"{reason}. This process can't use it any more: restart it", for_good=True)

    def adopt(self, place: DeviceSlots) -> None:
        """A device of a fleet has joined; NVML does not watch it here."""
        self._places[place.device.uuid] = place
        self.registry.join(place)

    def stop(self) -> None:
        """Stop watching and probing."""
        self._watch.stop()
        self.registry.stop()

    async def join(self) -> None:
        """Wait up to 0.25 s for the threads that watch."""
        if self._watch.is_running:
            with suppress(RuntimeError):  # no thread can be started to wait on
                await self._off_loop("director:watch ends", self._watch.join, 0.25)

    def _take_verdict(self, verdict: Verdict) -> None:
        place = self._places[verdict.uuid]
        if verdict.kind == "lost":
            self.registry.quarantine(place, verdict.reason)
        elif verdict.kind == "degraded":
            logger.warning("%s is degraded: %s", place.device.label, verdict.reason)

    def note_loss(self, job: ScheduledJob[Any], error: BaseException) -> None:
        """A job has lost its worker or its device."""
        if isinstance(job.location, Slot):
            life = attribute_of(error, "_life") if type(error) is WorkerDied else object()
            self.registry.worker_lost(job.location.place, job, life)

    async def _probe(self, device: Device) -> str | None:
        if device.node is not None and self._rules.probe is None:
            return None  # of another machine: it can't be probed from here; its next worker is a new process
        from director._devices.health.probe import probe

        return await self._off_loop(f"director:probe {device.label}", probe, device, self._rules)

    async def _off_loop(self, name: str, call: Callable[[*Ts], T], *args: *Ts) -> T:
        """Call on a new thread that is not joined at exit."""
        thread = DaemonThreadExecutor(name)
        is_over = False
        try:
            value = await self._loop.run_in_executor(thread, call, *args)
            is_over = True
            return value
        finally:
            thread.shutdown(wait=is_over)  # joined if the call has returned, else abandoned


class DeviceHealth:
    """The health of one device."""

    __slots__ = ("failed_probes", "health", "jobs", "lives", "reason", "returned", "suspended", "timer")

    def __init__(self) -> None:
        self.health = Health.HEALTHY
        self.reason: str | None = None
        self.lives: set[object] = set()  # workers lost in a row
        self.jobs: set[int] = set()  # jobs lost with them
        self.returned = 0  # jobs that had returned on the device at the last of these losses
        self.failed_probes = 0  # failed in a row
        self.timer: Timer | None = None
        self.suspended: str | None = None  # why no worker can be started on it


class HealthRegistry:
    """Puts devices into quarantine and restores them."""

    def __init__(
        self,
        places: list[DeviceSlots],
        rules: HealthRules,
        scheduler: Scheduler,
        job_lifecycle: JobLifecycle,
        instrumentation: Instrumentation,
        clock: Clock,
        probe: Callable[[Device], Awaitable[str | None]],
    ) -> None:
        self._devices = {place: DeviceHealth() for place in places}
        self._rules = rules
        self._scheduler = scheduler
        self._job_lifecycle = job_lifecycle
        self._instrumentation = instrumentation
        self._clock = clock
        self._probe = probe
        self._probes: set[asyncio.Task[None]] = set()
        self._failures = count(-1, -1)  # negative: no job has these numbers

    def join(self, place: DeviceSlots) -> None:
        """A device has joined."""
        self._devices[place] = DeviceHealth()

    def health(self, place: DeviceSlots) -> tuple[Health, str | None]:
        """The health of a device, and why it gets no work, if so."""
        status = self._devices[place]
        if status.health is not Health.HEALTHY or status.suspended is None:
            return status.health, status.reason
        return Health.QUARANTINED if _backs_off(place) else Health.PROBATION, status.suspended

    @property
    def any_healthy(self) -> bool:
        """Whether a slot can compute: its device gets work, and no call holds it whose jobs have ended; any thread."""
        return any(
            status.health is Health.HEALTHY
            and not _backs_off(place)
            and not all(slot.is_abandoned for slot in place.slots)
            for place, status in list(self._devices.items())
        )

    def suspend(self, place: DeviceSlots, reason: str) -> None:
        """No worker can be started on a device: it gets single jobs only, to find out whether that has changed."""
        status = self._devices[place]
        is_news, status.suspended = status.suspended is None, reason
        if is_news and status.health is Health.HEALTHY:
            logger.error("%s gets no work while no worker can be started there: %s", place.device.label, reason)
            self._instrumentation.quarantined(place.device, reason)

    def resume(self, place: DeviceSlots) -> None:
        """A worker has been started on a device."""
        status = self._devices[place]
        if status.suspended is None:
            return
        status.suspended = None
        if status.health is Health.HEALTHY:
            self._report_restored(place)

    def worker_lost(self, place: DeviceSlots, job: ScheduledJob[Any], life: object) -> None:
        """A job has lost its worker. Several workers lost in a row make a quarantine.

        A worker counts once, however many jobs are lost with it, and a job counts once, however often it is retried.

        Args:
            place: The device.
            job: The job.
            life: Identifies the worker: the same object for all jobs lost with it.
        """
        self._count_loss(place, job.id, life)

    def worker_failed(self, place: DeviceSlots) -> None:
        """A worker has failed outside of any call; each counts as the loss of another job."""
        self._count_loss(place, next(self._failures), object())

    def load_failed(self, place: DeviceSlots, model: str) -> None:
        """A model that another device has could not be loaded on this one; counts as the loss of a worker."""
        self._count_loss(place, next(self._failures), object(), f"the last could not load {model}")

    def _count_loss(self, place: DeviceSlots, loss: int, life: object, detail: str = "") -> None:
        status = self._devices[place]
        returned = sum(slot.jobs - slot.lost for slot in place.slots)
        if returned > status.returned:
            status.lives.clear()
            status.jobs.clear()
        status.returned = returned
        if life not in status.lives and loss not in status.jobs:
            status.lives.add(life)
        status.jobs.add(loss)
        if len(status.lives) >= self._rules.failures:
            what = "jobs in a row have lost their workers on it"
            if detail:
                what = f"workers in a row were lost or could not load a model on it; {detail}"
            self.quarantine(place, f"{len(status.lives)} {what}")

    def quarantine(self, place: DeviceSlots, reason: str, for_good: bool = False) -> None:
        """Give a device no more work; `for_good`: this process can't use it any more, so it is not probed."""
        status = self._devices[place]
        if status.health is not Health.HEALTHY:
            return
        self._move(status, Health.QUARANTINED, reason)
        status.suspended = None
        logger.error("%s gets no more work: %s", place.device.label, reason)
        self._job_lifecycle.endings.withdraw(
            partial(self._scheduler.close, place=place),
            lambda job: self._job_lifecycle.end_failed(job, DeviceLost(place.device)),
        )
        wake_up(self._scheduler.wake_for_waiting())
        self._instrumentation.quarantined(place.device, reason)
        if not for_good:
            self._wait(place, status)

    def stop(self) -> None:
        """Stop probing."""
        for status in self._devices.values():
            if status.timer is not None:
                status.timer.cancel()
        for task in self._probes:
            task.cancel()

    def _wait(self, place: DeviceSlots, status: DeviceHealth) -> None:
        delay = self._rules.delay(status.failed_probes)
        status.timer = self._clock.call_later(delay, partial(self._begin_probation, place, status))

    def _begin_probation(self, place: DeviceSlots, status: DeviceHealth) -> None:
        status.timer = None
        self._move(status, Health.PROBATION, status.reason)
        task = asyncio.get_running_loop().create_task(self._examine(place, status), name="director:probe")
        self._probes.add(task)
        task.add_done_callback(self._probes.discard)

    async def _examine(self, place: DeviceSlots, status: DeviceHealth) -> None:
        try:
            wrong = await self._probe(place.device)
        except Exception as error:  # noqa: BLE001 - a probe that raises has failed
            wrong = f"the probe failed: {error!r}"
        if wrong is None:
            self._restore(place, status)
            return
        status.failed_probes += 1
        self._move(status, Health.QUARANTINED, wrong)
        logger.warning("%s stays in quarantine: %s", place.device.label, wrong)
        self._wait(place, status)

    def _restore(self, place: DeviceSlots, status: DeviceHealth) -> None:
        self._move(status, Health.HEALTHY, None)
        status.failed_probes = 0
        status.lives.clear()
        status.jobs.clear()
        self._report_restored(place)
        wake_up(self._scheduler.reopen(place))

    def _report_restored(self, place: DeviceSlots) -> None:
        logger.warning("%s gets work again", place.device.label)
        self._instrumentation.restored(place.device)

    @staticmethod
    def _move(status: DeviceHealth, to: Health, reason: str | None) -> None:
        if to not in HEALTH_MOVES[status.health]:
            raise AssertionError(f"a device can't become {to.value} when it is {status.health.value}")
        status.health, status.reason = to, reason


def _backs_off(place: DeviceSlots) -> bool:
    """Whether all its slots back off after failed starts."""
    return all(slot.state is SlotState.BACKING_OFF for slot in place.slots)
