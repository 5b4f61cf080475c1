"""What the scheduler is told of its devices, under its lock: they come and go, and what is loaded and free there.

The event loop reports that a device has joined, is closed, lent or open again, and how much of its memory is free; each
slot's thread what it has loaded and unloaded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from director._jobs.state import JobState
from director._scheduler.exclusive import dated_surely, exclusive
from director._scheduler.introspection import Introspection
from director._scheduler.memory.clearing import clear_for_call, clear_for_load
from director._scheduler.memory.sampling import is_vetoed, note_allocated, note_sample
from director._scheduler.slots import SlotState
from director._scheduler.wakeups import combine

if TYPE_CHECKING:
    from collections.abc import Callable

    from director._devices.footprints import LoadSize
    from director._jobs.job import ScheduledJob
    from director._jobs.model import Model
    from director._scheduler.memory.clearing import Resident
    from director._scheduler.memory.observed import Leak, Reading
    from director._scheduler.placement import FreeSlots, Jobs
    from director._scheduler.slots import DeviceSlots, Slot, Unload
    from director._scheduler.wakeups import WakeCall
    from director.errors import PlacementError

_UNLOADING = SlotState.UNLOADING


class DeviceReports(Introspection):
    """The reports to `Scheduler`, which sets the attributes."""

    _free: FreeSlots
    _note_memory: Callable[[], None]
    _looks_again: bool
    _paused: WakeCall
    _lent: dict[DeviceSlots, WakeCall]

    # ---- whether they get work

    @exclusive
    def close(self, into: Jobs, place: DeviceSlots) -> None:
        """Give a device no more work; running jobs go on. Fails jobs as `fail_unrunnable`."""
        self._closed_devices.close(into, place)

    @exclusive
    def fail_unrunnable(self, into: Jobs, unable: frozenset[int], before: float) -> None:
        """Add the jobs submitted until `before` that only closed or `unable` slots could run to `into`, as FAILED."""
        self._closed_devices.fail_unrunnable(into, unable, before)

    @dated_surely
    def reopen(self, now: float, place: DeviceSlots) -> WakeCall:
        """Give a closed device work again."""
        self._closed_devices.reopen(place)
        return self._wakeups.pick_wakeup(now)

    @exclusive
    def lend(self, place: DeviceSlots, changed: Callable[[], None]) -> None:
        """Give a device no work until `take_back`.

        `changed` is called, without the lock, when one of its slots has no worker any more.
        """
        self._lent[place] = changed
        self._closed_devices.lend(place)

    @dated_surely
    def take_back(self, now: float, place: DeviceSlots) -> WakeCall:
        """Give a device that was lent work again."""
        self._lent.pop(place, None)
        self._closed_devices.take_back(place)
        return self._wakeups.pick_wakeup(now)

    @exclusive
    def pause(self, changed: Callable[[], None]) -> None:
        """Give no slot a job until `resume`; `changed` is called, without the lock, when one has ended its call."""
        self._paused = changed
        self._closed_devices.pause(self.places)

    @dated_surely
    def resume(self, now: float) -> WakeCall:
        """Give the slots jobs again."""
        self._paused = None
        self._closed_devices.resume(self.places)
        return self._wakeups.pick_wakeup(now)

    @dated_surely
    def join(self, now: float, place: DeviceSlots) -> WakeCall:
        """Give a new device work; its slots have their threads and runners."""
        self.places.append(place)  # these two lists are shared with all parts
        self.slots.extend(place.slots)
        self._free.add(place)
        self._closed_devices.add(place)
        self.memory.join(place)
        if self._paused is not None:
            self._closed_devices.pause([place])
        return self._wakeups.pick_wakeup(now)

    # ---- their memory; from slots' threads, but for `unload`, `forget` and what is sampled

    @dated_surely
    def loaded(
        self, now: float, model: Model[Any], slot: Slot, seconds: float, taken: LoadSize | None = None
    ) -> WakeCall:
        """From a slot's thread: it has loaded a model, in `seconds`, and that has `taken` so much."""
        self.memory.loaded(model, slot, seconds, now, taken)
        return combine(self._wakeups.pick_wakeup(now), self._take_news()) if self.memory.is_used else None

    @dated_surely
    def unload(self, now: float, model: Model[Any], numbers: frozenset[int]) -> WakeCall:
        """Have a model unloaded, which slots with these numbers have, as soon as no call uses it."""
        if not self._queue.has_lanes:
            self._queue.switch_to_lanes()
        self.memory.request_unload(model, numbers)
        self._queue.account()
        return self._wakeups.pick_wakeup(now)

    @exclusive
    def forget(self, key: int) -> None:
        """The model with this key was collected, and has no replica."""
        self.memory.forget(key)

    @dated_surely
    def unloaded(
        self, now: float, model: Model[Any], slot: Slot, freed: int | None = None, allocated: int | None = None
    ) -> WakeCall:
        """From a slot's thread: a replica that it has loaded is gone, `freed` bytes are back, `allocated` are left."""
        self.memory.unloaded(model, slot, now, freed, allocated)
        if not self.memory.is_used:
            return None
        if slot.state is _UNLOADING:  # it looks for work next, and then wakes others for what is left
            return self._take_news()
        return combine(self._wakeups.pick_wakeup(now), self._take_news())

    @dated_surely
    def slept(self, now: float, model: Model[Any], slot: Slot, freed: int | None) -> WakeCall:
        """From a slot's thread: it has moved a replica to host memory, and `freed` bytes of the device are back."""
        self.memory.slept(model, slot, freed, now)
        if slot.state is _UNLOADING:
            return self._take_news()
        return combine(self._wakeups.pick_wakeup(now), self._take_news())

    @exclusive
    def missing(self, model: Model[Any], slot: Slot, freed: int | None) -> int:
        """From a slot's thread: bytes that are not back of a replica that is about to be reported as unloaded."""
        return self.memory.missing(model, slot, freed)

    @exclusive
    def clear_for_load(self, model: Model[Any], slot: Slot, resident: Resident) -> tuple[bool, str]:
        """From a slot's thread: a load has run out of memory; see `clearing.clear_for_load`. Its call is over soon."""
        cleared = clear_for_load(self.memory, model, slot, resident)
        self._queue.account()
        return cleared

    @dated_surely
    def clear_for_call(self, now: float, slot: Slot, resident: Resident, name: str) -> tuple[list[Unload], WakeCall]:
        """From a slot's thread: its call has run out of memory; see `clearing.clear_for_call`."""
        unloads = clear_for_call(self.memory, slot, resident, name)
        self._queue.account()
        return unloads, self._wakeups.pick_wakeup(now)

    @dated_surely
    def process_ended(self, now: float, slot: Slot) -> WakeCall:
        """From a slot's thread: the process that made its calls is gone."""
        here = self.memory.devices[slot.place]
        here.end_process(slot.number)
        self.memory.recount(here)
        return self._wakeups.pick_wakeup(now)

    @dated_surely
    def note_sample(self, now: float, place: DeviceSlots, reading: Reading | None) -> WakeCall:
        """The free memory of a device, its total and the pool of this process there; `None` if it can't be read."""
        lanes = [lane for lane in self._queue.in_order(now) if lane.key is not None and lane.is_managed]
        here = self.memory.devices[place]
        note_sample(here, reading, lanes, now)
        self.memory.recount(here)
        return self._wakeups.pick_wakeup(now)

    @dated_surely
    def note_allocated(self, now: float, place: DeviceSlots, allocated: int | None, into: list[Leak]) -> WakeCall:
        """This process has so much allocated on a device; adds what is leaked from now on to `into`."""
        here = self.memory.devices[place]
        into += note_allocated(here, allocated, now)
        self.memory.recount(here)
        return self._wakeups.pick_wakeup(now)

    @exclusive
    def fail_unloadable(self, into: Jobs, model: Model[Any], hopeless: ScheduledJob[Any] | None = None) -> None:
        """Add the jobs for which no slot is left that has `model` or may load it to `into`, by age, as FAILED.

        Also those that may run on the slots of a `hopeless` job, which has given up, and on no others.
        """
        waiting = [job for job in (*self._queue, *self._deferred.jobs) if job.options.model is model]
        if hopeless is not None and (given_up := hopeless.asked.allowed) is not None:
            jobs = [job for job in waiting if job.asked.allowed is not None and job.asked.allowed <= given_up]
        elif hopeless is not None:
            jobs = waiting
        else:
            jobs = [job for job in waiting if not self._wakeups.able(job.asked)]
        self._remove(jobs, into, JobState.FAILED)

    @exclusive
    def fail_vetoed(self, into: Jobs, place: DeviceSlots, before: float) -> None:
        """Add the jobs to `into`, as FAILED, whose loads have been vetoed since `before` wherever they may go."""
        for lane in [lane for lane, veto in self.memory.devices[place].vetoes.items() if veto.since <= before]:
            slots = [slot for slot in self.slots if lane.allowed is None or slot.number in lane.allowed]
            if all(not slot.is_open or is_vetoed(self.memory.devices[slot.place], lane, before) for slot in slots):
                jobs = [job for job in self._queue if job.options.lane == lane.key]
                self._remove(jobs, into, JobState.FAILED)

    @exclusive
    def fail_beside_pins(self, into: Jobs, errors: dict[ScheduledJob[Any], PlacementError]) -> None:
        """Add the waiting loads that pinned replicas leave no room for to `into`, as FAILED, with their errors."""
        for job in (*self._queue, *self._deferred.jobs):
            if (error := self.memory.fitting.refusal(job)) is not None:
                errors[job] = error
        self._remove([*errors], into, JobState.FAILED)

    @dated_surely
    def wake_for_waiting(self, now: float) -> WakeCall:
        """Other slots may serve what waits than before: a back-off is over, a device was closed, or jobs have left."""
        self._looks_again = False
        return self._wakeups.pick_wakeup(now)

    # ----

    def _remove(self, jobs: list[ScheduledJob[Any]], into: Jobs, state: JobState) -> None:
        into.extend(sorted(jobs, key=lambda job: job.id))
        for job in jobs:
            job.transition(state)
            self._discount(job)

    def _discount(self, job: ScheduledJob[Any]) -> None:
        (self._deferred if job.location is self._deferred else self._queue).left(job)

    def _look_again(self) -> None:
        """Without the lock: jobs have left, and with them what they needed room for: others may have it now."""
        if not self._looks_again:
            self._looks_again = True
            try:
                self._note_memory()
            except BaseException:  # of a signal handler
                self._looks_again = False
                raise

    def _take_news(self) -> WakeCall:
        if not self.memory.has_news:
            return None
        self.memory.has_news = False
        return self._note_memory
