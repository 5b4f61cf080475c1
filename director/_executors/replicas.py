"""Replicas in this process, each loaded once, on a slot's own thread."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import TYPE_CHECKING, Any

from director._executors.base import LoadFailed
from director._forks import leave_copy
from director._untrusted.objects import is_a, log_error, set_cause, type_name

if TYPE_CHECKING:
    from director._jobs.job_runner import SlotInfo
    from director._jobs.model import Model
    from director._jobs.runner import RunnerEvents

logger = logging.getLogger("director")


class _Replica:
    """One load of a model. `value` and `error` are written by the loading thread before `ready` is set."""

    __slots__ = ("error", "loader", "model", "ready", "value")

    def __init__(self, model: Model[Any], loader: SlotInfo) -> None:
        self.model = model
        self.loader = loader
        self.ready = threading.Event()
        self.value: Any = None
        self.error: BaseException | None = None


class Replicas:
    """The replicas of one running Director, by model and device (or slot).

    Args:
        events: Takes reports of loads; has the clock.
    """

    def __init__(self, events: RunnerEvents) -> None:
        self._events = events
        self._lock = threading.Lock()
        self._replicas: dict[tuple[int, int, bool], _Replica] = {}  # by the model's identity

    def get(self, model: Model[Any], slot: SlotInfo) -> Any:
        """The replica for `slot`, loaded if there is none; on the slot's own thread.

        Raises:
            LoadFailed: With the loader's error.
        """
        key = (id(model), slot.number, True) if model.per_slot else (id(model), slot.position, False)
        with self._lock:
            replica = self._replicas.get(key)
            mine = replica is None
            if replica is None:
                replica = self._replicas[key] = _Replica(model, slot)
        if not replica.ready.is_set():
            began = self._events.time()
            if mine:
                try:
                    self._load(model, slot, replica)
                finally:  # other slots of the device may wait for it
                    if replica.error is not None:
                        with self._lock:
                            del self._replicas[key]
                    replica.ready.set()
            else:
                replica.ready.wait()
            if not mine or replica.error is not None:
                self._events.load_awaited(slot, self._events.time() - began)
        if replica.error is not None:
            raise LoadFailed(model, replica.error)
        return replica.value

    def release(self, slot: SlotInfo) -> None:
        """Unload what `slot` has loaded; on its own thread."""
        with self._lock:
            mine = [key for key, replica in self._replicas.items() if replica.loader is slot]
            released = [self._replicas.pop(key) for key in mine]
        for replica in released:
            self._unload(replica.model, slot, replica)

    def _load(self, model: Model[Any], slot: SlotInfo, replica: _Replica) -> None:
        began = self._events.time()
        try:
            replica.value = model.load(slot.device)
            leave_copy()
            try:
                if model.warmup is not None:
                    model.warmup(replica.value)
                    leave_copy()
            except BaseException:
                self._unload(model, slot, replica)
                raise
            self._events.loaded(model, slot, self._events.time() - began)
        except BaseException as error:  # noqa: BLE001 - raised by the jobs that wait for the replica
            leave_copy(error)
            replica.error = bearable(model, error)
            self._events.not_loaded(model, slot, error)

    def _unload(self, model: Model[Any], slot: SlotInfo, replica: _Replica) -> None:
        value, replica.value = replica.value, None
        if model.unload is not None:
            try:
                model.unload(value)
            except BaseException as error:  # noqa: BLE001 - the other replicas must be unloaded too
                log_error(logger, error, "unloading %s from %s failed", model.name, slot.device.label)
        self._events.unloaded(model, slot)


def bearable(model: Model[Any], error: BaseException) -> BaseException:
    """The loader's error; a RuntimeError for two types that have another meaning when a job is awaited."""
    if is_a(error, (StopIteration, asyncio.CancelledError)):
        instead = RuntimeError(f"loading {model.name} raised {type_name(error)}")
        set_cause(instead, error)
        return instead
    return error
