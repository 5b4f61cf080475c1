"""Replicas in this process, each loaded once, on a slot's own thread."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import TYPE_CHECKING, Any
from weakref import ref

from director._devices.footprints import LoadMeter, allocation, freed_since
from director._executors.base import LoadFailed
from director._executors.load_turns import turns
from director._system.forks import leave_copy
from director._untrusted.objects import add_note, is_a, log_error, set_cause, type_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from director._device import Device
    from director._executors.base import MemoryEvents
    from director._executors.load_turns import LocalSlots
    from director._jobs.job_runner import SlotInfo
    from director._jobs.model import Model

logger = logging.getLogger("director")


class _Replica:
    """One load of a model. `value` and `error` are written by the loading thread before `ready` is set."""

    __slots__ = ("error", "loader", "model", "ready", "value")

    def __init__(self, model: Model[Any], loader: SlotInfo) -> None:
        self.model = model._kept()
        self.loader = loader
        self.ready = threading.Event()
        self.value: Any = None
        self.error: BaseException | None = None


class Replicas:
    """The replicas of one running Director, by model and device (or slot)."""

    def __init__(self, events: MemoryEvents, slots: LocalSlots) -> None:
        self._events = events
        self._slots = slots
        turns.add(slots)
        self._lock = threading.Lock()
        self._replicas: dict[tuple[int, int, bool], _Replica] = {}  # by the model's key
        self._asleep: dict[tuple[int, int, bool], _Replica] = {}  # in host memory, the same

    def get(self, model: Model[Any], slot: SlotInfo) -> Any:
        """The replica for `slot`, loaded if there is none; on the slot's own thread.

        Raises:
            LoadFailed: With the loader's error.
        """
        key = _key(model, slot)
        with self._lock:
            replica = self._replicas.get(key)
            mine = replica is None
            if replica is None:
                replica = self._replicas[key] = _Replica(model, slot)
        if not replica.ready.is_set():
            began = self._events.time()
            if mine:
                try:
                    with turns.turn(model, self._slots, slot):
                        self._load(model, slot, replica)
                finally:  # other slots of the device may wait for it
                    if replica.error is not None:
                        with self._lock:
                            del self._replicas[key]
                    replica.ready.set()
            else:
                with turns.rest(self._slots, slot):
                    replica.ready.wait()
            if not mine or replica.error is not None:
                self._events.load_awaited(slot, self._events.time() - began)
        if replica.error is not None:
            raise LoadFailed(model, replica.error)
        return replica.value

    def unload(self, model: Model[Any], slot: SlotInfo) -> None:
        """Unload the replica that `slot` uses, and which no call uses; on the slot's own thread."""
        key = _key(model, slot)
        with self._lock:
            replica = self._replicas.pop(key, None) or self._asleep.pop(key, None)
        if replica is not None:
            self._unload(model, slot, replica, is_measured=True)

    def sleep(self, model: Model[Any], slot: SlotInfo) -> tuple[bool, int | None]:
        """Put the replica that `slot` uses, and which no call uses, to sleep; on the slot's own thread.

        Returns:
            Whether it sleeps, else it was unloaded; and the bytes of the device that are back, if a framework tells.
        """
        key = _key(model, slot)
        with self._lock:
            replica = self._replicas.pop(key)
        before = allocation(slot.device)
        assert model.sleep is not None
        try:
            replica.value = moved(model.sleep, replica.value)
        except BaseException as error:  # noqa: BLE001 - the memory is needed
            log_error(logger, error, "putting %s to sleep on %s failed", model.name, slot.device.label)
            self._unload(model, slot, replica, is_measured=True)
            return False, None
        with self._lock:
            self._asleep[key] = replica
        return True, freed_since(before, slot.device)

    def release(self, slot: SlotInfo) -> None:
        """Unload what `slot` has loaded; on its own thread."""
        with self._lock:
            released = [
                replicas.pop(key)
                for replicas in (self._replicas, self._asleep)
                for key in [key for key, replica in replicas.items() if replica.loader is slot]
            ]
        for replica in released:
            self._unload(replica.model, slot, replica)

    def _load(self, model: Model[Any], slot: SlotInfo, replica: _Replica) -> None:
        began = self._events.time()
        self._events.loading(model, slot)
        with self._lock:
            slept = self._asleep.pop(_key(model, slot), None)
        meter = LoadMeter(slot.device) if self._events.is_accounted(model) else None
        try:
            if slept is None:
                replica.value = model.load(slot.device)
                leave_copy()
            else:
                replica.value, replica.loader, slept.value = slept.value, slept.loader, None
            try:
                if slept is not None:
                    assert model.wake is not None
                    replica.value = moved(model.wake, replica.value)
                elif model.warmup is not None:
                    model.warmup(replica.value)
                    leave_copy()
            except BaseException:
                self._unload(model, slot, replica)
                raise
            seconds = self._events.time() - began
            if meter is not None:
                self._events.measured(model, slot, meter.size())
            self._events.loaded(model, slot, seconds)
        except BaseException as error:  # noqa: BLE001 - raised by the jobs that wait for the replica
            leave_copy(error)
            replica.error = error_of_load(model, slot.device, error)
            self._events.not_loaded(model, slot, error)

    def _unload(self, model: Model[Any], slot: SlotInfo, replica: _Replica, is_measured: bool = False) -> None:
        before = allocation(slot.device) if is_measured else None
        value, replica.value = replica.value, None
        witness = _reference(value)
        self._events.unloading(model, slot)
        if model.unload is not None:
            try:
                model.unload(value)
            except BaseException as error:  # noqa: BLE001 - the other replicas must be unloaded too
                log_error(logger, error, "unloading %s from %s failed", model.name, slot.device.label)
        del value
        freed = freed_since(before, slot.device)
        if before is not None and freed is not None:
            self._events.kept(model, slot, before.allocated - freed, witness)
        self._events.unloaded(model, slot, freed)


def _reference(value: Any) -> Callable[[], Any]:
    """Returns the value as long as something else refers to it; `None` also if it can't be referred to weakly."""
    try:
        return ref(value)
    except TypeError:
        return _nothing


def _nothing() -> None:
    return None


def _key(model: Model[Any], slot: SlotInfo) -> tuple[int, int, bool]:
    return (model._key, slot.number, True) if model.per_slot else (model._key, slot.position, False)


def moved(move: Callable[[Any], Any], replica: Any) -> Any:
    """What a user's `sleep` or `wake` gives for a replica: the same one, if it returns `None`."""
    result = move(replica)
    leave_copy()
    return replica if result is None else result


def error_of_load(model: Model[Any], device: Device, error: BaseException) -> BaseException:
    """The loader's error, with a note that says where it was raised.

    A RuntimeError in place of two types that have another meaning when a job is awaited.
    """
    if is_a(error, (StopIteration, asyncio.CancelledError)):
        instead = RuntimeError(f"loading {model.name} raised {type_name(error)}")
        set_cause(instead, error)
        error = instead
    add_note(error, f"director: {model.name} could not be loaded on {device.label}")
    return error
