"""From what a user typed to what one running Director can use: device names become slots."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from director._device import Device, find_device
from director._models import Model
from director._options import JobOptions, Options
from director.errors import PlacementError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from director._core.slot import Place
    from director._models import Residency


_KNOWN = tuple(JobOptions.__annotations__)


def check(options: dict[str, Any]) -> None:
    """Raise what is wrong with `options`, before anything is queued.

    Raises:
        TypeError: An unknown option, or a value of the wrong type.
        ValueError: A value out of range.
    """
    for option in options:
        if option not in _KNOWN:
            raise TypeError(
                f"unknown option {option!r}; known: {', '.join(_KNOWN)}. "
                "Keyword arguments of the function itself go through functools.partial."
            )
    model, priority, name = options.get("model"), options.get("priority", 0), options.get("name")
    if model is not None and not isinstance(model, Model):
        raise TypeError(f"model must be a director.Model, not {model!r}; Model(load) makes one from a loader")
    if not isinstance(priority, int):
        raise TypeError(f"priority must be an int, not {priority!r}")
    if name is not None and not isinstance(name, str):
        raise TypeError(f"name must be a str, not {name!r}")
    _check_seconds("deadline", options.get("deadline"))
    _check_seconds("timeout", options.get("timeout"))


def _check_seconds(name: str, value: Any) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be seconds as a number or None, not {value!r}")
    if not value > 0:  # also refuses NaN
        raise ValueError(f"{name} must be positive seconds, not {value!r}")


def resolve(options: JobOptions, places: list[Place], residency: Residency) -> Options:
    """Options checked, and the devices of job and model turned into the slots that may run it.

    Raises:
        TypeError: An unknown option, or one of the wrong type.
        ValueError: An option out of range.
        PlacementError: No slot is left.
    """
    check(dict(options))
    model = options.get("model")
    allowed = _slots_of(options.get("devices"), places)
    if model is not None:
        homes = residency.homes(model, _slots_of(model.devices, places), allowed)
        if allowed is None or homes is None:
            allowed = homes if allowed is None else allowed
        elif not (allowed := allowed & homes):
            raise PlacementError(f"{model!r} may not be loaded on any of the devices asked for")
    return Options(
        model,
        options.get("priority", 0),
        options.get("deadline"),
        options.get("timeout"),
        allowed,
        options.get("name"),
    )


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
        counts[device] = count
    return [counts.get(device, 1) for device in devices]


def check_bounds(slots: Any, max_queue: Any) -> None:
    """Raise what is wrong with the numbers given to a Director.

    Raises:
        TypeError: One is not an int.
        ValueError: One is out of range.
    """
    for count in slots.values() if hasattr(slots, "values") else [slots]:
        if isinstance(count, bool) or not isinstance(count, int):
            raise TypeError(f"slots must be an int or a mapping from device to int, not {slots!r}")
        if count < 1:
            raise ValueError(f"a device needs at least one slot, not {count}; to spare it, leave it out of `devices`")
    if max_queue is None:
        return
    if isinstance(max_queue, bool) or not isinstance(max_queue, int):
        raise TypeError(f"max_queue must be an int or None, not {max_queue!r}")
    if max_queue < 0:
        raise ValueError(f"max_queue must not be negative, not {max_queue}; None means no bound")


def check_words(name: Any, hooks: tuple[Any, ...]) -> None:
    """Raise what is wrong with the name and the hooks given to a Director.

    Raises:
        TypeError: The name is no string, or a hook can't be called.
    """
    if name is not None and not isinstance(name, str):
        raise TypeError(f"name must be a str, not {name!r}")
    for hook in hooks:
        if not callable(hook):
            raise TypeError(f"a hook must be a callable that takes one event, not {hook!r}")


def _slots_of(
    wanted: Iterable[Device | int | str] | Device | int | str | None, places: list[Place]
) -> frozenset[int] | None:
    """Numbers of the slots of the devices that are meant; `None` for all."""
    if wanted is None:
        return None
    devices = tuple(place.device for place in places)
    keys = [wanted] if isinstance(wanted, (Device, int, str)) or not isinstance(wanted, Iterable) else list(wanted)
    for key in keys:
        if isinstance(key, bool) or not isinstance(key, (Device, int, str)):
            raise TypeError(f"devices must be Device, index, UUID or name, or several of them, not {wanted!r}")
    found = {find_device(devices, key) for key in keys}
    if not found:
        raise PlacementError("an empty list of devices leaves nothing to run on; None means all")
    if len(found) == len(places):
        return None
    return frozenset(slot.number for place in places if place.device in found for slot in place.slots)
