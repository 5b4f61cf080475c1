"""Which slots have which model loaded, and where a load has failed lately."""

from __future__ import annotations

import threading
from enum import Enum
from typing import TYPE_CHECKING, Any
from weakref import ref

from director._untrusted.numbers import shown
from director.errors import PlacementError

if TYPE_CHECKING:
    from collections.abc import Callable

    from director._jobs.model import Model
    from director._scheduler.slots import DeviceSlots, Slot

_NONE: tuple[None, frozenset[int]] = (None, frozenset())
_BACKOFF, _LONGEST_BACKOFF = 1.0, 60.0  # seconds before a device is offered to a model again; doubled each time


class ReplicaState(Enum):
    """What a slot has of a model.

    | from | to | by |
    |---|---|---|
    | `ABSENT`, `FAILED_UNTIL` | `LOADING` | the runner of a slot calls the loader |
    | `LOADING`, `ABSENT`, `FAILED_UNTIL` | `RESIDENT` | the replica is loaded and warm; a runner may report that only |
    | `LOADING`, `ABSENT`, `RESIDENT` | `FAILED_UNTIL` | the loader, or the warm-up, raised |
    | `ABSENT` | `FAILED_UNTIL` | it raised for another slot of the device |
    | `FAILED_UNTIL` | `ABSENT` | the back-off is over |
    | `RESIDENT` | `UNLOADING` | the runner unloads the replica |
    | `RESIDENT`, `UNLOADING`, `LOADING` | `ABSENT` | it is unloaded, or was lost with its process |
    """

    ABSENT = "absent"
    LOADING = "loading"
    RESIDENT = "resident"
    UNLOADING = "unloading"
    FAILED_UNTIL = "failed until"


_ABSENT, _LOADING, _RESIDENT = ReplicaState.ABSENT, ReplicaState.LOADING, ReplicaState.RESIDENT
_UNLOADING, _FAILED = ReplicaState.UNLOADING, ReplicaState.FAILED_UNTIL

REPLICA_MOVES: dict[ReplicaState, frozenset[ReplicaState]] = {
    _ABSENT: frozenset({_LOADING, _RESIDENT, _FAILED}),
    _LOADING: frozenset({_RESIDENT, _FAILED, _ABSENT}),
    _RESIDENT: frozenset({_UNLOADING, _ABSENT, _FAILED}),
    _UNLOADING: frozenset({_ABSENT}),
    _FAILED: frozenset({_LOADING, _RESIDENT, _ABSENT}),
}


class ModelOnDevice:
    """A model on one device: the states of its slots, and the loads that failed there. Written by `Residency` alone."""

    __slots__ = ("failed_until", "failures", "model", "place", "states")

    def __init__(self, model: Model[Any], place: DeviceSlots) -> None:
        self.model = model
        self.place = place
        self.states = {slot.number: _ABSENT for slot in place.slots}
        self.failures = 0  # loads that failed in a row
        self.failed_until: float | None = None  # the end of the back-off, in seconds of the Director's clock

    def move(self, numbers: frozenset[int], to: ReplicaState) -> None:
        """Change the state of slots. What `REPLICA_MOVES` lacks changes nothing: users write runners too."""
        self.states.update({number: to for number in numbers if to in REPLICA_MOVES[self.states[number]]})

    def move_all(self, state: ReplicaState, to: ReplicaState) -> None:
        """Change the state of all slots that have `state`."""
        self.move(frozenset(number for number, found in self.states.items() if found is state), to)


