"""The statistics of a Director, as frozen snapshots."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from director._scheduler.memory.report import NO_MEMORY, MemoryStats
from director._scheduler.slots import SlotState

if TYPE_CHECKING:
    from director._device import Device
    from director._devices.health.rules import Health
    from director._runtime.runtime import Runtime


@dataclass(frozen=True, slots=True)
class DeviceStats:
    """One device at one time.

    Args:
        device: The device.
        slots: How many jobs it may run at once.
        busy: Slots whose thread is in a call now, cancelled or not.
        abandoned: Of these, slots whose call goes on although all its jobs have ended, cancelled or out of time.
        elsewhere: Slots that another process has and this one wants; see `Director(shared=...)`.
        jobs: Calls that have ended on it.
        busy_seconds: Seconds that its slots have spent in calls that have ended.
        models: Names of the models that are resident.
        health: Whether it gets work.
        reason: Why it gets none.
        memory: What of its memory is taken, by what.
    """

    device: Device
    slots: int
    busy: int
    abandoned: int
    elsewhere: int
    jobs: int
    busy_seconds: float
    models: tuple[str, ...]
    health: Health
    reason: str | None
    memory: MemoryStats = NO_MEMORY


@dataclass(frozen=True, slots=True)
class FunctionStats:
    """What calls of one batch function cost on one device: seconds as a linear function of the batch size.

    Learned from the last calls by least squares; the newest weigh most.

    Args:
        name: The function's name.
        device: The device.
        calls: Calls that were measured; not those that loaded a model or raised.
        items: Items in these.
        fixed_seconds: Seconds of a call, independent of its size.
        seconds_per_item: Seconds that each item adds.
    """

    name: str
    device: Device
    calls: int
    items: int
    fixed_seconds: float
    seconds_per_item: float


@dataclass(frozen=True, slots=True)
class Stats:
    """A Director at one time. Every accepted job is in exactly one of the first five counts.

    Args:
        queued: Jobs that wait, including those whose callers wait for room in the queue.
        running: Jobs that have been started and have not ended for their callers.
        succeeded: Jobs that have returned.
        failed: Jobs that have raised, or whose deadline or timeout has passed.
        cancelled: Jobs that were cancelled, waiting or running.
        rejected: Jobs that were refused at submission; not among the accepted.
        devices: One entry for each device.
        functions: One entry for each batch function and device that has run it.
    """

    queued: int
    running: int
    succeeded: int
    failed: int
    cancelled: int
    rejected: int
    devices: tuple[DeviceStats, ...]
    functions: tuple[FunctionStats, ...]


def snapshot(runtime: Runtime) -> Stats:
    """The state of a runtime now, recounted from its slots and queue."""
    job_lifecycle = runtime.job_lifecycle
    latest = {place.device: place for place in runtime.device_slots}  # a device that left and returned counts once
    devices = tuple(
        DeviceStats(
            place.device,
            len(place.slots),
            sum(slot.state is SlotState.WORKING for slot in place.slots),
            sum(slot.is_abandoned for slot in place.slots),
            sum(slot.state is SlotState.WAITING_FOR_OTHERS for slot in place.slots),
            sum(slot.jobs for slot in place.slots),
            sum(slot.busy_seconds for slot in place.slots),
            tuple(model.name for model in runtime.residency.on(place)),
            *runtime.health.registry.health(place),
            runtime.scheduler.memory_of(place),
        )
        for place in runtime.device_slots
        if latest[place.device] is place
    )
    functions = tuple(
        FunctionStats(rule.name, place.device, calls, items, *line)
        for rule, place, calls, items, line in runtime.scheduler.costs()
        if latest[place.device] is place
    )
    return Stats(
        *runtime.counts(),
        job_lifecycle.succeeded,
        job_lifecycle.failed,
        job_lifecycle.cancelled,
        job_lifecycle.rejected,
        devices,
        functions,
    )
