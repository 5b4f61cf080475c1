"""Who looks after the devices: hears what NVML and lost workers tell of them, and has them probed. On the loop."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from director._core.slot import Slot
from director._core.slot_thread import SlotThread
from director._core.warden import Warden
from director._devices.probe import probe
from director._devices.watch import Watch
from director._user_objects import attribute_of
from director.errors import WorkerDied

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from typing import TypeVarTuple

    from director._core.chronicle import Chronicle
    from director._core.clock import Clock
    from director._core.dispatch import Dispatch
    from director._core.job import Job
    from director._core.ledger import Ledger
    from director._core.outbox import Outbox
    from director._core.slot import Place
    from director._device import Device
    from director._devices.findings import Verdict
    from director._health_rules import HealthRules

    Ts = TypeVarTuple("Ts")

T = TypeVar("T")
logger = logging.getLogger("director")


class Care:
    """Brings together who knows of faults and who decides what they mean.

    Args:
        loop: The event loop of the Director.
        rules: The user's.
        dispatch: Told which devices get work.
        ledger: Ends the jobs that no other device can run, and tells of lost workers.
        outbox: Brings verdicts to the loop.
        chronicle: Takes events.
        clock: Makes the timers.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        rules: HealthRules,
        dispatch: Dispatch,
        ledger: Ledger,
        outbox: Outbox,
        chronicle: Chronicle,
        clock: Clock,
    ) -> None:
        self._loop = loop
        self._rules = rules
        self._places = {place.device.uuid: place for place in dispatch.places}
        self.warden = Warden(dispatch.places, rules, dispatch, ledger, chronicle, clock, self._probe)
        devices = [place.device for place in dispatch.places if place.device.node is None]
        self._watch = Watch(devices, lambda verdict: outbox.call(self._hear, verdict), rules)
        ledger.worker_lost = self._note_loss

    def start(self) -> None:
        """Watch the GPUs, if there are any."""
        self._watch.start()

    def lose(self, slot: Slot, reason: str) -> None:
        """CUDA's context of a device is broken, in this process and for good."""
        self.warden.lose(slot.place, f"{reason}. This process can't use it any more: restart it", for_good=True)

    def adopt(self, place: Place) -> None:
        """A device of a fleet has come; it is not watched from here."""
        self._places[place.device.uuid] = place
        self.warden.join(place)

    def stop(self) -> None:
        """Watch and probe no more."""
        self._watch.stop()
        self.warden.stop()

    async def join(self) -> None:
        """Wait a moment for the threads that watch."""
        if self._watch.is_running:
            with suppress(RuntimeError):  # no thread is left to wait on
                await self._off_loop("director:watch ends", self._watch.join, 0.25)

    def _hear(self, verdict: Verdict) -> None:
        place = self._places[verdict.uuid]
        if verdict.kind == "lost":
            self.warden.lose(place, verdict.reason)
        elif verdict.kind == "degraded":
            logger.warning("%s is degraded: %s", place.device.label, verdict.reason)

    def _note_loss(self, job: Job[Any], error: BaseException) -> None:
        if isinstance(job._where, Slot):
            life = attribute_of(error, "_life") if type(error) is WorkerDied else object()
            self.warden.worker_lost(job._where.place, job, life)

    async def _probe(self, device: Device) -> str | None:
        if device.node is not None and self._rules.probe is None:
            return None  # nothing of it can be tried from here; its next worker is another process
        return await self._off_loop(f"director:probe {device.label}", probe, device, self._rules)

    async def _off_loop(self, name: str, call: Callable[[*Ts], T], *args: *Ts) -> T:
        """Call on a thread of its own that nobody waits for at exit."""
        thread = SlotThread(name)
        is_over = False
        try:
            value = await self._loop.run_in_executor(thread, call, *args)
            is_over = True
            return value
        finally:
            thread.shutdown(wait=is_over)  # it has nothing more to do: a moment, and no thread is left behind
