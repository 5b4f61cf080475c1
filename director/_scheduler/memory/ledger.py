"""The ledgers of one device and of host memory: who has how many bytes of it. Guarded by `scheduler`'s lock.

A reservation changes in the same decision as the slot, before any memory is used. Sums are recounted from the replicas
and the calls of the slots, never added to.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from director._scheduler.memory.observed import ForeignUse
from director._scheduler.memory.replica import ReservationState

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from director._devices.footprints import LoadSize
    from director._scheduler.memory.observed import Returning, Sample, Veto
    from director._scheduler.memory.replica import Charge, KnownModel, Replica
    from director._scheduler.queue.lane import Lane
    from director._scheduler.slots import DeviceSlots, Slot

_LOADING = ReservationState.LOADING
_LEAVING = (ReservationState.DRAINING, ReservationState.UNLOADING, ReservationState.SLEEPING)
_ASLEEP, _DRAINING, _RESIDENT = ReservationState.ASLEEP, ReservationState.DRAINING, ReservationState.RESIDENT
_REMEMBERED = 60.0  # seconds over which the use of the device is averaged
_LEAST_QUANTUM, _MOST_USE = 4.0, 0.9


class Eviction:
    """Replicas that make room for the jobs of one lane."""

    __slots__ = ("lane", "slot", "victims")

    def __init__(self, lane: Lane, slot: Slot, victims: list[Replica]) -> None:
        self.lane = lane
        self.slot = slot
        self.victims = victims

    def wanted(self) -> str:
        """What needs the room, in words: a model's name, or the memory of a call."""
        return "a call" if self.lane.model is None else self.lane.model.name

    @property
    def has_begun(self) -> bool:
        """Whether all victims have left, or leave just now: none waits for the end of a call, or is needed again."""
        return all(replica.state not in (_DRAINING, _RESIDENT) for replica in self.victims)


