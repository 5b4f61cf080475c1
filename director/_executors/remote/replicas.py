"""The replicas of one child, on its main thread."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from director._device import Device

logger = logging.getLogger("director")


class ModelSpec:
    """How to make a replica: what of a `Model` a child needs.

    Args:
        load, warmup, unload: As the model's, or how they are sent.
        name: The model's.
    """

    def __init__(self, load: Any, warmup: Any, unload: Any, name: str) -> None:
        self.load = load
        self.warmup = warmup
        self.unload = unload
        self.name = name

    def __reduce__(self) -> Any:
        return ModelSpec, (self.load, self.warmup, self.unload, self.name)


class NotLoaded(Exception):
    """A replica could not be made; carries the loader's own error."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(error)
        self.error = error


class WorkerReplicas:
    """Replicas by the parent's number for their model.

    Args:
        device: Where they live.
        loaded: Called with the number and the seconds that loading took.
    """

    def __init__(self, device: Device, loaded: Callable[[int, float], None]) -> None:
        self._device = device
        self._loaded = loaded
        self._replicas: dict[int, tuple[Any, ModelSpec]] = {}

    def get(self, number: int, recipe: ModelSpec | None) -> Any:
        """The replica of a model, made if need be.

        Raises:
            NotLoaded: With the loader's error.
        """
        if number not in self._replicas:
            assert recipe is not None, "the parent sends it until it has heard that the model is loaded"
            self._replicas[number] = self._load(number, recipe), recipe
        return self._replicas[number][0]

    def clear(self) -> None:
        """Unload everything, the last first."""
        while self._replicas:
            _unload(*self._replicas.popitem()[1], self._device)

    def _load(self, number: int, recipe: ModelSpec) -> Any:
        began = time.monotonic()
        try:
            replica = recipe.load(self._device)
            if recipe.warmup is not None:
                try:
                    recipe.warmup(replica)
                except BaseException:
                    _unload(replica, recipe, self._device)
                    raise
        except BaseException as error:
            raise NotLoaded(error) from error
        self._loaded(number, time.monotonic() - began)
        return replica


def _unload(replica: Any, recipe: ModelSpec, device: Device) -> None:
    if recipe.unload is not None:
        try:
            recipe.unload(replica)
        except BaseException:  # whatever it is, the other replicas must go too
            logger.exception("unloading %s from %s failed", recipe.name, device.label)
