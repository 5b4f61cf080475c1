"""The replicas of one child, on its main thread."""

from __future__ import annotations

import logging
import time
from contextvars import Context
from typing import TYPE_CHECKING, Any

from director._devices.device_errors import free_caches
from director._devices.footprints import LoadMeter, allocation, freed_since

if TYPE_CHECKING:
    from collections.abc import Callable

    from director._device import Device
    from director._devices.footprints import LoadSize
    from director._jobs.model import Model

logger = logging.getLogger("director")
_here: WorkerReplicas | None = None  # of this process


def only_load(_resource: Any) -> None:
    """The function of a call that only loads the model, and starts the process."""


class ModelSpec:
    """A `Model` as it is sent to another process.

    Args:
        load, warmup, unload: The model's, or what is sent for them.
        name: The model's name.
        sleep, wake: The model's, where the runner can put models to sleep.
    """

    def __init__(self, load: Any, warmup: Any, unload: Any, name: str, sleep: Any = None, wake: Any = None) -> None:
        self.load = load
        self.warmup = warmup
        self.unload = unload
        self.name = name
        self.sleep = sleep
        self.wake = wake

    def __reduce__(self) -> Any:
        return ModelSpec, (self.load, self.warmup, self.unload, self.name, self.sleep, self.wake)


def spec_of(model: Model[Any], sent: Callable[[Any], Any], *, can_sleep: bool) -> ModelSpec:
    """A model as it is sent."""
    load, warmup, unload = sent(model.load), sent(model.warmup), sent(model.unload)
    sleep, wake = (sent(model.sleep), sent(model.wake)) if can_sleep else (None, None)
    return ModelSpec(load, warmup, unload, model.name, sleep, wake)


class NotLoaded(Exception):
    """A replica could not be loaded; carries the loader's exception."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(error)
        self.error = error


class WorkerReplicas:
    """Replicas by the parent's number of their model.

    Args:
        device: The device.
        loaded: Called with the number, the seconds of the load, and what it has taken as far as a framework tells.
    """

    def __init__(self, device: Device, loaded: Callable[[int, float, LoadSize | None], None]) -> None:
        global _here
        _here = self
        self._device = device
        self._loaded = loaded
        self._replicas: dict[int, tuple[Any, ModelSpec]] = {}
        self._asleep: dict[int, tuple[Any, ModelSpec]] = {}  # in host memory

    def get(self, number: int, spec: ModelSpec | None) -> Any:
        """The replica of a model, loaded if there is none.

        Raises:
            NotLoaded: With the loader's error.
        """
        if number not in self._replicas:
            assert spec is not None, "the parent sends it until it knows that the model is loaded"
            self._replicas[number] = Context().run(self._load, number, spec), spec
        return self._replicas[number][0]

    def drop(self, number: int) -> int | None:
        """Unload the replica of a model; returns the bytes that have come back, if a framework tells."""
        replica = self._replicas.pop(number, None) or self._asleep.pop(number, None)
        if replica is None:
            return None
        before = allocation(self._device)
        _unload(*replica, self._device)
        del replica
        return freed_since(before, self._device)

    def put_to_sleep(self, number: int) -> tuple[bool, int | None]:
        """Put the replica of a model to sleep; whether it sleeps, else it was unloaded, and the bytes that are back."""
        before = allocation(self._device)
        replica, spec = self._replicas.pop(number)
        try:
            self._asleep[number] = _moved(spec.sleep, replica), spec
        except BaseException:  # the memory is needed
            logger.exception("putting %s to sleep on %s failed", spec.name, self._device.label)
            _unload(replica, spec, self._device)
        del replica
        return number in self._asleep, freed_since(before, self._device)

    def clear(self) -> None:
        """Unload everything, the last first."""
        for replicas in (self._replicas, self._asleep):
            while replicas:
                _unload(*replicas.popitem()[1], self._device)

    def free_caches(self) -> None:
        """Give memory back that frameworks keep for later calls."""
        free_caches(device=self._device)

    def _load(self, number: int, spec: ModelSpec) -> Any:
        began = time.monotonic()
        asleep = self._asleep.pop(number, None)
        meter = LoadMeter(self._device, has_free=False)  # the parent reads that
        try:
            replica = spec.load(self._device) if asleep is None else asleep[0]
            try:
                if asleep is not None:
                    replica = _moved(spec.wake, replica)
                elif spec.warmup is not None:
                    spec.warmup(replica)
            except BaseException:
                _unload(replica, spec, self._device)
                raise
        except BaseException as error:
            raise NotLoaded(error) from error
        self._loaded(number, time.monotonic() - began, meter.size())
        return replica


def sleep_here(number: int) -> tuple[bool, int | None]:
    """Called in a child: put the replica of a model to sleep. Returns as `WorkerReplicas.put_to_sleep`."""
    assert _here is not None
    return _here.put_to_sleep(number)


def unload_here(number: int) -> int | None:
    """Called in a child or an actor: unload the replica of a model. Returns as `WorkerReplicas.drop`."""
    return None if _here is None else _here.drop(number)


def _moved(move: Callable[[Any], Any], replica: Any) -> Any:
    """What a user's `sleep` or `wake` gives for a replica: the same one, if it returns `None`."""
    result = move(replica)
    return replica if result is None else result


def free_caches_here() -> None:
    """Called in a child or an actor: empty the caches of frameworks."""
    if _here is not None:
        _here.free_caches()


def _unload(replica: Any, spec: ModelSpec, device: Device) -> None:
    if spec.unload is not None:
        try:
            spec.unload(replica)
        except BaseException:  # the other replicas must be unloaded too
            logger.exception("unloading %s from %s failed", spec.name, device.label)
