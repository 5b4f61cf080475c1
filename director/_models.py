"""Models, and where they are resident.

`Residency` is written by the slots' threads (loaded, unloaded) and by the Director (homes), under its own short lock;
`warm` is read under `dispatch`'s lock and therefore takes none: it hands out a frozen set that is replaced as a whole.
So are the two dicts, and the lock is reentrant: a finalizer or a signal handler may ask in the midst of a change.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from director._device import Device
from director._numbers import shown, whole
from director._user_objects import name_of, repr_of
from director.errors import PlacementError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from director._core.slot import Place, Slot

R = TypeVar("R")
_NONE: tuple[None, frozenset[int]] = (None, frozenset())


class Model(Generic[R]):
    """What jobs need loaded: one replica for each device, loaded when a job first needs it there.

    A job with ``model=`` gets the replica as its first argument. Loading, warming up, running and unloading happen on
    slots' own threads; whoever needs a replica that is just being loaded waits for that one load.

    Args:
        load: ``load(device)`` makes a replica. What it raises fails the jobs that wait for it; later jobs try again.
        unload: ``unload(replica)`` when it is let go; by default the reference is dropped.
        warmup: ``warmup(replica)`` after loading, before the first job sees the replica.
        devices: The devices it may be loaded on (`Device`, index, UUID or name); `None` for all.
        replicas: Load it on that many devices only, those with the fewest models; `None` for all.
        per_slot: One replica for each slot instead of each device, for code that is bound to one thread.
        name: For people; `None` takes the loader's name.

    Raises:
        TypeError: An argument of the wrong type.
        ValueError: `replicas` is below 1.
    """

    def __init__(
        self,
        load: Callable[[Device], R],
        *,
        unload: Callable[[R], object] | None = None,
        warmup: Callable[[R], object] | None = None,
        devices: Iterable[Device | int | str] | Device | int | str | None = None,
        replicas: int | None = None,
        per_slot: bool = False,
        name: str | None = None,
    ) -> None:
        if not callable(load):
            raise TypeError(f"Model(load) needs a callable that takes a Device, not {repr_of(load)}")
        if replicas is not None:
            replicas = whole("replicas", replicas, 1, kind="an int or None")
        for option, value in (("unload", unload), ("warmup", warmup)):
            if value is not None and not callable(value):
                raise TypeError(f"{option} must be a callable that takes a replica, not {repr_of(value)}")
        if name is not None and not isinstance(name, str):
            raise TypeError(f"name must be a str, not {name!r}")
        self.load = load
        self.unload = unload
        self.warmup = warmup
        self.devices = devices if devices is None or isinstance(devices, (Device, int, str)) else tuple(devices)
        self.replicas = replicas
        self.per_slot = per_slot
        self.name: str = name or name_of(load)

    def __repr__(self) -> str:
        return f"<Model {self.name!r}>"


class Residency:
    """Which slots have which model loaded, and which places a model may be loaded on.

    Args:
        places: The devices of the Director with their slots.
    """

    def __init__(self, places: list[Place]) -> None:
        self._places = places
        self._lock = threading.RLock()
        self.is_apart = False  # each slot has replicas of its own; whoever makes the seats says so
        # By identity: a subclass of `Model` may define what is equal. The entries keep the models alive.
        self._warm: dict[int, tuple[Model[Any], frozenset[int]]] = {}
        self._homes: dict[int, tuple[Model[Any], frozenset[int]]] = {}

    def warm(self, model: Model[Any]) -> frozenset[int]:
        """Numbers of the slots that can serve `model` without loading."""
        return self._warm.get(id(model), _NONE)[1]

    def add(self, model: Model[Any], slot: Slot) -> None:
        """A replica was loaded by `slot`."""
        sharing = self._sharing(model, slot)
        with self._lock:
            self._warm = {**self._warm, id(model): (model, self.warm(model) | sharing)}

    def remove(self, model: Model[Any], slot: Slot) -> None:
        """The replica loaded by `slot` was let go."""
        sharing = self._sharing(model, slot)
        with self._lock:
            self._warm = {**self._warm, id(model): (model, self.warm(model) - sharing)}

    def on(self, place: Place) -> tuple[Model[Any], ...]:
        """Models with a replica on a place."""
        numbers = {slot.number for slot in place.slots}
        with self._lock:
            return tuple(model for model, warm in self._warm.values() if warm & numbers)

    def forget_homes(self, place: Place) -> None:
        """A device is gone: models that were to be loaded there find homes anew when they are next asked for."""
        numbers = {slot.number for slot in place.slots}
        with self._lock:
            self._homes = {key: entry for key, entry in self._homes.items() if not entry[1] & numbers}

    def homes(
        self, model: Model[Any], allowed: frozenset[int] | None, wanted: frozenset[int] | None
    ) -> frozenset[int] | None:
        """Numbers of the slots that may load `model`, chosen when it is first needed; `None` for all.

        Args:
            model: What is to be loaded.
            allowed: Slots that the model's own `devices` allow.
            wanted: Slots that the job which needs it may run on: they come first.

        Raises:
            PlacementError: It wants more replicas than there are devices for it.
        """
        replicas = model.replicas
        if replicas is None:
            return allowed
        there = [p for p in self._places if not p.is_gone]
        places = [p for p in there if allowed is None or p.slots[0].number in allowed]
        if len(places) < replicas and id(model) not in self._homes:
            raise PlacementError(f"{model!r} wants {shown(replicas)} replicas and may use {len(places)} devices")
        with self._lock:
            if id(model) not in self._homes:
                self._homes = {id(model): (model, self._choose(places, replicas, wanted)), **self._homes}
            return self._homes[id(model)][1]

    def _sharing(self, model: Model[Any], slot: Slot) -> frozenset[int]:
        """The slots that use the replica which `slot` loaded."""
        if self.is_apart or model.per_slot:
            return frozenset({slot.number})
        return frozenset(s.number for s in slot.place.slots)

    def _choose(self, places: list[Place], replicas: int, wanted: frozenset[int] | None) -> frozenset[int]:
        def reluctance(place: Place) -> tuple[bool, int]:
            number = place.slots[0].number
            return wanted is not None and number not in wanted, sum(number in home for _, home in self._homes.values())

        places.sort(key=reluctance)
        return frozenset(slot.number for place in places[:replicas] for slot in place.slots)
