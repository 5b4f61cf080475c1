"""The memory of all devices: whether a slot may serve a lane now, what it loads, and what it unloads before.

Called by `scheduler` under its lock; no asyncio, no input or output. A load is charged in the decision that gives a
slot the job that needs it. Where there is no room, the same decision drains replicas, and a slot's own thread unloads
them when no call uses them any more; the job waits in the queue until then.

Only lanes whose jobs need memory that is accounted for come here: those with the job option `memory`, and those of
models with a declared or known footprint, or of any model where the user has set a limit.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any

from director._scheduler.memory.fitting import Fitting
from director._scheduler.memory.ledger import DeviceMemory, Eviction, HostMemory, learn
from director._scheduler.memory.observed import Returning, missing
from director._scheduler.memory.replica import Charge, KnownModel, Replica, ReservationState
from director._scheduler.memory.sampling import surplus
from director._scheduler.memory.victims import (
    drain,
    evictable,
    in_demand,
    is_wanted,
    is_worth_loading,
    note_use,
    shrink,
    victims,
)
from director._scheduler.slots import Unload

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from director._devices.footprints import LoadSize
    from director._jobs.model import Model
    from director._scheduler.memory.limits import MemoryLimit
    from director._scheduler.queue.lane import Lane
    from director._scheduler.queue.priority_queue import Rank
    from director._scheduler.slots import DeviceSlots, Slot

_ABSENT, _LOADING, _RESIDENT = ReservationState.ABSENT, ReservationState.LOADING, ReservationState.RESIDENT
_DRAINING, _UNLOADING = ReservationState.DRAINING, ReservationState.UNLOADING
_SLEEPING, _ASLEEP = ReservationState.SLEEPING, ReservationState.ASLEEP
_NEVER = float("inf")


class Verdict(Enum):
    """Whether a slot may take a job of a lane now."""

    READY = "ready"
    """It has what the job needs."""
    LOAD = "load"
    """There is room to load the model here."""
    EVICT = "evict"
    """There is room when other replicas have been unloaded."""
    NO = "no"


class Memory:
    """The ledgers of all devices, and the replicas of the models that are accounted for."""

    def __init__(self, places: list[DeviceSlots], limit: MemoryLimit, is_apart: Callable[[Model[Any]], bool]) -> None:
        self._places = places
        self._limit = limit
        self._is_apart = is_apart
        self.devices = {place: self._ledger(place) for place in places}
        self.fitting = Fitting(places, self.devices, is_apart)
        self.host = HostMemory(self.devices.values())
        self.models: dict[int, KnownModel] = {}  # by key: a subclass of `Model` may define what is equal
        self.remembered: dict[tuple[str, str], int] = {}  # by names of models and devices: measured in a former run
        self.is_used = False  # a job, or a model, was accounted for
        self.unsettled = 0  # calls that are charged, and replicas that leave
        # Since this was last cleared, a replica that the user wanted unloaded has left, or pinned ones take more.
        self.has_news = False

    # ---- what is accounted for

    def take_on(self, lane: Lane) -> None:
        """A lane is new: account for its jobs, if they need memory that is."""
        model = lane.model
        if model is not None and (
            model.memory is not None or model.pin or self._limit.is_given or model._key in self.models
        ):
            lane.known = self.known(model)
            lane.known.add_lane(lane)
        lane.is_managed = lane.known is not None or lane.memory > 0
        if lane.is_managed:
            self._note_used()

    def _note_used(self) -> None:
        """Something is accounted for; without samples nothing is loaded where there will be some."""
        self.is_used = True
        self.has_news = self.has_news or any(here.is_metered and here.sample is None for here in self.devices.values())

    def known(self, model: Model[Any]) -> KnownModel:
        """What is known of a model."""
        known = self.models.get(model._key)
        if known is None:
            known = self.models[model._key] = KnownModel(model._kept(), self._is_apart(model))
            for (name, device), size in self.remembered.items():
                if name == model.name:
                    known.footprints.learn(device, size)
        return known

    def join(self, place: DeviceSlots) -> None:
        """A device has joined."""
        self.devices[place] = self._ledger(place)

    def has_charge(self, slot: Slot) -> bool:
        """Whether the call of `slot` is charged."""
        return bool(self.unsettled) and slot in self.devices[slot.place].charges

    # ---- the decision

    def verdict(self, lane: Lane, slot: Slot) -> Verdict:
        """Whether `slot` may take a job of a lane that is managed. Changes nothing."""
        if lane.allowed is not None and slot.number not in lane.allowed:
            return Verdict.NO
        here, known, own = self.devices[slot.place], lane.known, None
        if known is not None:
            own = known.on(slot.number)
            if own is None:
                if self._takes_turns(here, known, slot) or not is_worth_loading(self.devices, known, lane):
                    return Verdict.NO
                return self._room(here, lane, None, here.needed_by(lane, slot), Verdict.LOAD)
            if own.state is not _RESIDENT:
                return Verdict.NO
        return self._room(here, lane, own, here.needed_by(lane, slot), Verdict.READY) if lane.memory else Verdict.READY

    def may_begin(self, slots: Iterable[Slot]) -> Callable[[Lane], bool]:
        """Tells, at little cost, most of the lanes that none of these slots may serve now: their loads take turns."""
        numbers = frozenset(slot.number for slot in slots)
        is_loading = all(self.devices[place].is_loading for place in {slot.place for slot in slots})

        def may_begin(lane: Lane) -> bool:
            known = lane.known
            return not is_loading or known is None or known.is_apart or not known.serving.isdisjoint(numbers)

        return may_begin

    def before(self, ready: Rank, ready_lane: Lane, slot: Slot, now: float) -> Callable[[Rank, Lane], bool]:
        """Whether a job that needs a load, or room, goes before one that `slot` could begin at once.

        It does if its priority is higher, if it would miss its deadline by waiting for one call more, or if it comes
        first in the order of service and the device has worked long enough since its last load.
        """
        may_load = self.devices[slot.place].has_worked_enough()
        call = 0.0 if ready_lane.known is None else ready_lane.known.call_seconds

        def goes_first(rank: Rank, lane: Lane) -> bool:
            if rank[0] != ready[0]:
                return rank[0] < ready[0]
            if may_load and rank < ready:
                return True
            known = lane.known
            if rank[3] == _NEVER or rank[3] >= ready[3] or known is None:
                return False
            needed = known.load_seconds + known.call_seconds
            return now + needed <= rank[3] < now + needed + call

        return goes_first

    def make_room(self, lane: Lane, slot: Slot) -> None:
        """Drain replicas on the device of `slot`, for which the verdict was EVICT."""
        here = self.devices[slot.place]
        needed = here.needed_by(lane, slot)
        own = None if lane.known is None else lane.known.on(slot.number)
        chosen = victims(here, needed - here.free(), own, in_demand(here, lane), slot)
        assert chosen is not None, "the verdict was that there is room"
        here.eviction = Eviction(lane, slot, chosen)
        drain(here, chosen, here.eviction.wanted())
        self.recount(here)

    def take_unloads(self, slot: Slot, wanted: str | None = None) -> list[Unload]:
        """What the thread of `slot` has to unload now: replicas that leave and that no call uses.

        Args:
            slot: The slot.
            wanted: What needs the room, in words, if that is its last call, which goes on.
        """
        here, asking = self.devices[slot.place], slot if wanted is None else None
        if wanted is None:
            wanted = here.wanted()
        unloads: list[Unload] = []
        for replica in here.replicas if here.has_leaving else ():
            if self._may_unload(replica, slot, here, asking):
                if not (is_sleep := self.host.put_to_sleep(replica)):
                    replica.move(_UNLOADING)
                needs = None if replica.is_requested else replica.wanted_by or wanted
                unloads.append(Unload(replica.known.model, replica.size, needs, is_sleep))
        if slot in here.trims:
            here.trims.discard(slot)
            self.recount(here)
            unloads.append(Unload(None, 0, None))
        return unloads

    def slots_to_unload(self) -> list[Slot]:
        """Slots whose threads could unload something, if they are free."""
        return [
            slot
            for here in self.devices.values()
            if here.has_leaving or here.trims
            for slot in here.place.slots
            if slot in here.trims or any(self._may_unload(replica, slot, here, slot) for replica in here.replicas)
        ]

    def refresh(self) -> None:
        """End evictions for lanes that don't need them any more; what was not unloaded yet stays."""
        for here in self.devices.values():
            if here.cleared_for and not here.is_being_cleared():
                here.forget_cleared(self.models)
            eviction = here.eviction
            if eviction is None:
                continue
            is_under_way = any(replica.state in (_DRAINING, _UNLOADING, _SLEEPING) for replica in eviction.victims)
            # Without either, others have taken the room by now.
            has_room = is_under_way or here.needed_by(eviction.lane, eviction.slot) <= here.free()
            if has_room and eviction.lane.waiting and is_wanted(self.devices, here, eviction.lane):
                continue
            here.eviction = None
            for replica in eviction.victims:
                if replica.state is _DRAINING and not replica.is_requested:
                    replica.move(_RESIDENT)
                    replica.wanted_by = ""
            self.recount(here)

    def begin(self, lane: Lane, slot: Slot, now: float) -> None:
        """`slot` has taken a job of a managed lane: reserve what it needs."""
        here, known = self.devices[slot.place], lane.known
        replica = None
        if known is not None:
            replica = known.on(slot.number)
            if replica is None:
                if context := here.next_context(slot):
                    here.contexts[slot.number] = context
                replica = known.asleep_on(slot.number) or self._add(known, slot)
                replica.move(_LOADING)
                replica.foreign, replica.free = here.foreign, here.free_now()
                here.note_change(replica)
                if known.footprints.is_unknown(slot.device.name):  # it is charged with all that it may take
                    replica.size = here.left_for(lane)
            note_use(here, replica, now)
        here.charges[slot] = Charge(lane.memory, replica, (slot.busy_seconds, slot.loading_seconds))
        if here.eviction is not None and here.eviction.lane is lane:
            here.eviction = None
        self.recount(here)

    def settle(self, slot: Slot, now: float) -> None:
        """The call of `slot` is over, and with it its charge; a model that it has not loaded is absent again."""
        here = self.devices[slot.place]
        charge = here.charges.pop(slot, None)
        if charge is None:
            return
        busy, loading = charge.before
        loaded = slot.loading_seconds - loading
        seconds = max(0.0, slot.busy_seconds - busy - loaded)
        here.note_work(seconds, now)
        if (replica := charge.replica) is not None:
            if replica.state is _LOADING:
                replica.move(_ASLEEP if replica.in_host else _ABSENT)
                self.has_news = self.has_news or replica.is_requested
            elif replica.state is not _ABSENT:
                if seconds > 0:
                    replica.known.note_call(seconds)
                note_use(here, replica, now)
        self.recount(here)

    # ---- what happened on the slots' threads

    def loaded(self, model: Model[Any], slot: Slot, seconds: float, now: float, taken: LoadSize | None = None) -> None:
        """`slot` has loaded a model, and that has `taken` so much where it was measured."""
        if (known := self.models.get(model._key)) is None:
            return
        here = self.devices[slot.place]
        replica = known.on(slot.number) or self._add(known, slot)
        learn(here, replica, taken)
        note = known.note_wake if replica.in_host else known.note_load
        note(seconds)
        if replica.state is not _RESIDENT:
            replica.move(_RESIDENT)
        if replica.is_requested:
            replica.move(_DRAINING)
        here.note_load(seconds)
        here.cleared_for.pop(model._key, None)
        note_use(here, replica, now)
        shrink(here, replica, slot)
        self.recount(here)

    def missing(self, model: Model[Any], slot: Slot, freed: int | None) -> int:
        """Bytes of the replica that `slot` has unloaded which are not back; 0 if enough are."""
        known = self.models.get(model._key)
        replica = None if known is None else known.on(slot.number)
        return 0 if replica is None else missing(replica.taken, freed)

    def unloaded(
        self, model: Model[Any], slot: Slot, now: float, freed: int | None = None, allocated: int | None = None
    ) -> None:
        """The replica that `slot` has loaded is gone.

        Args:
            model: Its model.
            slot: The slot.
            now: The time.
            freed: Bytes that have come back; `None` if that was not measured.
            allocated: Bytes that this process has allocated on the device now; `None` if nothing tells.
        """
        known = self.models.get(model._key)
        replica = None if known is None else known.on(slot.number) or known.asleep_on(slot.number)
        if known is None or replica is None:
            return
        if replica.state is _LOADING:
            replica.in_host = False  # it could not be woken
            return
        here = self.devices[slot.place]
        charge = here.charges.get(slot)
        was_asleep = replica.in_host
        is_in_use = charge is not None and charge.replica is replica and replica.state is not _UNLOADING
        replica.move(_LOADING if is_in_use else _ABSENT)
        if slot.number in here.pools:  # of its process, whose caches are emptied with each unload
            here.pools[slot.number] = max(0, here.pools[slot.number] - replica.taken)
        self.has_news = self.has_news or replica.is_requested
        if not was_asleep:
            self._note_freed(here, replica, freed, now, allocated)
        self.recount(here)

    def slept(self, model: Model[Any], slot: Slot, freed: int | None, now: float) -> None:
        """The thread of `slot` has moved a replica to host memory, and `freed` bytes of the device are back."""
        replica = self.models[model._key].on(slot.number)
        if replica is None or replica.state is not _SLEEPING:  # its process has ended
            return
        here = self.devices[slot.place]
        replica.move(_ASLEEP)
        self._note_freed(here, replica, freed, now)
        self.has_news = self.has_news or replica.is_requested
        self.recount(here)

    def is_asleep(self, model: Model[Any]) -> bool:
        """Whether a replica is in host memory."""
        known = self.models.get(model._key)
        return known is not None and any(replica.in_host for replica in known.replicas)

    def adopt(self, resident: Iterable[tuple[Model[Any], frozenset[int]]]) -> None:
        """Account for replicas, if they are not: models, with the numbers of the slots that have them."""
        self._note_used()
        for model, numbers in resident:
            known = self.known(model)
            for place in self._places:
                for slot in place.slots:
                    if known.on(slot.number) is None and slot.number in numbers:
                        self._add(known, slot).move(_RESIDENT)

    def request_unload(self, model: Model[Any], numbers: frozenset[int]) -> None:
        """The user wants a model unloaded; `numbers`: the slots that have it loaded, if it was not accounted for."""
        self.adopt([(model, numbers)])
        known = self.known(model)
        for replica in known.replicas:
            if replica.state is _RESIDENT:
                replica.move(_DRAINING)
            replica.is_requested = True
        self._recount_all()

    def is_leaving(self, model: Model[Any]) -> bool:
        """Whether a replica that the user wants unloaded is there still."""
        known = self.models.get(model._key)
        return known is not None and any(replica.is_requested for replica in known.replicas)

    def holds(self, key: int) -> bool:
        """Whether the model with this key has a replica, perhaps one that is about to go."""
        return key in self.models and bool(self.models[key].replicas)

    def forget(self, key: int) -> None:
        """The model with this key was collected, and has no replica."""
        self.models.pop(key, None)

    # ---- sums

    def recount(self, here: DeviceMemory) -> None:
        """Sum up a ledger whose replicas or charges have changed."""
        pinned = here.pinned
        here.recount()
        self.has_news = self.has_news or here.pinned > pinned
        self.unsettled = sum(len(each.charges) + len(each.trims) + each.has_leaving for each in self.devices.values())

    def repair(self, slots: Iterable[Slot]) -> None:
        """Rebuild the charges from the slots, after an exception during a decision."""
        working = {slot for slot in slots if slot.job is not None}
        for here in self.devices.values():
            for slot in [slot for slot in here.charges if slot not in working]:
                del here.charges[slot]
            loading = [charge.replica for charge in here.charges.values()]
            for replica in here.replicas:
                if replica.state is _LOADING and replica not in loading:
                    replica.move(_ASLEEP if replica.in_host else _ABSENT)
        self._recount_all()

    def _recount_all(self) -> None:
        for here in self.devices.values():
            self.recount(here)

    # ---- parts of the decision

    def _ledger(self, place: DeviceSlots) -> DeviceMemory:
        device = place.device
        return DeviceMemory(place, self._limit.of(device), self._limit.is_default(device))

    def _add(self, known: KnownModel, slot: Slot) -> Replica:
        slots, here = [slot] if known.is_apart else slot.place.slots, self.devices[slot.place]
        replica = Replica(known, slot.place, frozenset(other.number for other in slots), here.size_of(known))
        known.add(replica)
        here.replicas.append(replica)
        return replica

    def _note_freed(
        self, here: DeviceMemory, replica: Replica, freed: int | None, now: float, allocated: int | None = None
    ) -> None:
        """A replica has left its device: what is not back of its memory stays charged for a while."""
        here.note_change()
        here.recount()
        if left := missing(replica.taken, freed):
            name, beside = replica.known.model.name, surplus(here, allocated)
            here.returning.append(Returning(name, replica.taken, left, now, beside))
            self.has_news = True

    def _takes_turns(self, here: DeviceMemory, known: KnownModel, slot: Slot) -> bool:
        """Whether a load has to wait for another one: `slot` has better things to do meanwhile."""
        if here.is_loading and not known.is_apart:
            return True
        return here.is_being_cleared() or (here.is_loading and known.footprints.is_unknown(slot.device.name))

    def _room(self, here: DeviceMemory, lane: Lane, own: Replica | None, needed: int, with_room: Verdict) -> Verdict:
        """The verdict on a slot of `here` for a job that needs so many bytes more."""
        free, eviction = here.free(), here.eviction
        if here.is_metered and here.sample is None:  # what others use is not known yet
            return Verdict.NO
        if with_room is Verdict.LOAD and needed <= free and here.is_short(needed):
            return Verdict.NO
        if eviction is not None and eviction.lane is not lane:
            return with_room if needed <= free - here.promised() else Verdict.NO
        if needed <= free:
            return with_room
        if eviction is not None:  # its replicas are not unloaded yet
            return Verdict.NO
        can_go = [replica for replica in here.replicas if evictable(replica, own)]
        if not here.has_worked_enough():  # it serves what it holds first
            asked = in_demand(here, lane)
            can_go = [replica for replica in can_go if not asked(replica)]
        if needed > free + sum(replica.size for replica in can_go) or self._is_room_made_elsewhere(here, lane):
            return Verdict.NO
        return Verdict.EVICT

    def _is_room_made_elsewhere(self, here: DeviceMemory, lane: Lane) -> bool:
        """Whether other devices make room just now for each job of a lane that waits."""
        others = [other.eviction for other in self.devices.values() if other is not here]
        return lane.waiting <= sum(other.has_begun for other in others if other is not None and other.lane is lane)

    def _may_unload(self, replica: Replica, slot: Slot, here: DeviceMemory, asking: Slot | None) -> bool:
        if slot.number not in replica.numbers:
            return False
        if replica.state is _ASLEEP:
            return replica.is_requested
        return replica.state is _DRAINING and not here.is_in_use(replica, asking)