class Cleared:
    """A load that ran out of memory and is tried again, after all that was idle on the device has left."""

    __slots__ = ("is_awaited", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_awaited = False  # its job has returned to the queue


class DeviceMemory:
    """The ledger of a device.

    Args:
        place: The device with its slots.
        budget: Bytes that replicas and calls may take together; `None` if nothing bounds them.
        is_default: The user has set no limit: it is the total less the headroom.
    """

    __slots__ = (
        "_busy",
        "_counted_at",
        "_span",
        "age",
        "budget",
        "calls",
        "changes",
        "charges",
        "cleared_for",
        "context",
        "contexts",
        "eviction",
        "foreign_use",
        "has_leaving",
        "held",
        "is_default",
        "is_loading",
        "is_metered",
        "last_load",
        "leaked",
        "leaving",
        "pinned",
        "place",
        "pools",
        "replicas",
        "reserved",
        "returning",
        "sample",
        "trims",
        "vetoes",
        "work",
    )

    def __init__(self, place: DeviceSlots, budget: int | None, is_default: bool = False) -> None:
        self.place = place
        self.is_default = is_default
        self.budget = budget
        self.replicas: list[Replica] = []  # none of them ABSENT
        self.charges: dict[Slot, Charge] = {}  # of calls that run
        self.calls = 0  # bytes of these
        self.returning: list[Returning] = []  # of replicas that were unloaded just now
        self.leaked: dict[str, int] = {}  # by model: bytes that did not come back when it was unloaded
        self.contexts: dict[int | None, int] = {}  # of processes: those of slots by their numbers, and this one
        self.context = 0  # bytes of the next one
        self.pools: dict[int | None, int] = {}  # of the same: what they have reserved for all that they have allocated
        self.foreign_use = ForeignUse()
        self.is_metered = False  # its free memory is sampled
        self.sample: Sample | None = None
        self.changes = 0  # loads and the like: a sample of before one of them says nothing of the free memory now
        self.trims: set[Slot] = set()  # whose threads empty the caches of frameworks
        self.vetoes: dict[Lane, Veto] = {}  # at the last sample
        self.pinned = 0  # bytes of replicas that are never unloaded for others
        self.held = 0  # bytes of replicas, but for those in host memory
        self.leaving = 0  # of these: bytes of those that are about to leave the device
        self.has_leaving = False  # one is about to be unloaded or put to sleep, perhaps one without bytes
        self.is_loading = False  # a load has begun here and not ended
        self.reserved = 0  # of replicas, calls, contexts and leaks
        self.eviction: Eviction | None = None  # one at a time
        self.cleared_for: dict[int, Cleared] = {}  # by the model's key
        self.age = 0.0  # worth of the last victim
        self.work = 0.0  # seconds of calls since the last load
        self.last_load = 0.0  # seconds of that
        self._busy = self._span = self._counted_at = 0.0

    def recount(self) -> None:
        """Sum up what is reserved."""
        self.replicas = [replica for replica in self.replicas if replica.state is not ReservationState.ABSENT]
        self.is_loading = self.has_leaving = False
        self.held = self.leaving = self.pinned = 0
        for replica in self.replicas:
            state, size = replica.state, replica.size
            is_leaving = state in _LEAVING
            self.is_loading = self.is_loading or state is _LOADING
            self.has_leaving = self.has_leaving or is_leaving or (state is _ASLEEP and replica.is_requested)
            self.pinned += size if replica.known.model.pin else 0
            if not replica.has_left:
                self.held += size
                self.leaving += size if is_leaving else 0
        self.calls = sum(charge.memory for charge in self.charges.values())
        self.reserved = self.held + self.calls + sum(self.leaked.values()) + sum(self.contexts.values())
        self.reserved += sum(each.missing for each in self.returning)

    @property
    def foreign(self) -> int:
        """Bytes that others use."""
        return self.foreign_use.bytes

    def is_short(self, needed: int) -> bool:
        """Whether the device has less free memory than a load needs, as far as that is known."""
        free = self.free_now()
        return free is not None and needed > free

    def free_now(self) -> int | None:
        """Bytes of the device that are free, if they were sampled since the last load or unload of ours."""
        sample = self.sample
        return sample.free if sample is not None and sample.changes == self.changes else None

    def next_context(self, slot: Slot) -> int:
        """Bytes of the process that a load on `slot` will start, where slots have processes of their own."""
        return self.context if slot.number not in self.contexts else 0

    def free(self) -> float:
        """Bytes that are left; infinite if nothing bounds them, and negative if others have taken too much."""
        return math.inf if self.budget is None else self.budget - self.foreign - self.reserved

    def size_of(self, known: KnownModel) -> int:
        """Bytes that a load of a model is charged with. At most the budget: what takes more is loaded alone."""
        size = known.footprints.size(self.place.device.name)
        return size if self.budget is None else max(0, min(size, self.budget - sum(self.contexts.values())))

    def needed_by(self, lane: Lane, slot: Slot) -> int:
        """Bytes that a job of a lane needs on a slot: of its call, and of its model if that is not there."""
        known, needed, own = lane.known, lane.memory, 0
        if known is not None and (replica := known.on(slot.number)) is not None:
            own = replica.size
        elif known is not None:
            needed += self.size_of(known) + self.next_context(slot)
        if self.budget is None:
            return needed
        # What was measured may exceed the budget. It runs alone then: to wait for more than there is never ends.
        return max(0, min(needed, self.budget - own - sum(self.contexts.values())))

    def promised(self) -> int:
        """Bytes of those that are free, or will be, that the eviction under way is for."""
        eviction = self.eviction
        return 0 if eviction is None else max(0, self.needed_by(eviction.lane, eviction.slot) - self.leaving)

    def left_for(self, lane: Lane) -> int:
        """Bytes that a load of unknown size may take for a job of `lane`."""
        self.recount()
        promised = 0 if self.eviction is None or self.eviction.lane is lane else self.promised()
        return 0 if self.budget is None else max(0, int(self.free()) - promised - lane.memory)

    def note_change(self, moved: Replica | None = None) -> None:
        """A replica begins or ends its load, or one goes: what others take that load can't be told from free memory."""
        self.changes += 1
        for replica in self.replicas:
            if replica.state is _LOADING and replica is not moved:
                replica.is_alone = False
                if moved is not None:
                    moved.is_alone = False

    def end_process(self, number: int) -> None:
        """The process of the slot with this number has ended."""
        self.contexts.pop(number, None)
        self.pools.pop(number, None)
        self.note_change()

    def bytes_in(self, *states: ReservationState) -> int:
        """Bytes of the device that replicas in these states have."""
        return sum(replica.size for replica in self.replicas if replica.state in states and not replica.has_left)

    def is_being_cleared(self) -> bool:
        """Whether something idle leaves, and a load waits for all of that."""
        return bool(self.cleared_for) and any(
            replica.state in _LEAVING and not self.is_in_use(replica, None) for replica in self.replicas
        )

    def forget_cleared(self, models: Mapping[int, KnownModel]) -> None:
        """Loads for which it was cleared begin anew when no job waits for them any more."""
        for key, cleared in list(self.cleared_for.items()):
            known = models.get(key)
            is_loading = any(each.state is _LOADING and each.known is known for each in self.replicas)
            if is_loading or (known is not None and any(lane.waiting for lane in known.lanes)):
                cleared.is_awaited = True
            elif cleared.is_awaited:  # else its job is on its way back to the queue
                del self.cleared_for[key]

    def wanted(self) -> str | None:
        """For what replicas are unloaded, in words; `None`: by request."""
        if self.eviction is not None:
            return self.eviction.wanted()
        return next((cleared.name for cleared in self.cleared_for.values()), None)

    def is_in_use(self, replica: Replica, asking: Slot | None) -> bool:
        """Whether a call uses a replica, or a prefetched one will; the last call of the slot that asks is over."""
        model = replica.known.model
        return any(
            job.options.model is not None and job.options.model._key == model._key
            for slot in self.place.slots
            if slot.number in replica.numbers
            for job in (slot.prefetched if slot is asking or slot.job is None else (slot.job, *slot.prefetched))
        )

    def note_work(self, seconds: float, now: float) -> None:
        """Calls have taken `seconds`, without loads, since this was last called."""
        self.work += seconds
        passed = max(0.0, now - self._counted_at)
        kept = math.exp(-passed / _REMEMBERED)
        self._busy, self._span = self._busy * kept + seconds, self._span * kept + passed
        self._counted_at = now

    def note_load(self, seconds: float) -> None:
        """A load has ended."""
        self.work, self.last_load = 0.0, seconds

    def quantum(self) -> float:
        """Seconds of calls that follow a load before another one goes before jobs that could begin at once."""
        use = min(_MOST_USE, self._busy / (self._span * len(self.place.slots))) if self._span > 0 else 0.0
        return max(_LEAST_QUANTUM, 1.5 * use / (1 - use)) * self.last_load

    def has_worked_enough(self) -> bool:
        """Whether it has worked so long since its last load that another load costs little of its time."""
        return self.work >= self.quantum()


_SHARE = 2  # of the host's memory that sleeping replicas may take: one half


class HostMemory:
    """What replicas of all devices take of the host's memory; recounted from them."""

    def __init__(self, devices: Iterable[DeviceMemory]) -> None:
        self._devices = devices
        self.budget: int | None = None  # bytes; `None` until it is first asked for

    @property
    def reserved(self) -> int:
        """Bytes of replicas that sleep, fall asleep or wake."""
        return sum(replica.size for here in self._devices for replica in here.replicas if replica.in_host)

    def put_to_sleep(self, replica: Replica) -> bool:
        """Reserve the memory of a replica that leaves its device; False if it can't sleep, or there is no room."""
        if replica.known.model.sleep is None or replica.is_requested:
            return False
        if not all(slot.can_sleep for slot in replica.place.slots):
            return False
        if self.budget is None:
            from director._devices.host import usable_memory  # few programs need it

            self.budget = usable_memory() // _SHARE
        if replica.size + self.reserved > self.budget:
            return False
        replica.move(ReservationState.SLEEPING)
        replica.in_host = True
        return True


_UNMOVED = 2**26  # bytes by which the free memory of an idle device may differ


def learn(here: DeviceMemory, replica: Replica, taken: LoadSize | None) -> None:
    """A load has ended: charge what it took, or what is expected if it was not measured."""
    footprints, name = replica.known.footprints, here.place.device.name
    here.note_change(replica)
    if taken is not None:
        _learn_process(here, replica, taken)
    if taken is not None and taken.allocated is not None:
        replica.measured, replica.peak = taken.allocated, taken.peak
    elif taken is not None and taken.taken is not None and taken.taken > 0 and not _has_moved(here, replica, taken):
        replica.measured = taken.taken
    if replica.measured is not None:
        footprints.learn(name, replica.measured)
    elif taken is None:
        footprints.give_up(name)
    size = here.size_of(replica.known)
    replica.size = size if replica.measured is None else max(size, replica.measured)


def _has_moved(here: DeviceMemory, replica: Replica, taken: LoadSize) -> bool:
    """Whether something else has used memory of the device, or freed some, about the time of a load."""
    if not replica.is_alone or here.foreign != replica.foreign:
        return True
    return replica.free is not None and taken.free is not None and abs(replica.free - taken.free) > _UNMOVED


def _learn_process(here: DeviceMemory, replica: Replica, taken: LoadSize) -> None:
    """What the process has of the device that holds a new replica, beside its models."""
    key = next(iter(replica.numbers)) if taken.is_apart else None
    if taken.pool is not None:
        here.pools[key] = taken.pool
    if taken.context is not None and not _has_moved(here, replica, taken):
        here.contexts[key] = taken.context
        here.context = taken.context if taken.is_apart else here.context