class Residency:
    """Which slots have which model loaded, and which places a model may be loaded on.

    Args:
        places: The devices of the Director with their slots.
        collected: Called with the key of a model to which nothing refers any more: by the garbage collector, on any
            thread, within anything.
    """

    def __init__(self, places: list[DeviceSlots], collected: Callable[[int], None] = lambda _key: None) -> None:
        self._places = places
        self._collected = collected
        self._lock = threading.RLock()
        self.is_per_slot = False  # each slot has replicas of its own; set by the code that makes the runners
        # By key: a subclass of `Model` may define what is equal. Nothing here keeps a model alive.
        self._watched: dict[int, ref[Model[Any]]] = {}
        self._on_device: dict[tuple[int, DeviceSlots], ModelOnDevice] = {}
        self._resident: dict[int, tuple[Model[Any], frozenset[int]]] = {}  # these two are made from the states
        self._failed: dict[int, tuple[Model[Any], frozenset[int]]] = {}
        self._assigned: dict[int, tuple[Model[Any], frozenset[int]]] = {}

    def resident(self, model: Model[Any]) -> frozenset[int]:
        """Numbers of the slots that can serve `model` without loading."""
        return self._resident.get(model._key, _NONE)[1]

    def failed(self, model: Model[Any]) -> frozenset[int]:
        """Numbers of the slots on whose devices `model` could not be loaded lately: the back-off goes on."""
        return self._failed.get(model._key, _NONE)[1]

    def state(self, model: Model[Any], slot: Slot) -> ReplicaState:
        """What `slot` has of `model`."""
        entry = self._on_device.get((model._key, slot.place))
        return _ABSENT if entry is None else entry.states[slot.number]

    def begin(self, model: Model[Any], slot: Slot) -> None:
        """`slot` loads a replica."""
        self._move(model, slot, _LOADING)

    def add(self, model: Model[Any], slot: Slot) -> None:
        """A replica was loaded by `slot`."""
        self._move(model, slot, _RESIDENT)

    def fail(self, model: Model[Any], slot: Slot, now: float) -> tuple[float, float]:
        """`slot` could not load a replica.

        Returns:
            The seconds for which other devices are preferred, and the time at which they are over: for `end_backoff`.
        """
        with self._lock:
            entry = self._entry(model, slot.place)
            entry.failures += 1
            delay = min(_LONGEST_BACKOFF, _BACKOFF * 2.0 ** min(entry.failures - 1, 60))
            entry.failed_until = until = now + delay
            entry.move(self._sharing(model, slot), _FAILED)
            entry.move_all(_ABSENT, _FAILED)
            self._publish(model)
            return delay, until

    def end_backoff(self, model: Model[Any], place: DeviceSlots, until: float) -> None:
        """The back-off of `model` on a device that ended at `until` is over; no later load has made another."""
        with self._lock:
            entry = self._on_device.get((model._key, place))
            if entry is not None and entry.failed_until == until:
                entry.failed_until = None
                entry.move_all(_FAILED, _ABSENT)
                self._publish(model)

    def begin_removal(self, model: Model[Any], slot: Slot) -> None:
        """`slot` unloads the replica that it has loaded."""
        self._move(model, slot, _UNLOADING)

    def remove(self, model: Model[Any], slot: Slot) -> bool:
        """The replica loaded by `slot` was unloaded, or lost; or its load was. Returns whether it had been loaded."""
        with self._lock:
            was_loaded = self.state(model, slot) in (_RESIDENT, _UNLOADING)
            self._move(model, slot, _ABSENT)
            return was_loaded

    def on(self, place: DeviceSlots) -> tuple[Model[Any], ...]:
        """Models with a replica on a place."""
        numbers = {slot.number for slot in place.slots}
        with self._lock:
            return tuple(model for model, resident in self._resident.values() if resident & numbers)

    def forget_assigned(self, place: DeviceSlots) -> None:
        """A device is gone: models assigned to it are assigned again when they are next needed."""
        numbers = {slot.number for slot in place.slots}
        with self._lock:
            self._assigned = {key: entry for key, entry in self._assigned.items() if not entry[1] & numbers}

    def assign(
        self, model: Model[Any], allowed: frozenset[int] | None, wanted: frozenset[int] | None
    ) -> frozenset[int] | None:
        """Numbers of the slots that may load `model`, chosen when it is first needed; `None` for all.

        Args:
            model: What is to be loaded.
            allowed: Slots that the model's own `devices` allow.
            wanted: Slots that the job which needs it may run on; preferred.

        Raises:
            PlacementError: It wants more replicas than there are devices for it.
        """
        replicas = model.replicas
        if replicas is None:
            return allowed
        places = homes(self._places, allowed)
        if model._key not in self._assigned:
            check_replicas(model, places)
        with self._lock:
            if model._key not in self._assigned:
                self._watch(model)
                chosen = self._choose(places, replicas, wanted)
                self._assigned = {model._key: (model._kept(), chosen), **self._assigned}
            return self._assigned[model._key][1]

    def kept(self, key: int) -> Model[Any] | None:
        """What is kept of the model with this key, if it was loaded here or assigned."""
        with self._lock:
            entry = self._assigned.get(key) or self._resident.get(key) or self._failed.get(key)
            return None if entry is None else entry[0]

    def forget(self, key: int) -> None:
        """The model with this key was collected, and all its replicas are unloaded."""
        with self._lock:
            self._on_device = {pair: entry for pair, entry in self._on_device.items() if pair[0] != key}
            self._resident = {each: entry for each, entry in self._resident.items() if each != key}
            self._failed = {each: entry for each, entry in self._failed.items() if each != key}
            self._assigned = {each: entry for each, entry in self._assigned.items() if each != key}
            self._watched.pop(key, None)

    def _watch(self, model: Model[Any]) -> None:
        """Have `collected` called when nothing refers to a model any more."""
        key, collected = model._key, self._collected
        if model._origin is None and key not in self._watched:
            self._watched[key] = ref(model, lambda _gone: collected(key))

    def _move(self, model: Model[Any], slot: Slot, to: ReplicaState) -> None:
        with self._lock:
            entry = self._entry(model, slot.place)
            entry.move(self._sharing(model, slot), to)
            if to is _RESIDENT:
                entry.failures, entry.failed_until = 0, None
                entry.move_all(_FAILED, _ABSENT)
            self._publish(model)

    def _entry(self, model: Model[Any], place: DeviceSlots) -> ModelOnDevice:
        key = (model._key, place)
        entry = self._on_device.get(key)
        if entry is None:
            self._watch(model)
            entry = self._on_device[key] = ModelOnDevice(model._kept(), place)
        return entry

    def _publish(self, model: Model[Any]) -> None:
        """Make the sets that are read without the lock."""
        states = [pair for entry in self._of(model) for pair in entry.states.items()]
        key, kept = model._key, model._kept()
        resident = frozenset(number for number, state in states if state is _RESIDENT)
        failed = frozenset(number for number, state in states if state is _FAILED)
        self._resident = {**self._resident, key: (kept, resident)}
        self._failed = {**self._failed, key: (kept, failed)}

    def _of(self, model: Model[Any]) -> list[ModelOnDevice]:
        return [entry for place in self._places if (entry := self._on_device.get((model._key, place))) is not None]

    def _sharing(self, model: Model[Any], slot: Slot) -> frozenset[int]:
        """The slots that use the replica which `slot` loaded."""
        if self.is_per_slot or model.per_slot:
            return frozenset({slot.number})
        return frozenset(s.number for s in slot.place.slots)

    def _choose(self, places: list[DeviceSlots], replicas: int, wanted: frozenset[int] | None) -> frozenset[int]:
        def reluctance(place: DeviceSlots) -> tuple[bool, int]:
            number = place.slots[0].number
            return wanted is not None and number not in wanted, sum(
                number in assigned for _, assigned in self._assigned.values()
            )

        places.sort(key=reluctance)
        return frozenset(slot.number for place in places[:replicas] for slot in place.slots)


def homes(places: list[DeviceSlots], allowed: frozenset[int] | None) -> list[DeviceSlots]:
    """The devices that are there and may load a model whose `devices` allow these slots; `None` for all."""
    there = [place for place in places if not place.is_gone]
    return [place for place in there if allowed is None or place.slots[0].number in allowed]


def check_replicas(model: Model[Any], places: list[DeviceSlots]) -> None:
    """Check that there are devices enough for the replicas of a model.

    Raises:
        PlacementError: There are fewer.
    """
    replicas = model.replicas
    if replicas is not None and len(places) < replicas:
        raise PlacementError(f"{model!r} wants {shown(replicas)} replicas and may use {len(places)} devices")
