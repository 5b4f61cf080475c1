"""The health of each device: who is in quarantine, and how one comes out of it. On the event loop only.

A device that was lost, or whose workers are lost again and again, gets no more work: what waits for it goes elsewhere,
or fails if there is no elsewhere. After a while a probe decides whether it comes back.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any

from director._core.states import HEALTH_MOVES, Health, SlotState
from director.errors import DeviceLost

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from director._core.chronicle import Chronicle
    from director._core.clock import Clock, Timer
    from director._core.dispatch import Dispatch
    from director._core.job import Job
    from director._core.ledger import Ledger
    from director._core.slot import Place
    from director._device import Device
    from director._health_rules import HealthRules

logger = logging.getLogger("director")


class Patient:
    """What is known of one device."""

    __slots__ = ("health", "jobs", "lives", "reason", "returned", "rounds", "suspended", "timer")

    def __init__(self) -> None:
        self.health = Health.HEALTHY
        self.reason: str | None = None
        self.lives: set[object] = set()  # workers that were lost in a row
        self.jobs: set[int] = set()  # that these took along
        self.returned = 0  # jobs that had come back on the device at the last of these losses
        self.rounds = 0  # probes that have failed, in a row
        self.timer: Timer | None = None
        self.suspended: str | None = None  # why no worker can be started on it


class Warden:
    """Puts devices into quarantine and takes them out again.

    Args:
        places: The devices.
        rules: When, and for how long.
        dispatch: Told which devices get work.
        ledger: Ends the jobs that no other device can run.
        chronicle: Takes events.
        clock: Makes the timers.
        probe: Tells what is wrong with a device, `None` if nothing is; may take its time.
    """

    def __init__(
        self,
        places: list[Place],
        rules: HealthRules,
        dispatch: Dispatch,
        ledger: Ledger,
        chronicle: Chronicle,
        clock: Clock,
        probe: Callable[[Device], Awaitable[str | None]],
    ) -> None:
        self._patients = {place: Patient() for place in places}
        self._rules = rules
        self._dispatch = dispatch
        self._ledger = ledger
        self._chronicle = chronicle
        self._clock = clock
        self._probe = probe
        self._probes: set[asyncio.Task[None]] = set()
        self._failures = count(-1, -1)  # numbers that no job has

    def join(self, place: Place) -> None:
        """A device has come."""
        self._patients[place] = Patient()

    def health(self, place: Place) -> tuple[Health, str | None]:
        """How a device is, and why it gets no work if so."""
        patient = self._patients[place]
        if patient.health is not Health.HEALTHY or patient.suspended is None:
            return patient.health, patient.reason
        return Health.QUARANTINED if _rests(place) else Health.PROBATION, patient.suspended

    @property
    def any_healthy(self) -> bool:
        """Whether a device gets work."""
        return any(patient.health is Health.HEALTHY and not _rests(place) for place, patient in self._patients.items())

    def suspend(self, place: Place, reason: str) -> None:
        """No worker can be started on a device: it gets work only to find out whether that has changed."""
        patient = self._patients[place]
        is_news, patient.suspended = patient.suspended is None, reason
        if is_news and patient.health is Health.HEALTHY:
            logger.error("%s gets no work while no worker can be started there: %s", place.device.label, reason)
            self._chronicle.quarantined(place.device, reason)

    def resume(self, place: Place) -> None:
        """A worker has been started on a device."""
        patient = self._patients[place]
        if patient.suspended is None:
            return
        patient.suspended = None
        if patient.health is Health.HEALTHY:
            self._say_restored(place)

    def worker_lost(self, place: Place, job: Job[Any], life: object) -> None:
        """A job has lost its worker. Several workers lost in a row make a quarantine.

        A worker counts once, however many jobs it takes along, and a job counts once, however often it is tried.

        Args:
            place: Where.
            job: Which.
            life: The worker: the same for all jobs that were lost with it.
        """
        self._count_loss(place, job.id, life)

    def worker_failed(self, place: Place) -> None:
        """A worker has failed outside of any call; each counts as another job that has lost its worker."""
        self._count_loss(place, next(self._failures), object())

    def _count_loss(self, place: Place, loss: int, life: object) -> None:
        patient = self._patients[place]
        returned = sum(slot.jobs - slot.lost for slot in place.slots)
        if returned > patient.returned:
            patient.lives.clear()
            patient.jobs.clear()
        patient.returned = returned
        if life not in patient.lives and loss not in patient.jobs:
            patient.lives.add(life)
        patient.jobs.add(loss)
        if len(patient.lives) >= self._rules.failures:
            self.lose(place, f"{len(patient.lives)} jobs in a row have lost their workers on it")

    def lose(self, place: Place, reason: str, for_good: bool = False) -> None:
        """Give a device no more work; `for_good`: this process can't use it any more, whatever a probe says."""
        patient = self._patients[place]
        if patient.health is not Health.HEALTHY:
            return
        self._move(patient, Health.QUARANTINED, reason)
        patient.suspended = None
        logger.error("%s gets no more work: %s", place.device.label, reason)
        self._ledger.endings.withdraw(
            partial(self._dispatch.close, place=place),
            lambda job: self._ledger.end_failed(job, DeviceLost(place.device)),
        )
        self._chronicle.quarantined(place.device, reason)
        if not for_good:
            self._wait(place, patient)

    def stop(self) -> None:
        """Probe no more."""
        for patient in self._patients.values():
            if patient.timer is not None:
                patient.timer.cancel()
        for task in self._probes:
            task.cancel()

    def _wait(self, place: Place, patient: Patient) -> None:
        delay = self._rules.delay(patient.rounds)
        patient.timer = self._clock.call_later(delay, partial(self._begin_probation, place, patient))

    def _begin_probation(self, place: Place, patient: Patient) -> None:
        patient.timer = None
        self._move(patient, Health.PROBATION, patient.reason)
        task = asyncio.get_running_loop().create_task(self._examine(place, patient), name="director:probe")
        self._probes.add(task)
        task.add_done_callback(self._probes.discard)

    async def _examine(self, place: Place, patient: Patient) -> None:
        try:
            wrong = await self._probe(place.device)
        except Exception as error:  # noqa: BLE001 - a probe that fails has found something
            wrong = f"the probe failed: {error!r}"
        if wrong is None:
            self._restore(place, patient)
            return
        patient.rounds += 1
        self._move(patient, Health.QUARANTINED, wrong)
        logger.warning("%s stays in quarantine: %s", place.device.label, wrong)
        self._wait(place, patient)

    def _restore(self, place: Place, patient: Patient) -> None:
        self._move(patient, Health.HEALTHY, None)
        patient.rounds = 0
        patient.lives.clear()
        patient.jobs.clear()
        self._say_restored(place)
        ring = self._dispatch.reopen(place)
        if ring is not None:
            ring()

    def _say_restored(self, place: Place) -> None:
        logger.warning("%s gets work again", place.device.label)
        self._chronicle.restored(place.device)

    @staticmethod
    def _move(patient: Patient, to: Health, reason: str | None) -> None:
        if to not in HEALTH_MOVES[patient.health]:
            raise AssertionError(f"a device can't become {to.value} when it is {patient.health.value}")
        patient.health, patient.reason = to, reason


def _rests(place: Place) -> bool:
    """Whether no slot of it is offered, for none could begin."""
    return all(slot.state is SlotState.BACKING_OFF for slot in place.slots)
