"""A slot: one unit of concurrency on a device, with its own long-lived thread.

`state`, `job`, `batch`, `prefetched`, `usage` and `is_open` are written by `scheduler` under its lock; the counters by
the slot's own thread alone. `missed_deadline` is filled by `scheduler` and emptied by the thread.
"""

from __future__ import annotations

import threading
from collections import deque
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Hashable

    from director._device import Device
    from director._jobs.job import Location, ScheduledJob
    from director._jobs.job_runner import JobRunner
    from director._jobs.model import Model
    from director._jobs.options import BatchRule
    from director._scheduler.queue.fair_share import Tenant
    from director._system.threads import DaemonThreadExecutor

_RECENT = 16  # jobs per second are measured over the last 16 to 32 jobs


class Slot:
    """One unit of concurrency on a device."""

    __slots__ = (
        "batch",
        "busy_seconds",
        "can_sleep",
        "can_unload",
        "device",
        "is_open",
        "job",
        "jobs",
        "loading_seconds",
        "loads",
        "lost",
        "mark_at",
        "marks",
        "missed_deadline",
        "number",
        "place",
        "prefetched",
        "runner",
        "state",
        "thread",
        "unloads",
        "usage",
        "wake",
        "wake_signal",
    )

    upper: ClassVar[Location | None] = None
    """As the `Location` of a job: not part of a queue."""
    runner: JobRunner
    thread: DaemonThreadExecutor

    def __init__(self, number: int, place: DeviceSlots) -> None:
        self.number = number
        self.place = place
        self.device = place.device
        self.state = SlotState.IDLE
        self.job: ScheduledJob[Any] | None = None
        self.batch: list[ScheduledJob[Any]] | None = None  # `job` and those that share its call
        self.prefetched: deque[ScheduledJob[Any]] = deque()  # RUNNING; their calls have not begun
        self.can_sleep = False  # its runner can put one model to sleep
        self.can_unload = True  # its runner can unload one model of many
        self.is_open = True  # False while its device is in quarantine or lent
        self.missed_deadline: list[ScheduledJob[Any]] = []  # FAILED by `scheduler`; the worker reports them
        self.unloads: list[Unload] = []  # while UNLOADING: what its thread unloads
        self.usage: CallUsage | None = None
        self.wake_signal = threading.Lock()  # a parked worker waits to acquire it; `wake` releases it
        self.wake_signal.acquire()
        self.wake = partial(_wake, self.wake_signal)  # wakes the worker; may be called again
        self.jobs = 0
        self.lost = 0  # of these: their process ended during the call
        self.busy_seconds = 0.0
        self.loads = 0  # calls that had to load a model first, successfully or not
        self.loading_seconds = 0.0  # of the busy ones
        self.marks = (0, 0.0, 0, 0.0)  # jobs and busy seconds, at two times in the past
        self.mark_at = _RECENT

    @property
    def index(self) -> int:
        """Its number among the slots of its device, from 0."""
        return self.number - self.place.slots[0].number

    def left(self, job: ScheduledJob[Any]) -> None:
        """As the `Location` of a job: there is nothing to count."""

    def note_load(self, seconds: float) -> None:
        """On its thread: a call began with loading a model for `seconds`, which do not count for `pace`."""
        self.loads += 1
        self.loading_seconds += seconds

    def mark(self) -> None:
        """On its thread, when `jobs` has reached `mark_at`: forget older jobs for `pace`."""
        _, _, jobs, seconds = self.marks
        self.marks = (jobs, seconds, *self._work())
        self.mark_at = self.jobs + _RECENT

    def pace(self) -> float:
        """Recent jobs per busy second; 0 while nothing was measured."""
        jobs, seconds = self._work()
        jobs, seconds = jobs - self.marks[0], seconds - self.marks[1]
        return jobs / seconds if jobs > 0 and seconds > 0 else 0.0

    def _work(self) -> tuple[int, float]:
        """Jobs and busy seconds without loads."""
        return self.jobs - self.loads, self.busy_seconds - self.loading_seconds

    def recall(self) -> None:
        """Have its runner give back what it has prefetched."""
        self.runner.recall_prefetched()

    def current_jobs(self) -> list[ScheduledJob[Any]]:
        """The jobs of its current call."""
        job = self.job  # read once: without the lock the slot's thread may set it to `None`
        return [] if job is None else self.batch or [job]

    @property
    def is_abandoned(self) -> bool:
        """Whether its call runs although all its jobs have ended: they were cancelled or are out of time."""
        # `finished_at`: the slot's thread sets it when the call has ended, and may not have taken the next job yet.
        jobs = self.current_jobs()
        return bool(jobs) and all(job.finished_at is None and job.done() for job in jobs)

    def __repr__(self) -> str:
        return f"<Slot {self.number} of {self.device.label} {self.state.value}>"


