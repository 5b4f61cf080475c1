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
    """A `Model` as it is sent to another process.

    Args:
        load, warmup, unload: The model's, or what is sent for them.
        name: The model's name.
    """

    def __init__(self, load: Any, warmup: Any, unload: Any, name: str) -> None:
        self.load = load
        self.warmup = warmup
        self.unload = unload
        self.name = name

    def __reduce__(self) -> Any:
        return ModelSpec, (self.load, self.warmup, self.unload, self.name)


class NotLoaded(Exception):
    """A replica could not be loaded; carries the loader's exception."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(error)
        self.error = error


class WorkerReplicas:
    """Replicas by the parent's number of their model.

    Args:
        device: The device.
        loaded: Called with the number and the seconds of the load.
    """

    def __init__(self, device: Device, loaded: Callable[[int, float], None]) -> None:
        self._device = device
        self._loaded = loaded
        self._replicas: dict[int, tuple[Any, ModelSpec]] = {}

    def get(self, number: int, spec: ModelSpec | None) -> Any:
        """The replica of a model, loaded if there is none.

        Raises:
            NotLoaded: With the loader's error.
        """
        if number not in self._replicas:
            assert spec is not None, "the parent sends it until it knows that the model is loaded"
            self._replicas[number] = self._load(number, spec), spec
        return self._replicas[number][0]

    def clear(self) -> None:
        """Unload everything, the last first."""
        while self._replicas:
            _unload(*self._replicas.popitem()[1], self._device)

    def _load(self, number: int, spec: ModelSpec) -> Any:
        began = time.monotonic()
        try:
            replica = spec.load(self._device)
            if spec.warmup is not None:
                try:
                    spec.warmup(replica)
                except BaseException:
                    _unload(replica, spec, self._device)
                    raise
        except BaseException as error:
            raise NotLoaded(error) from error
        self._loaded(number, time.monotonic() - began)
        return replica


def _unload(replica: Any, spec: ModelSpec, device: Device) -> None:
    if spec.unload is not None:
        try:
            spec.unload(replica)
        except BaseException:  # the other replicas must be unloaded too
            logger.exception("unloading %s from %s failed", spec.name, device.label)
