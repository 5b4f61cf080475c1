"""Submits the jobs of items to a Director: each by itself, or in batches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from director import Device, Director, Job, Model

_AUTO = 64  # items of a batch with `--batch-size auto`, which the Director halves when the memory is full


class PlainJobs:
    """A job for each item."""

    def __init__(self, director: Director, model: Model[Any] | None, name: str) -> None:
        self._director = director
        self._options: dict[str, Any] = {"model": model, "name": name}

    def window(self, slots: int) -> int:
        """The fewest items between input and output that keep the slots busy."""
        return 2 * slots

    def submit(
        self, function: Callable[[Any, Any], Any], value: Any, timeout: float | None, avoided: Sequence[Device]
    ) -> Job[Any]:
        """Queue a call; see `rules.Jobs`."""
        devices = others(self._director, avoided) if avoided else None
        return self._director.submit(function, value, timeout=timeout, devices=devices, **self._options)

    def slots_of(self, device: str) -> int:
        """How many slots a device has."""
        return slots_of(self._director, device)


class BatchJobs:
    """A job for each item, whose calls the Director makes for many items together.

    Args:
        director: Open.
        function: Called with the resource and a list of values.
        model: The model whose replica the function gets.
        name: Of the function.
        size: Most items of a call; 0 for as many as the memory allows.
    """

    def __init__(
        self, director: Director, function: Callable[[Any, Any], Any], model: Model[Any] | None, name: str, size: int
    ) -> None:
        self._director = director
        self._size = size or _AUTO
        self._function = director.function(
            function, max_batch_size=self._size, isolate_failures=True, model=model, name=name
        )

    def window(self, slots: int) -> int:
        """The fewest items between input and output that keep the slots busy: two full batches for each."""
        return 2 * slots * self._size

    def submit(
        self, function: Callable[[Any, Any], Any], value: Any, timeout: float | None, avoided: Sequence[Device]
    ) -> Job[Any]:
        """Queue an item; see `rules.Jobs`."""
        if timeout is None and not avoided:
            return self._function.submit(value)
        devices = others(self._director, avoided) if avoided else None
        return self._function.with_options(timeout=timeout, devices=devices).submit(value)

    def slots_of(self, device: str) -> int:
        """How many slots a device has."""
        return slots_of(self._director, device)


def others(director: Director, avoided: Sequence[Device]) -> list[Device] | None:
    """The devices that get work, without the avoided ones; `None`, which is all, if there is no other."""
    rest = [each.device for each in director.stats().devices if each.reason is None and each.device not in avoided]
    return rest or None


def slots_of(director: Director, device: str) -> int:
    """How many slots a device has."""
    return next((stats.slots for stats in director.stats().devices if stats.device.label == device), 1)
