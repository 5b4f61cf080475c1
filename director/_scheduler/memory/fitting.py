"""Whether the memory of the devices can hold a model, or a call, at all. Changes nothing."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from director._jobs.calls import load_only
from director._untrusted.numbers import size_text
from director.errors import PlacementError

if TYPE_CHECKING:
    from collections.abc import Callable

    from director._jobs.job import ScheduledJob
    from director._jobs.model import Model
    from director._scheduler.memory.ledger import DeviceMemory
    from director._scheduler.slots import DeviceSlots


class Fitting:
    """Compares what is asked for with the budgets of the devices, and with what is pinned there."""

    def __init__(
        self,
        places: list[DeviceSlots],
        devices: dict[DeviceSlots, DeviceMemory],
        is_apart: Callable[[Model[Any]], bool],
    ) -> None:
        self._places = places
        self._devices = devices
        self._is_apart = is_apart

    def ever(self, model: Model[Any] | None, memory: int, allowed: frozenset[int] | None) -> frozenset[int] | None:
        """See `fitting_slots`. Called on the event loop: the budgets don't change."""
        return fitting_slots({place: here.budget for place, here in self._devices.items()}, model, memory, allowed)

    def beside_pins(
        self, model: Model[Any], allowed: frozenset[int] | None, is_any_enough: bool
    ) -> frozenset[int] | None:
        """Numbers of the slots, among `allowed`, on whose devices pinned models leave room to load a model now.

        On the others it would wait until one of them is unloaded.

        Raises:
            PlacementError: It is so on one device, or with `is_any_enough` on all of them.
        """
        if model.memory is None:
            return allowed
        there = [place for place in self._places if not place.is_gone]
        places = [place for place in there if allowed is None or any(slot.number in allowed for slot in place.slots)]
        found = {place: self._shortage(model, place, allowed, is_any_enough) for place in places}
        short = {place: error for place, error in found.items() if error is not None}
        if short and (not is_any_enough or len(short) == len(places)):
            raise next(iter(short.values()))
        if not short:
            return allowed
        numbers = frozenset(slot.number for place in places if place not in short for slot in place.slots)
        return numbers if allowed is None else numbers & allowed

    def refusal(self, job: ScheduledJob[Any]) -> PlacementError | None:
        """Why a waiting job that only loads a model on one device would wait for ever; `None` of any other job.

        Others were pinned after it was queued.
        """
        model, allowed = job.options.model, job.options.allowed
        if job.fn is not load_only or model is None or allowed is None:
            return None
        for place in self._places:
            if any(slot.number in allowed for slot in place.slots):
                return self._shortage(model, place, allowed, is_any_enough=False)
        return None

    def _shortage(
        self, model: Model[Any], place: DeviceSlots, numbers: frozenset[int] | None, is_any_enough: bool
    ) -> PlacementError | None:
        """The error of a load on these slots of a device, if pinned replicas leave no room for it."""
        here = self._devices[place]
        slots = [slot for slot in place.slots if numbers is None or slot.number in numbers]
        is_apart = self._is_apart(model)
        # One that is not pinned may leave again before it is loaded for the next slot.
        count = len(slots) if is_apart and model.pin and not is_any_enough else 1
        needed = (model.memory or 0) * count
        held = sum(
            replica.size
            for replica in here.replicas
            if replica.known.model.pin
            and (
                replica.known.model._key != model._key
                or (is_apart and replica.numbers.isdisjoint(slot.number for slot in slots))
            )
        )
        if needed + held <= (math.inf if here.budget is None else here.budget):
            return None
        many = f" on {count} slots" if count > 1 else ""
        return PlacementError(
            f"{model!r} needs {size_text(needed)}{many}, and models with pin=True leave no room for it on "
            f"{place.device.label}: they have {size_text(held)} of {size_text(here.budget or 0)}. "
            "Unload one of them, or pin fewer"
        )


def fitting_slots(
    budgets: dict[DeviceSlots, int | None], model: Model[Any] | None, memory: int, allowed: frozenset[int] | None
) -> frozenset[int] | None:
    """Numbers of the slots, among `allowed`, whose devices could ever hold `model` and a call's `memory`.

    `None` for all.

    Raises:
        PlacementError: None could.
    """
    size = 0 if model is None or model.memory is None else model.memory
    needed = size + memory
    if all(budget is None or needed <= budget for budget in budgets.values()):
        return allowed
    able = [place for place, budget in budgets.items() if budget is None or needed <= budget]
    numbers = {slot.number for place in able for slot in place.slots}
    fits = frozenset(numbers if allowed is None else numbers & allowed)
    if fits:
        return fits
    asked = [place for place in budgets if allowed is None or place.slots[0].number in allowed]
    have = ", ".join(f"{place.device.label} {size_text(budgets[place] or 0)}" for place in asked)
    parts = [] if model is None else [f"{size_text(size)} for {model!r}"]
    parts += [f"{size_text(memory)} for the call"] if memory else []
    raise PlacementError(
        f"it needs {size_text(needed)} of a device's memory ({', '.join(parts)}), and may have at most: {have}. "
        "Use larger devices, raise memory_limit, or lower memory= if it says too much"
    )
