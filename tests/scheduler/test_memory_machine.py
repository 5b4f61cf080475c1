"""Any order of jobs, loads, wakes, failures and unloads: no ledger exceeds its budget, and nobody waits for nothing.

The scheduler alone: the test plays the threads, one step at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.desk import COMING, FREE, WORKING, Desk
from harness.effort import examples
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from director._devices.footprints import LoadSize
from director._jobs.model import Model
from director._jobs.options import Options
from director._jobs.state import JobState
from director._scheduler.memory.limits import MemoryLimit
from director._scheduler.memory.memory import Verdict
from director._scheduler.memory.replica import RESERVATION_MOVES, ReservationState
from director._scheduler.policy import SchedulingPolicy
from director._scheduler.slots import SlotState
from director.testing import simulated_devices

if TYPE_CHECKING:
    from director._jobs.job import ScheduledJob
    from director._scheduler.slots import DeviceSlots, Slot

UNLOADING, SLEEPING = ReservationState.UNLOADING, ReservationState.SLEEPING
ASLEEP = (SLEEPING, ReservationState.ASLEEP)
LOADING, RESIDENT, DRAINING = ReservationState.LOADING, ReservationState.RESIDENT, ReservationState.DRAINING
SIZES = [1, 2, 3, 4]
BUDGET, HOST = 5, 4


class Ledgers(RuleBasedStateMachine):
    """One or two devices of five bytes, models of one to four, one pinned, and some that may sleep in four bytes."""

    @initialize(
        counts=st.lists(st.integers(1, 3), min_size=1, max_size=2),
        apart=st.booleans(),
        pinned=st.booleans(),
        sleeping=st.sets(st.sampled_from(SIZES)),
        metered=st.booleans(),
    )
    def begin(self, counts: list[int], apart: bool, pinned: bool, sleeping: set[int], metered: bool) -> None:
        devices = tuple(simulated_devices(len(counts), memory=BUDGET))
        self.desk = Desk(counts, policy=SchedulingPolicy(None, memory=MemoryLimit()), devices=devices)
        self.memory = self.desk.scheduler.memory
        self.models = [
            Model(
                lambda device: device,
                memory=size,
                per_slot=apart,
                pin=pinned and size == 2,
                name=str(size),
                sleep=print if size in sleeping else None,
                wake=print if size in sleeping else None,
            )
            for size in SIZES
        ]
        self.memory.host.budget = HOST
        for slot in self.desk.slots:
            slot.can_sleep = True
        self.jobs: list[ScheduledJob[Any]] = []
        self.loading: dict[Slot, Model[Any]] = {}
        self.seen: dict[int, ReservationState] = {}
        self.others = dict.fromkeys(self.desk.places, 0)
        self.kept = dict.fromkeys(self.desk.places, 0)  # allocated still, of models that were unloaded
        for place in self.desk.places if metered else ():
            self.memory.devices[place].is_metered = True
            self.sample(place)

    # ---- jobs

    @rule(
        model=st.none() | st.integers(0, 3),
        memory=st.integers(0, 2),
        priority=st.sampled_from([0, 0, 1]),
        many=st.integers(1, 3),
    )
    def submit(self, model: int | None, memory: int, priority: int, many: int) -> None:
        chosen = None if model is None else self.models[model]
        if (0 if chosen is None else chosen.memory or 0) + memory > BUDGET:
            return
        options = Options(chosen, priority, memory=memory)
        self.jobs += [self.desk.admit(options) for _ in range(many)]

    @precondition(lambda self: any(job.state is JobState.QUEUED for job in self.jobs))
    @rule(index=st.integers(0, 100))
    def cancel(self, index: int) -> None:
        waiting = [job for job in self.jobs if job.state is JobState.QUEUED]
        assert self.desk.scheduler.remove(waiting[index % len(waiting)], JobState.CANCELLED)

    # ---- threads

    @rule(index=st.integers(0, 10))
    def arrive(self, index: int) -> None:
        if self.desk.director_called:
            self.desk.hire()
        elif coming := self.desk.on_their_way():
            self.take(coming[index % len(coming)])

    @rule(
        index=st.integers(0, 10),
        seconds=st.sampled_from([0.0, 0.1, 5.0]),
        fails=st.booleans(),
        more=st.sampled_from([None, -1, 0, 0, 1]),
        kept=st.sampled_from([0, 0, 0, 1]),
    )
    def go_on(self, index: int, seconds: float, fails: bool, more: int | None = None, kept: int = 0) -> None:
        """A load, a call or an unload ends."""
        slots = [slot for slot in self.desk.slots if slot.state in (WORKING, SlotState.UNLOADING)]
        if not slots:
            return
        slot = slots[index % len(slots)]
        self.desk.now += seconds
        slot.busy_seconds += seconds
        if (model := self.loading.pop(slot, None)) is not None and not fails:
            slot.note_load(seconds)
            taken = None if more is None else LoadSize(max(0, (model.memory or 0) + more))
            self.desk.wake(self.desk.scheduler.loaded(model, slot, seconds, taken))
            return
        if model is not None and seconds:  # it was called, and has raised: what was to be woken is unloaded
            self.desk.wake(self.desk.scheduler.unloaded(model, slot))
        if slot.state is SlotState.UNLOADING:
            unloads, slot.unloads = slot.unloads, []
            for each in unloads:
                if each.model is None:  # it empties caches
                    continue
                if each.is_sleep and not fails:
                    self.desk.wake(self.desk.scheduler.slept(each.model, slot, None))
                    continue
                known = self.memory.models[each.model._key]
                replica = known.on(slot.number) or known.asleep_on(slot.number)
                assert replica is not None
                took = None if replica.has_left else replica.measured
                freed = None if took is None else max(0, took - kept)
                self.kept[slot.place] += 0 if took is None or freed is None else took - freed
                allocated = self.kept[slot.place] + self.there(slot.place) - (took or 0)
                self.desk.wake(self.desk.scheduler.unloaded(each.model, slot, freed, allocated))
        else:
            self.desk.end(slot)
        self.take(slot)

    @precondition(lambda self: self.memory.models)
    @rule(index=st.integers(0, 3))
    def unload(self, index: int) -> None:
        self.desk.wake(self.desk.scheduler.unload(self.models[index], frozenset()))

    @rule(number=st.integers(0, 5))
    def end_process(self, number: int) -> None:
        """The process of a slot ends, and what sleeps in it is gone."""
        slot = self.desk.slots[number % len(self.desk.slots)]
        for known in list(self.memory.models.values()):
            if known.asleep_on(slot.number) is not None:
                self.desk.wake(self.desk.scheduler.unloaded(known.model, slot))

    # ---- what is measured

    def there(self, place: DeviceSlots) -> int:
        """Bytes that the models on a device were measured to take."""
        here = self.memory.devices[place]
        return sum(replica.measured or 0 for replica in here.replicas if not replica.has_left)

    def sample(self, place: DeviceSlots) -> None:
        used = self.others[place] + self.kept[place] + self.there(place)
        self.desk.wake(self.desk.scheduler.note_sample(place, (max(0, BUDGET - used), BUDGET, None)))

    @rule(index=st.integers(0, 1), use=st.integers(0, BUDGET), seconds=st.sampled_from([0.0, 1.0, 6.0]))
    def others_change(self, index: int, use: int, seconds: float) -> None:
        place = self.desk.places[index % len(self.desk.places)]
        if self.memory.devices[place].is_metered:
            self.others[place] = use
            self.desk.now += seconds
            self.sample(place)

    @rule(comes_back=st.booleans(), seconds=st.sampled_from([0.25, 5.0]))
    def look_for_what_returns(self, comes_back: bool, seconds: float) -> None:
        self.desk.now += seconds
        for place in self.desk.places:
            if self.memory.devices[place].returning:
                if comes_back:
                    self.kept[place] = sum(self.memory.devices[place].leaked.values())
                allocated = self.kept[place] + self.there(place)
                self.desk.wake(self.desk.scheduler.note_allocated(place, allocated, []))

    def take(self, slot: Slot) -> None:
        job = self.desk.take(slot)
        here = self.memory.devices[slot.place]
        if job is not None and (job.options.memory or (job.options.model and here.is_loading)):
            charge = here.charges[slot]
            is_load = charge.replica is not None and charge.replica.state is LOADING
            assert here.free() >= 0 or not (charge.memory or is_load), f"{job} has begun without room: {here.replicas}"
        if job is None or (model := job.options.model) is None:
            return
        known = self.memory.models[model._key]
        replica = known.on(slot.number)
        assert replica is not None
        if replica.state is LOADING:
            self.loading[slot] = model
        else:
            assert replica.state is RESIDENT, "a replica that leaves takes no new work"

    @rule()
    def settle(self) -> None:
        """Everything ends, and others leave; then nothing waits that could run."""
        for place in self.desk.places:
            self.others[place] = 0
        for _ in range(2):
            self.desk.now += 6.0
            for place in self.desk.places:
                if self.memory.devices[place].is_metered:
                    self.sample(place)
                if self.memory.devices[place].returning:
                    allocated = self.kept[place] + self.there(place)
                    self.desk.wake(self.desk.scheduler.note_allocated(place, allocated, []))
        for _ in range(2000):
            if self.desk.director_called:
                self.desk.hire()
            elif coming := self.desk.on_their_way():
                self.take(coming[0])
            elif any(slot.state in (WORKING, SlotState.UNLOADING) for slot in self.desk.slots):
                self.go_on(0, 1.0, fails=False)
            else:
                break
        else:
            raise AssertionError(f"it never ends: {self.desk.slots}")
        blocked = [job for job in self.jobs if job.state is JobState.QUEUED]
        for job in blocked:
            model = job.options.model
            needed = job.options.memory + (0 if model is None else model.memory or 0)
            for here in self.memory.devices.values():  # pinned replicas may leave no room
                if model is not None:
                    needed = job.options.memory + here.size_of(self.memory.models[model._key])
                held = sum(replica.size for replica in here.replicas if replica.known.model.pin)
                held += sum(here.leaked.values()) + here.foreign + sum(each.missing for each in here.returning)
                own = any(replica.known.model is model for replica in here.replicas) and model is not None and model.pin
                assert needed > BUDGET - held or own, f"{job} waits for nothing: {here.replicas}"

    # ---- what is always so

    @invariant()
    def every_byte_is_counted_once(self) -> None:
        if not hasattr(self, "desk"):
            return
        for here in self.memory.devices.values():
            reserved = sum(replica.size for replica in here.replicas if not replica.has_left)
            reserved += sum(charge.memory for charge in here.charges.values())
            reserved += sum(here.leaked.values()) + sum(each.missing for each in here.returning)
            assert here.reserved == reserved
            leaving = [replica for replica in here.replicas if replica.state in (DRAINING, UNLOADING, SLEEPING)]
            asleep = [replica for replica in here.replicas if replica.state is ASLEEP[1] and replica.is_requested]
            assert here.leaving == sum(replica.size for replica in leaving if not replica.has_left)
            assert here.has_leaving == bool(leaving or asleep)
            learned = any((replica.measured or 0) > (replica.known.model.memory or 0) for replica in here.replicas)
            assert reserved <= BUDGET or learned or self.kept[here.place], "only what is found out later exceeds it"
            assert all(replica.state is not ReservationState.ABSENT for replica in here.replicas)
        replicas = [replica for here in self.memory.devices.values() for replica in here.replicas]
        in_host = [replica for replica in replicas if replica.in_host]
        assert self.memory.host.reserved == sum(replica.size for replica in in_host) <= HOST
        assert {replica for replica in replicas if replica.state in ASLEEP} <= set(in_host)
        assert all(replica.state in (*ASLEEP, LOADING, ReservationState.UNLOADING) for replica in in_host)

    @invariant()
    def one_replica_for_each_device_or_slot(self) -> None:
        if not hasattr(self, "desk"):
            return
        for known in self.memory.models.values():
            numbers = [number for replica in known.replicas for number in replica.numbers]
            assert len(numbers) == len(set(numbers))
            for replica in known.replicas:
                before = self.seen.get(id(replica), replica.state)
                assert before is replica.state or replica.state in RESERVATION_MOVES[before] or before is not None

    @invariant()
    def a_free_slot_that_could_serve_a_lane_is_on_its_way(self) -> None:
        if not hasattr(self, "desk") or self.desk.director_called or self.desk.on_their_way():
            return
        free = [slot for place in self.desk.places for slot in place.slots if slot.state in FREE]
        for lane in self.desk.scheduler._queue.lanes():
            if lane.is_managed:
                assert all(self.memory.verdict(lane, slot) is Verdict.NO for slot in free), (lane, free)


TestLedgers = Ledgers.TestCase
TestLedgers.settings = settings(
    max_examples=examples(150), stateful_step_count=60, deadline=None, suppress_health_check=list(HealthCheck)
)
assert COMING
