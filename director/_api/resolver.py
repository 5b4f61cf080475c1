"""Resolves the options of a user for one open Director: devices become slots."""

from __future__ import annotations

import logging
from itertools import count as counted
from types import CodeType, NoneType
from typing import TYPE_CHECKING, Any, TypeAlias

from director._api.validation import check, errors_of, named_devices
from director._device import Device
from director._jobs.model import Model
from director._jobs.options import JobOptions, Options
from director._untrusted.numbers import MOST_SLOTS, whole
from director._untrusted.objects import repr_of
from director.errors import PlacementError

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Mapping

    from director._jobs.options import BatchRule
    from director._scheduler.slots import DeviceSlots
    from director._untrusted.keys import Interner

    Numbers: TypeAlias = frozenset[int] | None
    Assign: TypeAlias = Callable[[Model[Any], Numbers, Numbers], Numbers]
    Fitting: TypeAlias = Callable[[Model[Any] | None, int, Numbers], Numbers]

logger = logging.getLogger("director")
# By identity: a user's class may define its own hash.
_COMPARED = frozenset(map(id, (str, int, float, bool, bytes, NoneType, Device, Model, type)))
_MANY_MODELS = 64
_REMEMBERED = 256  # combinations of options; then it forgets them all
_MOST_RESOLVERS = 8  # whose options a model keeps
_numbers = counted()


class Resolver:
    """Options of one running Director, each combination checked and resolved once."""

    def __init__(
        self,
        places: list[DeviceSlots],
        assign: Assign,
        fitting: Fitting,
        surround: Callable[[Model[Any]], None],
        interner: Interner,
    ) -> None:
        self._surround = surround
        self._interner = interner
        self._places = places
        self._assign = assign
        self._fitting = fitting
        self._number = next(_numbers)
        self._known: dict[Hashable, Options] = {}  # without a model
        self._models: dict[CodeType, set[int]] = {}  # keys of models, by the code of their loader

    def resolve(self, options: JobOptions, batch: BatchRule | None = None) -> Options:
        """Options checked, and the devices of job and model turned into the slots that may run it.

        Raises:
            TypeError: An unknown option, or one of the wrong type.
            ValueError: An option out of range.
            PlacementError: No slot is left.
        """
        key: Hashable = batch
        known = self._known
        if options:
            values = tuple(options.values())
            types = tuple(map(type, values))
            if not (_COMPARED.issuperset(map(id, types)) or all(map(_is_compared, values))):
                return self._resolve(options, batch)  # a user's class may have any `__eq__`
            key = (batch, tuple(options), values, types)  # the types: True is equal to 1
            if (model := options.get("model")) is not None:
                if (of_model := self._known_of(model)) is None:
                    return self._resolve(options, batch)
                known = of_model
        if (found := known.get(key)) is not None:
            return found
        resolved = self._resolve(options, batch)
        if len(known) >= _REMEMBERED:
            known.clear()
        known[key] = resolved
        return resolved

    def forget(self) -> None:
        """Devices have joined or left."""
        self._known = {}  # another one: a thread that resolves options now keeps them in the old one
        self._number = next(_numbers)

    def _known_of(self, model: Any) -> dict[Hashable, Options] | None:
        """The options with a model; `None` the first time: one that is used once is freed without the cycle."""
        if not isinstance(model, Model):
            return None
        known = model._resolved.get(self._number)
        if known is None:
            if len(model._resolved) >= _MOST_RESOLVERS:
                model._resolved.clear()
            model._resolved[self._number] = {}
        return known

    def _count(self, model: Model[Any]) -> None:
        """Warn once if a loader is made into a Model again and again, as in each request. On any thread."""
        code = getattr(model.load, "__code__", None)
        if type(code) is not CodeType:
            return
        models = self._models.setdefault(code, set())
        if len(models) < _MANY_MODELS:
            models.add(model._key)
            if len(models) == _MANY_MODELS:
                logger.warning(
                    "%d Models were made of the loader %s: each is loaded by itself, and unloaded when it is "
                    "collected. Make one Model, at the top of a module, and use it for all jobs",
                    _MANY_MODELS,
                    model.name,
                )

    def _resolve(self, options: JobOptions, batch: BatchRule | None) -> Options:
        options = check(options)
        model, tenant = options.get("model"), options.get("tenant")
        allowed = _slots_of(options.get("devices"), self._places)
        if model is not None:
            self._count(model)
            if model.around is not None:
                self._surround(model)
            assigned = self._assign(model, _slots_of(model.devices, self._places), allowed)
            if allowed is None or assigned is None:
                allowed = assigned if allowed is None else allowed
            elif not (allowed := allowed & assigned):
                raise PlacementError(f"{model!r} may not be loaded on any of the devices asked for")
        memory = options.get("memory") or 0
        assert isinstance(memory, int), "checked above"
        if model is not None or memory:
            allowed = self._fitting(model, memory, allowed)
        return Options(
            model=model,
            priority=options.get("priority", 0),
            deadline=options.get("deadline"),
            start_within=options.get("start_within"),
            timeout=options.get("timeout"),
            allowed=allowed,
            name=options.get("name"),
            tenant=tenant,
            account=self._interner.key_of(tenant),
            batch_rule=batch,
            retries=options.get("retries", 0),
            retry_on=errors_of(options),
            backoff=options.get("backoff") or 0.0,
            when_full=options.get("when_full"),
            memory=memory,
        )


