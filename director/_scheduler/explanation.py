"""What a waiting job waits for, in words and numbers. Called by `scheduler` under its lock."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from director._jobs.state import JobState
from director._scheduler.memory.replica import ReservationState
from director._scheduler.memory.victims import in_demand
from director._scheduler.queue.batch_group import BatchGroup
from director._scheduler.queue.ready_queue import RetryWaiting
from director._scheduler.slots import SlotState
from director._untrusted.numbers import size_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from director._jobs.job import Job, ScheduledJob
    from director._jobs.model import Model
    from director._scheduler.memory.ledger import DeviceMemory
    from director._scheduler.memory.memory import Memory
    from director._scheduler.memory.replica import Replica
    from director._scheduler.queue.lane import Lane
    from director._scheduler.queue.ready_queue import ReadyQueue
    from director._scheduler.slots import DeviceSlots, Slot

ReasonKind: TypeAlias = Literal["slot", "memory", "load", "order", "batch", "retry", "device"]
_FREE = (SlotState.IDLE, SlotState.PARKED, SlotState.STARTING, SlotState.WOKEN)
_LOADING, _RESIDENT = ReservationState.LOADING, ReservationState.RESIDENT


@dataclass(frozen=True, slots=True)
class Reason:
    """One thing that a job waits for.

    Args:
        kind: ``"slot"``: all slots of a device are taken; ``"memory"``: there is no room; ``"load"``: a model is being
            loaded or unloaded, or is not worth loading there; ``"order"``: others are served first; ``"batch"``: its
            batch may become fuller; ``"retry"``: its next attempt is not due; ``"device"``: a device gets no work.
        text: The same in words, with the numbers.
        device: The label of the device; `None` if it is about no single one.
    """

    kind: ReasonKind
    text: str
    device: str | None = None

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Explanation:
    """What a job waits for.

    Args:
        job: The job.
        reasons: What it waits for, by device; none if it doesn't wait.
        text: All of it in words.
    """

    job: Job[Any]
    reasons: tuple[Reason, ...]
    text: str

    def __str__(self) -> str:
        return self.text


def explain(
    job: ScheduledJob[Any], places: list[DeviceSlots], queue: ReadyQueue, memory: Memory, failed: Failed, now: float
) -> Explanation:
    """What `job` waits for now."""
    if job.state is not JobState.QUEUED:
        where = "" if job.device is None else f" on {job.device.label}"
        return Explanation(job, (), f"{job.name} does not wait: it is {job.state.value}{where}")
    reasons = tuple(_reasons(job, places, queue, memory, failed, now))
    head = f"{job.name} has waited {max(0.0, now - job.submitted_at):.3g} s"
    return Explanation(job, reasons, "\n".join([f"{head}:", *(f"- {reason.text}" for reason in reasons)]))


Failed: TypeAlias = "Callable[[Model[Any]], frozenset[int]]"


def _reasons(
    job: ScheduledJob[Any], places: list[DeviceSlots], queue: ReadyQueue, memory: Memory, failed: Failed, now: float
) -> Iterator[Reason]:
    if isinstance(job.location, RetryWaiting):
        yield Reason("retry", "its last attempt has failed, and the next one is not due")
        return
    if isinstance(job.location, BatchGroup) and job.location.upper is None:
        yield Reason("batch", f"its batch has {job.location.waiting} items and is held for more, by max_wait")
    allowed, lane = job.options.allowed, queue.lane_of(job)
    for place in places:
        slots = [slot for slot in place.slots if allowed is None or slot.number in allowed]
        if slots and not place.is_gone:
            yield from _on(place, slots, lane, memory, failed)
    ahead = sum(other is not job and _key(other) < _key(job) for other in queue)
    waiting = queue.count_waiting()
    yield Reason("order", f"{waiting} jobs wait, {ahead} of them come first by priority, deadline and arrival")
    if lane is not None and lane.is_managed:
        yield from _passed_over(lane, places, memory)


def _key(job: ScheduledJob[Any]) -> tuple[int, float, int]:
    return -job.options.priority, job.deadline_at(), job.id


def _on(place: DeviceSlots, slots: list[Slot], lane: Lane | None, memory: Memory, failed: Failed) -> Iterator[Reason]:
    label = place.device.label
    if place.is_lent:
        yield Reason(
            "device", f"{label}: a server process with other code has it until its jobs there have ended", label
        )
        return
    if not place.slots[0].is_open:
        yield Reason("device", f"{label} gets no work: it is in quarantine", label)
        return
    busy = sum(slot.state not in _FREE for slot in slots)
    if busy == len(slots):
        yield Reason("slot", f"{label}: {busy} of {len(slots)} slots are taken", label)
    if lane is None or not lane.is_managed:
        return
    here, slot, known = memory.devices[place], slots[0], lane.known
    if here.is_metered and here.sample is None:
        yield Reason("memory", f"the free memory of {label} is being read", label)
    replica = None if known is None else known.on(slot.number)
    if known is not None and replica is not None and replica.state is not _RESIDENT:
        seconds = f", which takes about {known.load_seconds:.3g} s" if known.loads else ""
        what = f"{known.model.name} is {replica.state.value} on {label}"
        yield Reason("load", what + (seconds if replica.state is _LOADING else ""), label)
        return
    if known is not None and replica is None and slot.number in failed(known.model):
        yield Reason("load", f"loading {known.model.name} on {label} has failed lately", label)
    needed, free = here.needed_by(lane, slot), here.free()
    if known is not None and replica is None and here.is_short(needed) and here.sample is not None:
        text = (
            f"{label}: loading {known.model.name} needs {size_text(needed)}, and {size_text(here.sample.free)} are free"
        )
        yield Reason("memory", f"{text} on the device, by others' use or by what our own caches hold", label)
    if needed > free:
        yield Reason("memory", _shortage(here, lane, replica, needed, free), label)
    elif known is not None and replica is None:
        others = [each for each in known.replicas if each.state in (_LOADING, _RESIDENT)]
        if others and known.calls:
            wait = f"{lane.waiting} jobs of {known.call_seconds:.3g} s"
            text = f"{label}: no copy of {known.model.name}: {wait} are done sooner where it is, than loaded here in "
            yield Reason("load", f"{text}{known.load_seconds:.3g} s", label)


def _shortage(here: DeviceMemory, lane: Lane, own: Replica | None, needed: int, free: float) -> str:
    label = here.place.device.label
    text = (
        f"{label}: needs {size_text(needed)}, and {size_text(max(0, free))} of {size_text(here.budget or 0)} are free, "
        f"short by {size_text(needed - free)}"
    )
    held = [
        f"{each.known.model.name} {size_text(each.size)} ({_why(each, own, here, lane)})"
        for each in here.replicas
        if not each.has_left
    ]
    held += [f"calls {size_text(here.calls)}"] if here.calls else []
    held += [f"contexts of processes {size_text(sum(here.contexts.values()))}"] if here.contexts else []
    held += [f"others {size_text(here.foreign)}"] if here.foreign else []
    held += [f"{each.model} {size_text(each.missing)} (unloaded, and not back yet)" for each in here.returning]
    held += [f"leaked by {name} {size_text(size)}" for name, size in here.leaked.items()]
    return f"{text}; taken by {', '.join(held)}" if held else text


def _why(replica: Replica, own: Replica | None, here: DeviceMemory, lane: Lane) -> str:
    """Why a replica is there still."""
    if replica is own:
        return "its own"
    if replica.known.model.pin:
        return "pinned"
    if replica.state is not _RESIDENT:
        return replica.state.value
    if here.is_in_use(replica, None):
        return "in use"
    return "others wait for it" if in_demand(here, lane)(replica) else "may leave"


def _passed_over(lane: Lane, places: list[DeviceSlots], memory: Memory) -> Iterator[Reason]:
    """Devices that serve what they hold first, until they have worked long enough to load again."""
    for place in places:
        here = memory.devices[place]
        known = lane.known
        if known is None or known.on(place.slots[0].number) is not None or here.has_worked_enough():
            continue
        if any(in_demand(here, lane)(replica) for replica in here.replicas):
            label = place.device.label
            text = f"{label} serves the models that it holds first: it has worked {here.work:.3g} s since its last load"
            yield Reason("order", f"{text}, and loads again after {here.quantum():.3g} s", label)
