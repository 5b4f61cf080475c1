"""Which slots have which model loaded."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from director._untrusted.numbers import shown
from director.errors import PlacementError

if TYPE_CHECKING:
    from director._jobs.model import Model
    from director._scheduler.slots import DeviceSlots, Slot

_NONE: tuple[None, frozenset[int]] = (None, frozenset())


class Residency:
    """Which slots have which model loaded, and which places a model may be loaded on.

    Args:
        places: The devices of the Director with their slots.
    """

    def __init__(self, places: list[DeviceSlots]) -> None:
        self._places = places
        self._lock = threading.RLock()
        self.is_per_slot = False  # each slot has replicas of its own; set by the code that makes the runners
        # By identity: a subclass of `Model` may define what is equal. The entries keep the models alive.
        self._resident: dict[int, tuple[Model[Any], frozenset[int]]] = {}
        self._assigned: dict[int, tuple[Model[Any], frozenset[int]]] = {}

    def resident(self, model: Model[Any]) -> frozenset[int]:
        """Numbers of the slots that can serve `model` without loading."""
        return self._resident.get(id(model), _NONE)[1]

    def add(self, model: Model[Any], slot: Slot) -> None:
        """A replica was loaded by `slot`."""
        sharing = self._sharing(model, slot)
        with self._lock:
            self._resident = {**self._resident, id(model): (model, self.resident(model) | sharing)}

    def remove(self, model: Model[Any], slot: Slot) -> None:
        """The replica loaded by `slot` was unloaded."""
        sharing = self._sharing(model, slot)
        with self._lock:
            self._resident = {**self._resident, id(model): (model, self.resident(model) - sharing)}

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
        there = [p for p in self._places if not p.is_gone]
        places = [p for p in there if allowed is None or p.slots[0].number in allowed]
        if len(places) < replicas and id(model) not in self._assigned:
            raise PlacementError(f"{model!r} wants {shown(replicas)} replicas and may use {len(places)} devices")
        with self._lock:
            if id(model) not in self._assigned:
                self._assigned = {id(model): (model, self._choose(places, replicas, wanted)), **self._assigned}
            return self._assigned[id(model)][1]

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