def _is_compared(value: object) -> bool:
    """Whether a value, or each of a tuple, is of a class whose comparison is known."""
    return id(type(value)) in _COMPARED or (type(value) is tuple and _COMPARED.issuperset(map(id, map(type, value))))


def slot_counts(slots: int | Mapping[Device | int | str, int], devices: tuple[Device, ...]) -> list[int]:
    """Slots for each of `devices`; 1 where a mapping names none.

    Raises:
        PlacementError: The mapping names a device that isn't there.
        ValueError: It names one twice.
    """
    if isinstance(slots, int):
        return [slots] * len(devices)
    counts: dict[Device, int] = {}
    for key, count in slots.items():
        device = find_device(devices, key)
        if device in counts:
            raise ValueError(f"slots names {device.label} twice: {slots!r}")
        counts[device] = whole("slots", count, 1, MOST_SLOTS)
    return [counts.get(device, 1) for device in devices]


def newcomer_slots(slots: int | Mapping[Device | int | str, int], device: Device) -> int:
    """Slots for a device that joins; 1 where a mapping does not name it."""
    if isinstance(slots, int):
        return slots
    names = (device, device.uuid, device.name, device.label, device.index, str(device))
    return whole("slots", next((slots[name] for name in names if name in slots), 1), 1, MOST_SLOTS)


def _slots_of(
    wanted: Iterable[Device | int | str] | Device | int | str | None, places: list[DeviceSlots]
) -> frozenset[int] | None:
    """Numbers of the slots of these devices; `None` for all."""
    if wanted is None:
        return None
    found = {_find(places, key) for key in named_devices(wanted)}
    if not found:
        raise PlacementError("an empty list of devices leaves nothing to run on; None means all")
    if len(found) == len(places):
        return None
    return frozenset(slot.number for place in found for slot in place.slots)


def _find(places: list[DeviceSlots], key: Device | int | str) -> DeviceSlots:
    """The slots of a device; of one that has left only if no present one matches, so that it is refused by name."""
    there = [place for place in places if not place.is_gone]
    try:
        device = find_device(tuple(place.device for place in there), key)
    except PlacementError:
        there = places
        device = find_device(tuple(dict.fromkeys(place.device for place in places)), key)
    return next(place for place in there if place.device == device)


def find_device(devices: tuple[Device, ...], wanted: Device | int | str) -> Device:
    """The one of `devices` that `wanted` names: itself, its index, UUID, name, label or ``str``.

    Raises:
        PlacementError: None is, or several are.
    """
    matches = [d for d in devices if wanted == d or wanted in (d.index, d.uuid, d.name, d.label)]
    matches = matches or [d for d in devices if wanted == str(d)]
    if len(matches) != 1:
        known = ", ".join(f"{d.index} {d.label} {d.uuid}" for d in devices)
        raise PlacementError(f"{repr_of(wanted, 200)} names {len(matches)} of these devices: {known}")
    return matches[0]