class Unload(NamedTuple):
    """What a slot's thread unloads, or puts to sleep.

    Args:
        model: The model; `None`: it empties the caches of frameworks.
        size: Bytes that were reserved.
        wanted: For what; `None`: by request.
        is_sleep: It goes to host memory.
    """

    model: Model[Any] | None
    size: int
    wanted: str | None
    is_sleep: bool = False


def _wake(wake_signal: threading.Lock) -> None:
    try:
        wake_signal.release()
    except RuntimeError:  # released already
        return


class DeviceSlots:
    """A device with its slots."""

    __slots__ = ("device", "free", "idle", "is_gone", "is_lent", "parked", "position", "slots")

    def __init__(self, position: int, device: Device, count: int, first_number: int) -> None:
        self.position = position
        self.device = device
        self.slots = [Slot(first_number + i, self) for i in range(count)]
        self.idle: list[Slot] = list(reversed(self.slots))
        self.parked: list[Slot] = []
        self.free = count  # idle and parked ones; written by `placement`, like the two lists
        self.is_gone = False  # the device was removed; it gets a new `DeviceSlots` if it returns
        self.is_lent = False  # another process has the device

    def __repr__(self) -> str:
        return f"<Place {self.device.label} {self.free}/{len(self.slots)} free>"


def make_device_slots(devices: tuple[Device, ...], counts: list[int]) -> list[DeviceSlots]:
    """One `DeviceSlots` for each device, slots numbered through all devices."""
    places: list[DeviceSlots] = []
    first = 0
    for position, (device, count) in enumerate(zip(devices, counts, strict=True)):
        places.append(DeviceSlots(position, device, count, first))
        first += count
    return places


class CallUsage:
    """One call on a slot, to be settled when it has ended."""

    __slots__ = ("at", "before", "fits", "is_typical", "key", "rule", "size", "tenants")

    def __init__(self, at: float, before: float, rule: BatchRule | None, key: Hashable, size: int) -> None:
        self.at = at  # when it began
        self.before = before  # busy seconds of the slot
        self.rule = rule
        self.key = key
        self.size = size  # items; lowered by the slot's thread when some were cancelled before the call
        self.is_typical = True  # cleared by the slot's thread when the call has raised
        self.fits: int | None = None  # set by the slot's thread when memory ran out: the largest size that fitted
        self.tenants: list[tuple[Tenant, float]] = []  # one for each item, with the seconds it was charged


class SlotState(Enum):
    """What a slot does.

    | from | to | by |
    |---|---|---|
    | `IDLE` | `STARTING` | the Director coroutine takes a permit |
    | `STARTING`, `WOKEN` | `WORKING`, `PARKED` | the worker calls `next_work` |
    | `WORKING` | `WORKING`, `PARKED` | the worker calls `next_work` after a job |
    | `PARKED` | `WOKEN` | a submission, or a worker that finds more work |
    | `PARKED` | `LEAVING` | nothing came while the worker lingered |
    | `LEAVING` | `IDLE` | the done-callback of its task returns the permit |
    | `STARTING`, `WOKEN`, `WORKING` | `WAITING_FOR_OTHERS` | another process has the shared slot |
    | `WAITING_FOR_OTHERS` | `WORKING`, `PARKED`, `UNLOADING` | the worker has got the shared slot |
    | `STARTING`, `WOKEN`, `WORKING`, `WAITING_FOR_OTHERS` | `BACKING_OFF` | its thread or process can't be started |
    | `BACKING_OFF` | `IDLE` | its back-off is over |
    | `STARTING`, `WOKEN`, `WORKING`, `UNLOADING` | `UNLOADING` | its thread unloads models to make room |
    | `UNLOADING` | `WORKING`, `PARKED`, `WAITING_FOR_OTHERS`, `BACKING_OFF` | the worker calls `next_work` after that |
    """

    IDLE = "idle"
    STARTING = "starting"
    WORKING = "working"
    PARKED = "parked"
    WOKEN = "woken"
    LEAVING = "leaving"
    WAITING_FOR_OTHERS = "waiting for others"
    BACKING_OFF = "backing off"
    UNLOADING = "unloading"


_NEXT = frozenset(
    {SlotState.WORKING, SlotState.PARKED, SlotState.WAITING_FOR_OTHERS, SlotState.BACKING_OFF, SlotState.UNLOADING}
)
SLOT_MOVES: dict[SlotState, frozenset[SlotState]] = {
    SlotState.IDLE: frozenset({SlotState.STARTING}),
    SlotState.STARTING: _NEXT,
    SlotState.WORKING: _NEXT,
    SlotState.UNLOADING: _NEXT,
    SlotState.PARKED: frozenset({SlotState.WOKEN, SlotState.LEAVING}),
    SlotState.WOKEN: _NEXT,
    SlotState.LEAVING: frozenset({SlotState.IDLE}),
    SlotState.WAITING_FOR_OTHERS: frozenset(
        {SlotState.WORKING, SlotState.PARKED, SlotState.BACKING_OFF, SlotState.UNLOADING}
    ),
    SlotState.BACKING_OFF: frozenset({SlotState.IDLE}),
}
